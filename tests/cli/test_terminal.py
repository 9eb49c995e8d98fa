"""What the command line prints: foreign text is text, and the arguments' secrets are not shown."""

from __future__ import annotations

import json
import logging
import sys
from argparse import Namespace
from collections.abc import Iterator

import pytest

from voxblink2_lib.cli import terminal
from voxblink2_lib.cli.terminal import own_terminal, write_message, write_result

HOSTILE = "\x1b]0;owned\x07 over\rwritten\x00 \u202eright\u200b \udc80 http://a:b@c/?d=e"
SHOWN = r"\x1b]0;owned\x07 over\rwritten\x00 \u202eright\u200b \udc80 http://***@c/?d=***"


@pytest.fixture(autouse=True)
def _own_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    terminal._secrets.clear()


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    own_terminal(["materialize", "--yt-dlp=--password hunter22"])
    write_message(f"two\nlines {HOSTILE} hunter22")
    assert capsys.readouterr().err == f"two\nlines {SHOWN} ***\n"


def test_lines_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write_result(Namespace(json=False), {}, ["first", f"{HOSTILE}\nforged"])
    assert capsys.readouterr().out == f"first\n{SHOWN}\\nforged\n"


def test_json_keeps_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"reasons": [{"words": HOSTILE, "videos": 2}], "at": None}
    write_result(Namespace(json=True), record, [])
    text = capsys.readouterr().out
    assert text.isascii()
    words = HOSTILE.replace("a:b@", "***@").replace("d=e", "d=***")
    assert json.loads(text) == {"reasons": [{"words": words, "videos": 2}], "at": None}


def test_logs_and_tracebacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    own_terminal(["--proxy", "http://me:hunter22@host:1"])
    logging.getLogger("voxblink2_lib").warning("%s hunter22", HOSTILE)
    assert capsys.readouterr().err == f"{SHOWN} ***\n"
    error = ValueError(f"{HOSTILE} hunter22")
    sys.excepthook(ValueError, error, None)
    assert capsys.readouterr().err == f"ValueError: {SHOWN} ***\n"
