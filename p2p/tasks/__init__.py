"""Tasks: who plays next, with which losses."""

from p2p.tasks.pix2pix import Pix2Pix, Pix2PixHD

TASKS = {"pix2pix": Pix2Pix, "pix2pixhd": Pix2PixHD}
