"""Nearest neighbours of vectors: exact, approximate, in a store, and duplicates."""
