"""Retrieval with a validated measure: robustness, attribution, replication."""
