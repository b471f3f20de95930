"""Statistics of agreement: tests, intervals, models, reliability."""
