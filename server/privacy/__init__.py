"""Withdrawal, erasure, retention and disclosure of personal data."""
