"""Recruiting and paying through a marketplace."""
