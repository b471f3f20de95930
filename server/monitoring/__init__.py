"""Health checks, metrics and the state of a study."""
