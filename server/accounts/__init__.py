"""Users of the desk: accounts, roles, second factors."""
