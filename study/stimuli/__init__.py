"""Stimuli: rendering the clips that listeners hear, and storing them."""
