"""Embedding on many machines with Ray."""
