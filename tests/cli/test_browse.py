"""The command 'browse' refuses what it cannot show, and needs Gradio only to show it."""

from __future__ import annotations

import builtins
import socket
from pathlib import Path
from typing import Any

import pytest
from support import cli_process

from voxblink2_lib.browse import page
from voxblink2_lib.browse.server import free_port
from voxblink2_lib.errors import DependencyError, UsageError


def refused(*words: object) -> str:
    return cli_process.run_inline("browse", *words, code=2).stderr


def test_a_store_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOXBLINK2_RELEASE", raising=False)
    assert "voxblink2 browse voxblink2-demo/store" in refused()
    assert "Name a folder" in refused("s3://bucket/store")
    assert "'70000' is no port" in refused("store", "--port", "70000")


def test_files_are_checked_first(tmp_path: Path) -> None:
    assert "Name another one with --embeddings" in refused(tmp_path, "--embeddings", "none")
    assert "is in the store" in refused(tmp_path, "--exclude", tmp_path / "exclude.txt")


def test_gradio_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without_gradio(name: str, *more: Any) -> Any:
        if name == "gradio":
            raise ImportError("No module named 'gradio'")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_gradio)
    with pytest.raises(DependencyError, match=r"pip install 'voxblink2\[browse\]'"):
        page.load_gradio()
    shown = refused(tmp_path / "store", "--exclude", tmp_path / "exclude.txt")
    assert "pip install 'voxblink2[browse]'" in shown


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            free_port(port)
    assert free_port(None) != free_port(None)
