"""Question types: one file for each, listed in study.questionnaire."""
