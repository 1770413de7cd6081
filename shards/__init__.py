"""Offline producers and inspectors of shards."""
