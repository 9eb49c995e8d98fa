"""Runs of the command line, in processes of their own and in this one, and the stores they make."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from support import hints
from support.inline_pool import InlinePool
from voxblink2_lib.cli import main

DEADLINE_SECONDS = 120.0


class Process(subprocess.Popen[str]):
    """A program of which nothing is left when a test fails around it.

    Without that, the end of a ``with`` would wait for a program that hangs, and never come.
    """

    def __exit__(self, kind: Any, *more: Any) -> None:
        if kind is not None:
            self.kill_all()
        super().__exit__(kind, *more)

    def kill_all(self) -> None:
        """Kill it and all that it started, at one blow."""
        whole: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            whole = [first, *first.children(recursive=True)]
        for process in whole:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tests' environment without anything that names a release or a store."""
    ours = {"VOXBLINK2_RELEASE", "VOXBLINK2_STORE"}
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    return {**kept, "HF_HUB_OFFLINE": "1", **(extra or {})}


def start(*words: object, extra: Mapping[str, str] | None = None) -> Process:
    """Start ``voxblink2`` with these words."""
    return Process(
        [sys.executable, "-m", "voxblink2_lib.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(extra),
    )


def run(
    *words: object, extra: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``voxblink2`` to its end and check its exit code."""
    with start(*words, extra=extra) as process:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    hints.note(err)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_json(*words: object, code: int = 0) -> dict[str, Any]:
    """Run ``voxblink2 ... --json`` and read what it prints."""
    return dict(json.loads(run(*words, "--json", code=code).stdout))


def run_inline(
    *words: object, code: int = 0, pool: type[InlinePool] = InlinePool
) -> subprocess.CompletedProcess[str]:
    """Like :func:`run`, in this process and with workers in it: nothing has to be started."""
    result = run_any(*words, pool=pool)
    assert result.returncode == code, (
        f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    )
    return result


def run_any(
    *words: object, pool: type[InlinePool] = InlinePool
) -> subprocess.CompletedProcess[str]:
    """Like :func:`run_inline`, with whatever exit code."""
    arguments = list(map(str, words))
    with _streams() as (out, err), pytest.MonkeyPatch.context() as patched:
        for module in ("materialize.scheduler", "cut_audio.blocks"):
            patched.setattr(f"voxblink2_lib.{module}.WorkerPool", pool)
        try:
            exit_code: Any = main(arguments)
        except SystemExit as ended:  # of --help
            exit_code = ended.code
    return subprocess.CompletedProcess(arguments, exit_code, out.getvalue(), err.getvalue())


def run_inline_json(*words: object, code: int = 0) -> dict[str, Any]:
    """Run ``voxblink2 ... --json`` in this process and read what it prints."""
    return dict(json.loads(run_inline(*words, "--json", code=code).stdout))


@contextlib.contextmanager
def _streams() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Catch what is printed; undo what the command line does to its own process."""
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    handlers, on_sigterm = root.handlers[:], signal.getsignal(signal.SIGTERM)
    root.handlers[:] = []  # so that it makes its own, for the stream of this run
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield out, err
    finally:
        root.handlers[:] = handlers
        signal.signal(signal.SIGTERM, on_sigterm)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Wait until a condition holds; say whether it did before the process ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)
    return True


def eventually(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds; say whether it did before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop(process: subprocess.Popen[str], how: signal.Signals) -> tuple[str, str]:
    """Send a signal and wait for the end."""
    process.send_signal(how)
    return process.communicate(timeout=DEADLINE_SECONDS)


def shards(store: Path, config: str = "audio") -> dict[str, bytes]:
    """Every file of a store's shard folder, but for outcomes, which say when things happened."""
    folder = store / "shards" / config
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".parquet")
    return {path.name: path.read_bytes() for path in paths}


def rows(store: Path, config: str = "audio") -> list[dict[str, Any]]:
    """All rows of all sealed shards, in order."""
    rows_of_all: list[dict[str, Any]] = []
    for path in sorted((store / "shards" / config).glob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            rows_of_all += pa.ipc.open_stream(file).read_all().to_pylist()
    return rows_of_all


def listed(store: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern, while a run may be removing their folders.

    ``Path.glob`` ends with an error then.
    """
    return [store / name for name in glob.glob(pattern, root_dir=store)]


def finished_videos(store: Path) -> set[str]:
    """Videos whose clips are safe: in a part file, or done in the ledger."""
    finished = {path.stem.split("_", 1)[1] for path in listed(store, "parts/audio/*/*.arrow")}
    if (store / "ledger.sqlite").exists():
        database = sqlite3.connect(f"file:{store / 'ledger.sqlite'}?mode=ro", uri=True)
        try:
            done = database.execute("select video_id from videos where status = 'done'")
            finished |= {row[0] for row in done}
        except sqlite3.OperationalError:  # killed before the tables were made
            pass
        finally:
            database.close()
    return finished
