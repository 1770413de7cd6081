"""From tar shards to batches of pixels. Empty on purpose: the packer imports `format` and `encoded`, and no torch."""
