"""What the command lines of this room share: mistakes in one line, and numbers read strictly."""

import argparse
import os
import re
from typing import NoReturn

from p2p.data.format import CLASSES

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def cpus() -> int:
    """How many this process may use."""
    # what a scheduler grants may be less than what the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count(text: str) -> int:
    """A whole number from 0 on."""
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number; give for instance 200")
    return int(text)


def classes(text: str) -> int:
    """A number of classes."""
    if count(text) > CLASSES:
        raise argparse.ArgumentTypeError(f"there can be {CLASSES} at most")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not count(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    if not re.fullmatch(r"\d*\.?\d+", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number; give for instance 2.0")
    return float(text)


def byte_count(text: str) -> int:
    """A number of bytes, as 256M."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text} is not a size; give for instance 256M")
    return int(match[1]) * UNITS[match[2]]


def size(text: str) -> tuple[int, int]:
    """Height and width, as 256x512."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH; give for instance 256x256")
    return int(match[1]), int(match[2])
