"""The commands of `rootnote server`."""
