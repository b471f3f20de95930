"""The frozen plan: applying it, deviations from it, sensitivity to exclusions."""
