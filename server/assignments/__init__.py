"""The life of an assignment, from consent to the completion code."""
