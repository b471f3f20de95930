"""Which generations copy part of a training corpus."""
