"""Where listeners come from."""
