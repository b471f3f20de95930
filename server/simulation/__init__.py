"""Rehearsal: simulated listeners take the real study over HTTP, in a separate database."""
