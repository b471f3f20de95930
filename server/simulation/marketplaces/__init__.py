"""Local marketplaces: emulators on loopback, with state, that clients talk to over the wire."""
