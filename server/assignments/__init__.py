"""What happens to an assignment, from consent to the completion code."""
