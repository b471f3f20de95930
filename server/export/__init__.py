"""Exports for the analysis."""
