"""An extension of Rootnote by another package: one thing of each kind, tested by tests/test_extending.py."""
