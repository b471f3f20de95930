"""The board packet: what a review board asks of a study, made from study.toml and the running code."""
