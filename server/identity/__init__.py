"""Tokens, pseudonyms and the encrypted vault of marketplace identities."""
