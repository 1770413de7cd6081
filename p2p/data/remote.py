"""Stores of other machines, tried again while they may heal; object stores through fsspec."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from p2p.data.stores import PIECE, RefusedError, StoreError

TRIES = 10
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Waits are drawn below a bound that doubles from the first to the longest: about 75 s in all."""
READ_TIMEOUT_S = 30.0
"""Without a byte, until a connection or a command counts as dead."""
EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
"""Of our package, by scheme: what has to be installed."""

T = TypeVar("T")


class PassingError(Exception):
    """A failure that another try may heal."""


class Remote(ABC):
    """What stores of other machines share: `once` is tried until it works, fails for good, or `TRIES` are over."""

    def __init__(self, url: str, report: Callable[[str], None]) -> None:
        self.url, self._report = url.rstrip("/"), report

    def where(self, name: str) -> str:
        """What a file is called in messages."""
        return f"{self.url}/{name}"

    def chunks(self, name: str) -> Iterator[bytes]:
        """As `Store.chunks`."""
        came = 0
        stream: Iterator[bytes] | None = None

        def piece() -> bytes:
            nonlocal stream
            stream = stream or self._stream(name, came)
            try:
                return next(stream, b"")
            except PassingError:
                stream = None
                raise

        while data := self._tried(name, piece):  # each piece has all its tries: what counts is whether it goes on
            came += len(data)
            yield data

    @abstractmethod
    def _stream(self, name: str, start: int) -> Iterator[bytes]:
        """Pieces, none empty, from byte `start` to the end; raises PassingError where it breaks."""

    def _tried(
        self, name: str, once: Callable[[], T], tries: int | None = None, report: Callable[[str], None] | None = None
    ) -> T:
        tries, report = tries or TRIES, report or self._report

        def tell(state: RetryCallState) -> None:
            error = state.outcome and state.outcome.exception()
            next_one = f"try {state.attempt_number + 1} of {tries} in {state.upcoming_sleep:.1f} s"
            report(f"{self.where(name)}: {error}; {next_one}")

        trying = Retrying(
            retry=retry_if_exception_type(PassingError),
            stop=stop_after_attempt(tries),
            wait=wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return trying(once)
        except PassingError as error:
            raise StoreError(f"{self.where(name)}: {error} (after {tries} tries)") from error


def after(pieces: Iterable[bytes], start: int) -> Iterator[bytes]:
    """What follows byte `start`."""
    for piece in pieces:
        if start < len(piece):
            yield piece[start:]
        start = max(start - len(piece), 0)


def one_line(error: Exception) -> str:
    """What an exception says, in a line."""
    return " ".join(str(error).split()) or type(error).__name__


class Fsspec(Remote):
    """Whatever fsspec knows: s3://, gs://, hf://, memory://, ... Credentials and endpoints are fsspec's own matter."""

    seekable = True

    def __init__(self, url: str, report: Callable[[str], None]) -> None:
        super().__init__(url, report)
        from fsspec.core import url_to_fs

        try:
            make = {"auto_mkdir": True} if self.url.startswith("file:") else {}  # object stores have no folders
            self._fs, self._root = url_to_fs(self.url, **make)
        except ImportError as error:
            extra = EXTRAS.get(url.partition(":")[0])
            remedy = f"pip install 'p2p[{extra}]'" if extra else "install what this scheme needs"
            raise ValueError(f"{url}: {one_line(error)}; {remedy}") from error
        except ValueError as error:
            raise ValueError(f"{url}: {one_line(error)}; give a folder, or a URL that fsspec knows") from error

    def read(self, name: str) -> bytes:
        """As `Store.read`."""
        return self._call(name, lambda path: self._fs.cat_file(path))

    def part(self, name: str, offset: int, size: int) -> bytes:
        """As `Store.part`."""

        def once(path: str) -> bytes:
            try:
                data: bytes = self._fs.cat_file(path, start=offset, end=offset + size)
            except Exception:
                self._check_end(name, path, offset + size)  # of a range outside, each store makes its own error
                raise
            if len(data) != size:
                self._check_end(name, path, offset + size)
                raise PassingError(f"{len(data)} bytes came of {size}")
            return data

        return self._call(name, once)

    def _check_end(self, name: str, path: str, end: int) -> None:
        if (size := self._fs.size(path)) is not None and size < end:
            raise ValueError(f"{self.where(name)}: ends before byte {end}")

    def _stream(self, name: str, start: int) -> Iterator[bytes]:
        with self._passing(name), self._fs.open(self._path(name), "rb") as file:
            file.seek(start)
            while piece := file.read(PIECE):
                yield piece

    def size(self, name: str) -> int | None:
        """As `Store.size`."""
        return self._call(name, self._fs.size)

    def put(self, name: str, path: Path) -> None:
        """As `Store.put`."""
        self._call(name, lambda target: self._fs.put_file(str(path), target))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _call(self, name: str, function: Callable[[str], T]) -> T:
        def once() -> T:
            with self._passing(name):
                return function(self._path(name))

        return self._tried(name, once)

    @contextmanager
    def _passing(self, name: str) -> Iterator[None]:
        """Errors of every backend as ours."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{self.where(name)}: there is no such file") from error
        except (ValueError, NotImplementedError, PassingError):
            raise
        except Exception as error:  # backends have exceptions of their own, of no common kind
            if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
                raise RefusedError(f"{self.where(name)}: {one_line(error)}") from error
            raise PassingError(one_line(error)) from error
