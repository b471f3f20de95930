"""Events that a marketplace sends to the server."""
