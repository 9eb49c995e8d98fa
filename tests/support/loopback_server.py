"""The base of all HTTP servers of the tests: on a free port of 127.0.0.1, in threads."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class LoopbackServer(ThreadingHTTPServer):
    """Serves inside a ``with`` block.

    Args:
        handler: answers a request.

    Attributes:
        ended: set at the end of the block, for handlers that wait.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which can take seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients of tests leave early, and are killed."""

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """URL of its root, without a slash at the end."""
        return f"http://{self.host}"


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers requests without a log: a subclass says how, in ``answer``."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Answer the request, whatever its method."""
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def reply(
        self, status: int, body: bytes, headers: Mapping[str, str], *, length: int | None = None
    ) -> None:
        """Send a response.

        Args:
            status: HTTP status.
            body: left out for a HEAD request.
            headers: besides Content-Length.
            length: Content-Length, if it is not the body's; negative for none.
        """
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        length = len(body) if length is None else length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
