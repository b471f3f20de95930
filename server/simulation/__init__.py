"""Rehearsal: simulated listeners take the real study over HTTP, in a database of their own."""
