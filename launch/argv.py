"""A command line that says a mistake in one line."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse without the usage before an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")
