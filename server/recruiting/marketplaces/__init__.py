"""Marketplaces: the interface, the registry and one file for each."""
