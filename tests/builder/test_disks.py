"""``load_dataset`` with a cache on a disk that takes no links."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from support import cli_process

import voxblink2  # noqa: F401  # registers the builder

pytestmark = pytest.mark.usefixtures("inline_workers")


@pytest.fixture
def options(undisturbed: Path, tmp_path: Path) -> dict[str, Any]:
    return {"data_dir": "demo", "store": str(undisturbed), "cache_dir": str(tmp_path / "cache")}


@pytest.fixture
def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)


@pytest.mark.usefixtures("_no_links")
def test_shards_are_read_where_they_lie(
    options: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # a new cache, and one that is there
        rows = load_dataset("voxblink2", "audio", split="train", **options)
        assert not list((tmp_path / "cache").rglob("*.arrow"))
        files = folders_of_shards(rows)
        assert files == {undisturbed / "shards" / "audio"}
    part = load_dataset("voxblink2", "audio", split="train[10:12]+train[:1]", **options)
    stored = [row["utterance_id"] for row in cli_process.rows(undisturbed)]
    assert rows["utterance_id"][:] == stored
    assert part[0]["audio"]["array"].tolist() == rows[10]["audio"]["array"].tolist()
    assert len(part) == 3
    again = pickle.loads(pickle.dumps(rows))
    assert again[7]["utterance_id"] == rows[7]["utterance_id"]


def folders_of_shards(rows: Any) -> set[Path]:
    """Return the folders of the files that a dataset is read from, without what is joined to them.

    That is in the cache, whether or not its disk takes links.
    """
    files = [Path(file["filename"]) for file in rows.cache_files]
    return {path.parent for path in files if path.suffix == ".arrow"}


@pytest.mark.usefixtures("_no_links")
@pytest.mark.parametrize("selected", [{"max_speakers": 1}, {"exclude": ["-demoSailor"]}])
def test_a_smaller_selection_is_read_where_it_lies(
    selected: dict[str, Any], options: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    whole = load_dataset("voxblink2", "audio", split="train", **options)
    rows = load_dataset("voxblink2", "audio", split="train", **options, **selected)
    assert 0 < len(rows) < len(whole)
    assert set(rows["utterance_id"]) <= set(whole["utterance_id"])
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    files = folders_of_shards(rows)
    assert undisturbed / "shards" / "audio" in files
