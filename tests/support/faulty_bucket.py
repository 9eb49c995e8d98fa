"""An S3 server that answers with errors, late, or not at all, in front of a real one of moto."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from support.bucket import bucket_server

_ERROR = b"<Error><Code>InternalError</Code><Message>An error occurred.</Message></Error>"


class Faults:
    """What happens to requests. Each is named as "PUT /bucket/key".

    Attributes:
        seen: all requests.
        refused: whether a request is answered with an error, and nothing done.
        lost: whether one is done, and answered with an error.
        held: whether one is done only when :attr:`release` is set, long after its client left.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refused: Callable[[str], bool] = never
        self.lost: Callable[[str], bool] = never
        self.held: Callable[[str], bool] = never
        self.release = threading.Event()
        self.late = threading.Event()
        """Set when a held request was done."""

    def around(self, app: Any) -> Any:
        """Return an application of WSGI with these faults."""

        def faulty(environment: Any, start_response: Any) -> Iterable[bytes]:
            name = f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}"
            self.seen.append(name)
            if self.refused(name):
                return _fail(start_response)
            if self.held(name):
                body = environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"]))
                environment["wsgi.input"] = _Body(body)
                self.release.wait(30)
                answer = app(environment, start_response)
                self.late.set()
                return answer  # type: ignore[no-any-return]  # moto has no types
            if self.lost(name):
                list(app(environment, lambda *_: None))
                return _fail(start_response)
            return app(environment, start_response)  # type: ignore[no-any-return]  # likewise

        return faulty


class _Body:
    """What a request sent, read already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else size
        block, self._data = self._data[:end], self._data[end:]
        return block


def never(name: str) -> bool:
    """Return that no request is meant."""
    del name
    return False


def first(count: int, of: str) -> Callable[[str], bool]:
    """Return whether a request is one of the first whose name has a part."""
    left = [count]

    def is_first(name: str) -> bool:
        if of not in name or not left[0]:
            return False
        left[0] -= 1
        return True

    return is_first


def _fail(start_response: Any) -> list[bytes]:
    start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
    return [_ERROR]


@contextmanager
def faulty_bucket(
    monkeypatch: pytest.MonkeyPatch, *, read_timeout_seconds: float = 1.0
) -> Iterator[Faults]:
    """Run such a server with an empty bucket ``bucket``; clients try once."""
    faults = Faults()
    start = ThreadedMotoServer.start

    def started(server: Any) -> None:
        start(server)
        server._server.app = faults.around(server._server.app)

    monkeypatch.setattr(ThreadedMotoServer, "start", started)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    kind = fsspec.get_filesystem_class("s3")
    monkeypatch.setattr(kind, "retries", 1)
    with bucket_server(monkeypatch):  # to empty it may take longer than the time limit
        options = {"config_kwargs": {"read_timeout": read_timeout_seconds}}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        kind.clear_instance_cache()
        fsspec.filesystem("s3").mkdir("bucket")
        yield faults
        faults.release.set()
