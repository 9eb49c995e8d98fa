"""What the command line prints: foreign text is text, and the arguments' secrets are not shown."""

from __future__ import annotations

import json
import logging
import os
import sys
import tracemalloc
from argparse import Namespace
from collections.abc import Iterator

import pytest

from voxblink2_lib.cli import terminal
from voxblink2_lib.cli.terminal import (
    own_terminal,
    write_defect,
    write_failure,
    write_message,
    write_result,
)
from voxblink2_lib.errors import StoreError

HOSTILE = "\x1b]0;owned\x07 over\rwritten\x00 \u202eright\u200b \udc80 http://a:b@c/?d=e"
SHOWN = r"\x1b]0;owned\x07 over\rwritten\x00 \u202eright\u200b \udc80 http://***@c/?d=***"


@pytest.fixture(autouse=True)
def _own_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    terminal._secrets.clear()
    terminal._open_brackets.clear()


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


def rows(count: int) -> Iterator[dict[str, int]]:
    yield from ({"row": number} for number in range(count))


def endings() -> Iterator[dict[str, int]]:
    yield from rows(2)
    raise StoreError("The ledger is damaged.")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_that_come_one_by_one_are_an_array(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"configs": {"audio": {"missing": rows(count)}, "other": [1, {"a": ()}]}, "last": None}
    write_result(Namespace(json=True), record, [])
    expected = {
        "configs": {"audio": {"missing": [*rows(count)]}, "other": [1, {"a": []}]},
        "last": None,
    }
    text = capsys.readouterr().out
    assert text == f"{json.dumps(expected)}\n"


def test_an_error_half_way_ends_the_object_that_was_begun(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = {"first": 1, "configs": {"audio": {"missing": endings()}}, "last": 2}
    with pytest.raises(StoreError) as caught:
        write_result(Namespace(json=True), record, [])
    assert write_failure(caught.value, as_json=True) == 2
    assert json.loads(capsys.readouterr().out) == {
        "first": 1,
        "configs": {"audio": {"missing": [*rows(2)]}},
        "error": "StoreError",
        "message": "The ledger is damaged.",
        "exit_code": 2,
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_written_is_not_kept(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        for count in (5_000, 20_000):
            record = {"missing": rows(count)}
            lines = (str(row) for row in rows(count))
            tracemalloc.start()
            write_result(Namespace(json=as_json), record, lines)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 1e6


def test_a_defect_shows_its_traceback_and_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    own_terminal(["--proxy", "http://me:hunter22@host:1"])
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("no hunter22")
    assert write_defect(caught.value, as_json=True) == 1
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert (record["error"], record["exit_code"]) == ("RuntimeError", 1)
    assert record["message"].startswith("no ***. This is a defect of voxblink2.")
    assert "Traceback" in err
    assert "hunter22" not in out + err


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
