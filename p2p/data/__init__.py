"""From tar shards to batches of pixels. Empty on purpose: packing imports only `p2p.data.format`."""
