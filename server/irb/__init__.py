"""The packet for a review board: what a board asks about a study, from study.toml and the running software."""
