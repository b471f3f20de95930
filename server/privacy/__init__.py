"""Personal data: what is stored, consent, erasure, retention and access requests."""
