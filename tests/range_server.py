"""An HTTP server on this machine that answers ranges after a while, as a distant one does, and counts what is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class RangeServer:
    """A running server of the files below a folder."""

    root: Path
    latency: float = 0.0
    """Seconds before each answer."""
    hold_until: int = 0
    """Nothing is answered before so many requests have come: they must be made at the same time."""
    knows_ranges: bool = True
    """Whether it answers a range, and not always the whole file."""
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    sent: int = 0
    """Bytes of files sent."""
    _came: threading.Condition = field(default_factory=threading.Condition)

    def reset(self) -> None:
        """Forget what was counted."""
        self.requests.clear()
        self.sent = self.hold_until = 0

    def wait(self, method: str, path: str) -> None:
        """Count a request, and wait until it is to be answered."""
        with self._came:
            self.requests.append((method, path))
            self._came.notify_all()
            if not self._came.wait_for(lambda: len(self.requests) >= self.hold_until, timeout=60):
                raise TimeoutError(f"{len(self.requests)} requests came, not {self.hold_until}")
        time.sleep(self.latency)


@contextmanager
def range_server(root: Path) -> Iterator[RangeServer]:
    """Serve the files of a folder; what has "secret" in its path to nobody."""
    store = RangeServer(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            name = self.path.partition("?")[0]
            store.wait(self.command, name)
            path = root / name.lstrip("/")
            if "secret" in self.path:
                return self.reply(403, b"")
            if not path.is_file():
                return self.reply(404, b"")
            asked, size = self.headers.get("Range"), path.stat().st_size
            if asked is None or not store.knows_ranges:
                return self.reply(200, path.read_bytes())
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
            if first >= size:
                return self.reply(416, b"")
            with path.open("rb") as file:
                file.seek(first)
                part = file.read(last + 1 - first)
            return self.reply(206, part, f"bytes {first}-{first + len(part) - 1}/{size}")

        do_GET = do_HEAD = do_OPTIONS = answer

        def reply(self, status: int, content: bytes, content_range: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            if content_range is not None:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            if self.command == "GET":
                store.sent += len(content)
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
