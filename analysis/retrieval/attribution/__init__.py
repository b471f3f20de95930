"""Which training clips a model's generations resemble."""
