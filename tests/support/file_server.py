"""A file server on the loopback interface that misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Serves `files`; a request for a name first uses up that name's next fault.

    Attributes:
        files: Name to bytes.
        faults: Name to what goes wrong, request by request: ``drop`` (half the bytes, then the
            connection ends), ``truncate`` (likewise, without having stated a length), ``wrong``
            (other bytes), ``stall`` (nothing for as long as `release` is not set), ``throttle``
            (a few bytes at a time), or an HTTP status such as ``500``.
        stated_hash: Whether ETags are sha256 sums, as large-file stores have it.
        requests: (name, Range header) of every request, in order.
    """

    files: dict[str, bytes]
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    stated_hash: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def ranges(self, name: str) -> list[str | None]:
        """Range headers of the requests for one file."""
        return [wanted for requested, wanted in self.requests if requested == name]


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Run a `FileServer` for the length of a block."""
    state = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, state)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/data"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, state: FileServer) -> None:
    name, wanted = request.path.removeprefix("/data/"), request.headers.get("Range")
    state.requests.append((name, wanted))
    fault = state.faults[name].pop(0) if state.faults[name] else ""
    if name not in state.files or fault.isdigit():
        request.send_response(int(fault or 404))
        if fault == "429":
            request.send_header("Retry-After", "0")
        request.end_headers()
        return
    if fault == "stall":
        state.release.wait()
        return
    data = state.files[name]
    digest = hashlib.sha256(data).hexdigest()
    tag = f'"{digest if state.stated_hash else digest[:8]}"'
    start = 0
    if wanted and request.headers.get("If-Range") == tag:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            request.send_response(416)
            request.end_headers()
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        request.send_response(200)
    body = data[start:]
    if fault == "wrong":
        body = bytes(byte ^ 1 for byte in body)
    request.send_header("ETag", tag)
    if fault != "truncate":
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if fault in ("drop", "truncate"):
        body = body[: len(body) // 2]
    step = 7 if fault == "throttle" else len(body) or 1
    for place in range(0, len(body), step):
        request.wfile.write(body[place : place + step])
        request.wfile.flush()
