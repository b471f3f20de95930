"""Embedding models: the interface, the registry and one file for each model."""
