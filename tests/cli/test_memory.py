"""Lists of missing videos need no more memory for many videos than for few."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from support.ledger_builder import LedgerBuilder

from voxblink2_lib.cli import main
from voxblink2_lib.report.missing_csv import write_missing
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.status import missing_videos


def as_lines(store: Path) -> None:
    assert main(["status", "--missing", "--store", str(store)]) == 0


def as_json(store: Path) -> None:
    assert main(["status", "--missing", "--json", "--store", str(store)]) == 0


def as_csv(store: Path) -> None:
    videos = (("audio", video) for video in missing_videos(Store(store), "audio"))
    write_missing(videos, store / "missing.csv")


@pytest.mark.parametrize("write", [as_lines, as_json, as_csv])
def test_memory_does_not_grow_with_the_number_of_videos(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.store.ledger_statistics._ROWS_PER_PAGE", 50)
    stores = [tmp_path / "few", tmp_path / "many"]
    for store, videos in zip(stores, (500, 2_000), strict=True):
        store.mkdir()
        with LedgerBuilder(store / "ledger.sqlite") as builder:
            for n in range(videos):
                builder.video("gone", speaker=f"id{n // 7:06}", reason=f"removed {n % 20}")
    peaks = []
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        write(stores[0])  # what is loaded once
        for store in stores:
            tracemalloc.start()
            write(store)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
