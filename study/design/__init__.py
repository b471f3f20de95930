"""The design of a study: similarity bins, triplets, schedule, power."""
