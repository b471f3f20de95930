"""From audio to nearest clips: cut tracks into clips, embed them, search by cosine similarity."""
