"""From tar shards to batches of pixels. Empty on purpose: what is not about pixels imports no torch."""
