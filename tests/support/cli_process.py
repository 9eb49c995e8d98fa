"""Runs of the real command line in processes of their own, and looks into the stores they make."""

from __future__ import annotations

import contextlib
import glob
import json
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

from voxblink2_lib.workers.pool import Call, WorkerPool

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
        for one in whole:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


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
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_json(*words: object, code: int = 0) -> dict[str, Any]:
    """Run ``voxblink2 ... --json`` and read what it prints."""
    return dict(json.loads(run(*words, "--json", code=code).stdout))


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Wait until a condition holds; say whether it did before the process ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)
    return True


def stop(process: subprocess.Popen[str], how: signal.Signals) -> tuple[str, str]:
    """Send a signal and wait for the end."""
    process.send_signal(how)
    return process.communicate(timeout=DEADLINE_SECONDS)


def shards(store: Path, config: str = "audio") -> dict[str, bytes]:
    """Every file of a store's shard folder."""
    return {path.name: path.read_bytes() for path in sorted((store / "shards" / config).iterdir())}


def rows(store: Path, config: str = "audio") -> list[dict[str, Any]]:
    """All rows of all sealed shards, in order."""
    found: list[dict[str, Any]] = []
    for path in sorted((store / "shards" / config).glob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            found += pa.ipc.open_stream(file).read_all().to_pylist()
    return found


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


class InlinePool(WorkerPool):
    """Runs calls in this process, which has all libraries at hand."""

    def __init__(
        self, size: int, *, threads: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        assert size >= 1
        assert threads >= 1
        assert environment is None or environment
        super().__init__(1)
        self._results: list[tuple[Call, Any]] = []

    @property
    def busy(self) -> int:
        return len(self._results)

    def submit(self, call: Call) -> None:
        self._results.append((call, call[0](call[1])))

    def results(self) -> Iterator[tuple[Call, Any]]:
        results, self._results = self._results, []
        yield from results
