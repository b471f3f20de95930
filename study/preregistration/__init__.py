"""The frozen plan of a study and its exclusion rules."""
