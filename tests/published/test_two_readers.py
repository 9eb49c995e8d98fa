"""Two processes stream a store in a bucket while another one publishes to it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from datasets import Audio, load_dataset
from support.bucket import bucket_server
from support.cli_process import environment, run_inline
from support.plain_corpus import wav

import voxblink2

assert voxblink2  # registers the builder
URL = "s3://bucket/store"
# Reads the first row, waits for a word, and reads the others; then all that is there by then.
READER = f"""
import hashlib, sys
from datasets import Audio, load_dataset
import voxblink2

def rows():
    stream = load_dataset("voxblink2", "audio", store={URL!r}, split="train", streaming=True)
    for row in stream.cast_column("audio", Audio(decode=False)):
        yield hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()

for _ in range(2):
    stream = rows()
    read = [next(stream)]
    print("first", flush=True)
    sys.stdin.readline()
    print(*read, *stream, flush=True)
"""


def line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline().strip()


def go_on(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    return line(process.stdout).split()


def digests(store: Path) -> list[str]:
    rows: Any = load_dataset("voxblink2", "audio", store=str(store), split="train")
    return [
        hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()
        for row in rows.cast_column("audio", Audio(decode=False))
    ]


def test_two_processes_stream_while_another_publishes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    own = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    late = sorted((own / "media" / "id000002").glob("*.wav"))
    for path in late:
        path.unlink()
    scratch = tmp_path / "scratch"
    words = ("--data-dir", own, "--source", own / "media", "--store", URL, "--scratch", scratch)
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        run_inline("materialize", *words, "--workers", 1)
        before = digests(scratch)
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment({"VOXBLINK2_HOME": str(tmp_path / f"home{number}")}),
            )
            for number in range(2)
        ]
        try:
            for number, path in enumerate(late):
                assert [line(reader.stdout) for reader in readers] == ["first", "first"]
                # A video comes back: a new shard, and then a fuller one in its place.
                path.write_bytes(wav())
                run_inline("materialize", *words, "--workers", 1)
                expected = digests(scratch)
                assert len(expected) == 5 + number
                assert [go_on(reader) for reader in readers] == [before, before]
                before = expected
            assert [reader.wait(60) for reader in readers] == [0, 0]
        finally:
            for reader in readers:
                reader.kill()
                reader.communicate()
