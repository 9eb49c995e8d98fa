"""An S3 server in a process of its own, to which this process's environment points."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_server(program: str, *arguments: str) -> Iterator[None]:
    """Run a program in Python that serves S3 on this machine, and prints its port first.

    Args:
        program: its text.
        arguments: of it.
    """
    words = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        os.environ.update(
            AWS_ACCESS_KEY_ID="somebody",
            AWS_SECRET_ACCESS_KEY="secret",  # noqa: S106  # of a server for this run alone
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{int(server.stdout.readline())}",
        )
        try:
            yield
        finally:
            server.kill()
