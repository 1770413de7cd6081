"""Files as a command prints them, whole."""

import os
import select
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from p2p.data import remote
from p2p.data.remote import PassingError, Remote, after
from p2p.data.stores import PIECE, StoreError

READ_TRIES = 2
"""Of a small file: whether it is missing or the command failed, nobody can tell."""


class Pipe(Remote):
    """`pipe:COMMAND`, run by the shell with the file's name, quoted, for `{}`; through webdataset's own `gopen`.

    A missing file is a command that fails, or prints nothing.
    """

    seekable = False

    def __init__(self, url: str, report: Callable[[str], None]) -> None:
        super().__init__(url, report)
        if "{}" not in url:
            raise ValueError(f"{url}: lacks {{}}, which stands for the file's name; write as in pipe:cat FOLDER/{{}}")

    def where(self, name: str) -> str:
        """As `Remote.where`: the command that is run."""
        return self.url.replace("{}", shlex.quote(name))

    def read(self, name: str) -> bytes:
        """As `Store.read`."""

        def once() -> bytes:
            if data := b"".join(self._stream(name, 0)):
                return data
            raise PassingError("prints nothing")

        retries: list[str] = []
        try:
            data = self._tried(name, once, READ_TRIES, retries.append)
        except StoreError as error:
            raise FileNotFoundError(str(error)) from error
        for line in retries:  # of a file that is there; that it is not is no fault
            self._report(line)
        return data

    def part(self, name: str, offset: int, size: int) -> bytes:
        """Always raises StoreError: there are no parts."""
        raise StoreError(f"{self.where(name)}: a command is read as a whole")

    def size(self, name: str) -> int | None:
        """As `Store.size`: always None."""
        return None

    def put(self, name: str, path: Path) -> None:
        """Always raises ValueError."""
        raise ValueError(f"{self.url}: a command cannot be written to; write to a folder or an object store")

    def _stream(self, name: str, start: int) -> Iterator[bytes]:
        return after(self._printed(name), start)

    def _printed(self, name: str) -> Iterator[bytes]:
        from webdataset.gopen import gopen  # late: it imports torch

        pipe = gopen(self.where(name))
        process: subprocess.Popen[bytes] = pipe.proc
        came = 0
        try:
            while piece := _piece(pipe.stream.fileno(), came):
                came += len(piece)
                yield piece
            if status := process.wait(remote.READ_TIMEOUT_S):  # gopen itself may look before the process has ended
                raise PassingError(f"exit status {status} after {came} bytes")
        except subprocess.TimeoutExpired as error:
            raise PassingError(f"does not end after {came} bytes") from error
        finally:
            process.kill()
            pipe.stream.close()
            process.wait()


def _piece(file: int, came: int) -> bytes:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    if not poll.poll(1000 * remote.READ_TIMEOUT_S):
        raise PassingError(f"silent for {remote.READ_TIMEOUT_S:g} s after {came} bytes")
    return os.read(file, PIECE)
