"""The experiment's design: study.toml, similarity bins, triplets, schedule, stimuli."""
