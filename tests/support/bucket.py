"""A real S3 protocol server on loopback, and what a user of it sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.server import ThreadedMotoServer


@contextmanager
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a server without buckets, and yield its file system of fsspec."""
    # Both http.server and werkzeug answer a request that expects 100 Continue, and the second
    # answer ends the client's time limit of reading if it comes alone.
    monkeypatch.setattr(MotoRequestHandler, "handle_expect_100", lambda _: True)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    system = fsspec.filesystem("s3")
    if system.exists("bucket"):  # the servers of a process share what is in them
        system.rm("bucket", recursive=True)
    try:
        yield system
    finally:
        kind.clear_instance_cache()
        server.stop()
