"""How robust a measure is to changes of the audio."""
