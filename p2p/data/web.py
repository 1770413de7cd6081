"""A folder of a web server, read in parts where the server has ranges."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError

from p2p.data import remote
from p2p.data.remote import PassingError, Remote, after, one_line
from p2p.data.stores import PIECE, RefusedError, StoreError

CONNECT_TIMEOUT_S = 10.0
CONNECTIONS = 32
"""That are kept open to a server; more threads than that open some for a request only."""
REDIRECTS = 5
PASSING = frozenset([408, 425, 429])
"""Answers below 500 that another try may heal."""


class Http(Remote):
    """`http(s)://`, through urllib3, and through a proxy where the system has one."""

    def __init__(self, url: str, report: Callable[[str], None]) -> None:
        super().__init__(url, report)
        parts = urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"{url}: give https://HOST/FOLDER, without user, query or fragment")
        self._pool = _pool(parts.scheme, parts.netloc)
        self._has_ranges: bool | None = None

    @property
    def seekable(self) -> bool:
        """As `Store.seekable`. Any part or size that was asked for before has shown it; else `index.json` does.

        Raises:
            StoreError: the server does not answer.
        """
        if self._has_ranges is None:
            try:
                self.size("index.json")
            except FileNotFoundError:
                return True  # `part` will say so if not
        return bool(self._has_ranges)

    def read(self, name: str) -> bytes:
        """As `Store.read`."""

        def once() -> bytes:
            with self._get(name) as response:
                return response.read()

        return self._tried(name, once)

    def part(self, name: str, offset: int, size: int) -> bytes:
        """As `Store.part`; StoreError where the server has no ranges."""

        def once() -> bytes:
            with self._get(name, f"{offset}-{offset + size - 1}") as response:
                if response.status == 200:
                    raise StoreError(f"{self.where(name)}: the server sends whole files only, it has no ranges")
                first, last, total = _content_range(response)
                if response.status == 416 or (total is not None and total < offset + size):
                    raise ValueError(f"{self.where(name)}: ends before byte {offset + size}")
                data = response.read(size + 1)
            if (first, last, len(data)) != (offset, offset + size - 1, size):
                raise PassingError(f"{len(data)} bytes from {first} on came instead of {size} from {offset} on")
            return data

        return self._tried(name, once)

    def size(self, name: str) -> int | None:
        """As `Store.size`."""

        def once() -> int | None:
            with self._get(name, "0-0") as response:  # not HEAD, which signed addresses and some servers refuse
                if response.status == 200:
                    length = response.headers.get("Content-Length")
                    return None if length is None else int(length)
                return _content_range(response)[2]

        return self._tried(name, once)

    def put(self, name: str, path: Path) -> None:
        """Always raises ValueError."""
        raise ValueError(f"{self.url}: a web server cannot be written to; write to a folder or an object store")

    def _stream(self, name: str, start: int) -> Iterator[bytes]:
        with self._get(name, f"{start}-" if start else "") as response:
            if response.status == 416 and _content_range(response)[2] in (None, start):
                return  # all had come, whatever the answer before has said
            if response.status == 416:
                raise PassingError(f"broke at byte {start}, where it now ends")
            pieces = iter(lambda: response.read1(PIECE), b"")  # what has come: nothing is lost where it breaks
            yield from after(pieces, start if response.status == 200 else 0)

    @contextmanager
    def _get(self, name: str, part: str = "") -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer of status 200, 206 or 416, its body unread; every failure as one of ours."""
        try:
            response = self._pool.request(
                "GET",
                f"{self.url}/{quote(name)}",
                headers={"Range": f"bytes={part}"} if part else {},
                preload_content=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=remote.READ_TIMEOUT_S),
                retries=urllib3.Retry(REDIRECTS, connect=0, read=0, status=0, other=0, redirect=REDIRECTS),
            )
            try:
                self._check(name, response)
                if part:
                    self._has_ranges = response.status != 200
                yield response
            finally:
                response.close()  # a connection whose body was read has gone back before
        except HTTPError as error:
            cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            raise PassingError(one_line(cause)) from error

    def _check(self, name: str, response: urllib3.BaseHTTPResponse) -> None:
        answer = f"HTTP {response.status} {response.reason or ''}".rstrip()
        if response.status in (404, 410):
            raise FileNotFoundError(f"{self.where(name)}: {answer}")
        if response.status in PASSING or response.status >= 500:
            raise PassingError(answer)
        if response.status in (401, 403):
            raise RefusedError(f"{self.where(name)}: {answer}")
        if response.status not in (200, 206, 416):
            raise StoreError(f"{self.where(name)}: {answer}")


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    proxy = getproxies().get(scheme)
    if proxy and not proxy_bypass(host):
        return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS)
    return urllib3.PoolManager(maxsize=CONNECTIONS)


def _content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int, int | None]:
    """First and last byte of the answer, -1 where there are none, and bytes of the file, None where it is not said."""
    header = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", header.strip())
    first, last, total = found.groups() if found else (None, None, None)
    return int(first or -1), int(last or -1), int(total) if total and total != "*" else None
