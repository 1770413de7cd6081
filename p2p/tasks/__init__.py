"""Tasks: who plays next, with which losses."""

from p2p.tasks.pix2pix import Pix2Pix

TASKS = {"pix2pix": Pix2Pix}
