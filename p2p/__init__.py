"""p2p: paired image translation, trained from tar shards on any number of machines."""

__version__ = "0.1.0"
