"""A command line that says a mistake in one line."""

import argparse
from typing import NoReturn

DIGITS = 9
"""Of a number on the command line, at most."""


class Parser(argparse.ArgumentParser):
    """argparse without the usage before an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def count(text: str) -> int:
    """A whole number from 0 on."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 0")
    if len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text} is more than anybody means; use at most {DIGITS} digits")
    return int(text)


def positive(text: str) -> int:
    """A number of things, at least 1."""
    if not count(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)
