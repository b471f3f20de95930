"""Researchers who may sign in at the desk: users, roles, second factors."""
