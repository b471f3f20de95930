"""Local marketplaces: stateful emulators on this machine, used over HTTP."""
