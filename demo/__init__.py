"""The whole main job, offline, on a small synthetic corpus and simulated listeners."""
