"""Audio files: decoding, cutting into clips, hashing their content."""
