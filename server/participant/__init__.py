"""The pages that listeners see."""
