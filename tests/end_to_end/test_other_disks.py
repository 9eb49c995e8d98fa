"""Stores on disks that lack what a Linux disk has, and on those that fail."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from support import cli_process
from support.plain_corpus import make_corpus, video_ids
from support.refusing_disk import KINDS, refusing


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), video_ids(2))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards that a store on a usual disk has."""
    store = tmp_path_factory.mktemp("whole")
    cli_process.run_inline(*words(corpus, store))
    return cli_process.shards(store)


def words(corpus: Path, store: Path) -> list[object]:
    options = {"--data-dir": corpus, "--source": corpus / "media", "--store": store, "--workers": 1}
    return ["materialize", *(word for option in options.items() for word in option)]


@pytest.mark.parametrize(
    "kind",
    [
        *("FAT", "NFS", "FUSE"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("CIFS", "WSL")),
    ],
)
def test_a_disk_that_lacks_operations(
    kind: str, corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    disk = refusing(tmp_path, KINDS[kind])
    done = cli_process.run(*words(corpus, store), extra=disk)
    assert "Traceback" not in done.stderr
    assert cli_process.shards(store) == whole
    assert not list(store.glob("**/*.tmp"))
    assert not (store / ".lease").exists()
    status = cli_process.run("status", "--store", store, "--config", "audio", "--json", extra=disk)
    assert json.loads(status.stdout)["videos"]["done"] == 2
    # It can be moved to a usual disk.
    cli_process.run_inline(*words(corpus, store))
    assert cli_process.shards(store) == whole


def test_what_a_killed_run_left_on_a_disk_without_locks(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    cli_process.run_inline("index", "--data-dir", corpus, "--store", store)
    # SQLite's lock and the lease of a process that is no more, and a ledger in WAL mode.
    (store / "ledger.sqlite.lock").mkdir()
    with subprocess.Popen(["true"]) as ended:
        pass
    system = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
    system += os.readlink("/proc/self/ns/pid")
    (store / ".lease").write_text(json.dumps({"token": "x", "pid": ended.pid, "system": system}))
    cli_process.run(*words(corpus, store), extra=refusing(tmp_path, KINDS["FUSE"]))
    assert cli_process.shards(store) == whole
    assert not (store / "ledger.sqlite.lock").exists()


class Failure(NamedTuple):
    """What fails where, and what the user is told."""

    place: str
    operation: str
    number: int
    message: str
    code: int


@pytest.mark.parametrize(
    "failure",
    [
        # In a worker, which writes parts and shards; and what SQLite does.
        Failure("parts", "write", errno.EIO, "cannot be read or written .*check the disk", 3),
        Failure("shards", "write", errno.EFBIG, "would be larger .*ulimit -f unlimited", 2),
        Failure("shards", "fsync", errno.ESTALE, "is not reachable any more .*mount it again", 3),
        Failure(
            "ledger.sqlite-wal",
            "write",
            errno.EIO,
            r"ledger\.sqlite cannot be used: disk I/O error",
            3,
        ),
    ],
)
def test_a_disk_that_fails(
    failure: Failure, corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    cli_process.run_inline("index", "--data-dir", corpus, "--store", store)
    disk = refusing(store / failure.place, {failure.operation: failure.number})
    failed = cli_process.run(*words(corpus, store), "--json", extra=disk, code=failure.code)
    assert "Traceback" not in failed.stderr
    record = json.loads(failed.stdout)
    assert record["exit_code"] == failure.code
    assert re.search(failure.message, record["message"]), record["message"]
    assert f" {store}/" in f" {record['message']}"
    assert "Everything finished is kept" in record["message"]
    cli_process.run_inline(*words(corpus, store))
    assert cli_process.shards(store) == whole
