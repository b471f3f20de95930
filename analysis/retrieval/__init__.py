"""Retrieval with a validated similarity measure: robustness, attribution, replication."""
