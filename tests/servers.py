"""Real servers on loopback: the web with ranges and without, one that fails as it is told, and S3."""

import socket
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from RangeHTTPServer import RangeRequestHandler


class Web:
    """A web server over a folder. What is below `/moved/` is answered with a redirect to the same path without it, and
    what is below `/circle/` with one to itself.

    Attributes:
        faults: by path, what goes wrong with the next requests, the first first; then all is well. A number: that
            status. "drop": no answer. "break": half a body, then a reset. "short": half a body, then an end. "stall":
            half a body, then nothing. "wrong": a byte is another. "cut": an answer that is 10 bytes short, and says
            so. "long": one that says it has 10 bytes more. "shift": a part one byte further than was asked for.
        requests, sent: number of requests and bytes of bodies, by path.
        ranges: the `Range` headers, by path.
    """

    def __init__(self, url: str, server: ThreadingHTTPServer) -> None:
        self.url, self.server = url, server
        self.faults: dict[str, deque[int | str]] = defaultdict(deque)
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.ranges: dict[str, list[str | None]] = defaultdict(list)
        self.proxied: list[str] = []
        self.ended = threading.Event()
        self.lock = threading.Lock()

    def fail(self, path: str, *faults: int | str) -> None:
        """What goes wrong with the next requests for a path."""
        self.faults[path].extend(faults)


class _Faulty(SimpleHTTPRequestHandler):
    """A handler of the standard library, or of rangehttpserver, with faults between it and the wire."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fault: int | str | None = None

    def __init__(self, *args: Any, web: Web, **kwargs: Any) -> None:
        self.web = web
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if "://" in self.path:  # we are the proxy
            self.web.proxied.append(self.path)
            self.path = "/" + self.path.split("/", 3)[3]
        with self.web.lock:
            self.web.requests[self.path] += 1
            self.web.ranges[self.path].append(self.headers["Range"])
            self.fault = self.web.faults[self.path].popleft() if self.web.faults[self.path] else None
        if self.path.startswith(("/moved/", "/circle/")):
            self.answer_moved()
        elif isinstance(self.fault, int):
            self.send_error(self.fault)
        elif self.fault == "drop":
            self.close_connection = True
        else:
            super().do_GET()

    def answer_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path.removeprefix("/moved"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and self.fault in ("cut", "long"):
            value = str(int(value) + (10 if self.fault == "long" else -10))
        if keyword == "Content-Range" and self.fault == "shift":
            first, _, rest = value.removeprefix("bytes ").partition("-")
            value = f"bytes {int(first) + 1}-{rest}"
        super().send_header(keyword, value)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        first, last = getattr(self, "range", None) or (0, None)  # the package's own copy takes 0-0 for everything
        source.seek(first)
        data = source.read(-1 if last is None else last + 1 - first)
        if self.fault in ("break", "short", "stall"):
            data = data[: len(data) // 2]
        if self.fault == "cut":
            data = data[:-10]
        if self.fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        with self.web.lock:
            self.web.sent[self.path] += len(data)
        outputfile.write(data)
        self.end_body()

    def end_body(self) -> None:
        if self.fault == "break":  # a reset instead of an end; it may overtake what was sent
            self.wfile.flush()
            time.sleep(0.02)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.fault == "stall":
            self.wfile.flush()
            self.web.ended.wait()
        if self.fault in ("break", "short", "stall", "long"):
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


class _Ranged(_Faulty, RangeRequestHandler):
    pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that are killed, and our own resets


@contextmanager
def web_server(folder: Path, ranges: bool = True) -> Iterator[Web]:
    """A server over the files of a folder."""
    web = Web("", None)  # type: ignore[arg-type] # it has the port, which the server knows
    handler = partial(_Ranged if ranges else _Faulty, directory=str(folder), web=web)
    web.server = _Server(("127.0.0.1", 0), handler)
    web.url = f"http://127.0.0.1:{web.server.server_port}"
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        web.server.shutdown()
        web.server.server_close()
        thread.join()


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, str]]:
    """moto's S3 with an empty bucket; what fsspec has to know of it, for `fsspec.config.conf["s3"]`."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    known = {"endpoint_url": f"http://{host}:{port}", "key": "testing", "secret": "testing"}
    try:
        s3fs.S3FileSystem(**known).mkdir(bucket)
        yield known
    finally:
        server.stop()
