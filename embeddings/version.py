"""The version of Rootnote, the same as in pyproject.toml."""

VERSION = "0.2.0"
