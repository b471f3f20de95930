"""A complete study, offline, with a small synthetic corpus and simulated listeners."""
