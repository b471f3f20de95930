"""Reading, checking and excluding responses."""
