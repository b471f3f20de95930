"""Which generations copy something of a training corpus."""
