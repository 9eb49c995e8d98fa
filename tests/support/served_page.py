"""The page of a store, served as its user does: by the command, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from support.chromium import SECONDS
from voxblink2_lib.browse.browser import StoreBrowser
from voxblink2_lib.browse.query import Query
from voxblink2_lib.store.layout import Store


@contextlib.contextmanager
def served_page(store: Path, folder: Path, *more: object) -> Iterator[dict[str, Any]]:
    """Serve the page of a store; in the end, look whether its log has a traceback.

    Args:
        store: not to be changed.
        folder: for the log (``log.txt``) and the marks (``exclude.txt``).
        more: words of the command line.

    Yields:
        What the command prints, with ``folder`` and ``store_path``.
    """
    command = [sys.executable, "-m", "voxblink2_lib.cli", "browse", str(store), "--json"]
    command += ["--exclude", str(folder / "exclude.txt"), *map(str, more)]
    with (
        open(folder / "log.txt", "w+", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "log.txt").read_text("utf-8")
            yield {**json.loads(line), "folder": folder, "store_path": store}
        finally:
            process.terminate()
            assert process.wait(timeout=SECONDS) == 0
        text = (folder / "log.txt").read_text("utf-8")
        assert "Traceback" not in text, text


def write_vectors(path: Path, store: Path, *speakers: str) -> Path:
    """Write a file of embeddings of the speakers' utterances in a store, and return it."""
    browser = StoreBrowser.open(Store(store), exclude=path.parent / "unused.txt")
    pages = [browser.search.page(Query.of(speaker)) for speaker in speakers]
    names = [row.key.name for page in pages for row in page.rows]
    vectors = np.random.default_rng(0).normal(size=(len(names), 8)) + 1
    pq.write_table(pa.table({"name": names, "embedding": list(vectors)}), path)
    return path
