"""The pages that researchers see."""
