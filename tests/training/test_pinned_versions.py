"""Versions of remote shards: the first one that is read counts, for all processes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from voxblink2_lib.training import pinned_versions
from voxblink2_lib.training.pinned_versions import ChangedError, PinnedVersions


def test_the_first_version_counts_for_all(tmp_path: Path) -> None:
    first = PinnedVersions.opened(tmp_path, "catalogue")
    other = pickle.loads(pickle.dumps(first))
    assert other.of("a.arrow") is None
    first.pin("a.arrow", '"1"')
    first.pin("a.arrow", '"1"')
    other.pin("b.arrow", "")  # of a server that gives none
    for versions in (first, other, PinnedVersions.opened(tmp_path, "catalogue")):
        assert (versions.of("a.arrow"), versions.of("b.arrow")) == ('"1"', "")
    assert PinnedVersions.opened(tmp_path, "another").of("a.arrow") is None


def test_a_changed_shard_is_read_by_nobody_until_the_store_is_opened_again(tmp_path: Path) -> None:
    first = PinnedVersions.opened(tmp_path, "catalogue")
    other = PinnedVersions.opened(tmp_path, "catalogue")
    first.pin("a.arrow", "1")
    first.pin("b.arrow", "1")
    with pytest.raises(ChangedError):
        other.pin("a.arrow", "2")
    worker = pickle.loads(pickle.dumps(first))
    for versions in (other, worker):
        with pytest.raises(ChangedError):
            versions.of("a.arrow")
    anew = PinnedVersions.opened(tmp_path, "catalogue")
    assert (anew.of("a.arrow"), anew.of("b.arrow")) == (None, "1")
    anew.pin("a.arrow", "2")
    assert PinnedVersions.opened(tmp_path, "catalogue").of("a.arrow") == "2"
    with pytest.raises(ChangedError):  # a worker of the former one that starts now
        pickle.loads(pickle.dumps(first)).of("a.arrow")


@pytest.mark.parametrize("part", [b'["b.arrow", "9', b"[1, 2]", b"\xff\xfe", b'["b.arrow"'])
def test_a_line_that_a_killed_process_left_does_not_count(part: bytes, tmp_path: Path) -> None:
    first = PinnedVersions.opened(tmp_path, "catalogue")
    first.pin("a.arrow", "1")
    with open(next((tmp_path / "versions").iterdir()), "ab") as file:
        file.write(part)
    assert first.of("b.arrow") is None
    first.pin("b.arrow", "2")
    assert PinnedVersions.opened(tmp_path, "catalogue").of("b.arrow") == "2"


def test_where_nothing_can_be_written_a_process_has_its_own(tmp_path: Path) -> None:
    tmp_path.joinpath("versions").write_bytes(b"")  # no folder
    versions = PinnedVersions.opened(tmp_path, "catalogue")
    versions.pin("a.arrow", "1")
    assert versions.of("a.arrow") == "1"
    with pytest.raises(ChangedError):
        versions.pin("a.arrow", "2")


def test_files_of_former_catalogues_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_versions, "_FORMER_KEPT", 2)
    for number in range(5):
        versions = PinnedVersions.opened(tmp_path, f"catalogue{number}")
        versions.pin("a.arrow", "1")
        os.utime(next((tmp_path / "versions").glob(f"catalogue{number}.*")), (number, number))
    versions.mark_changed("a.arrow")
    anew = PinnedVersions.opened(tmp_path, "catalogue4")
    anew.pin("a.arrow", "2")
    names = sorted(path.name for path in (tmp_path / "versions").iterdir())
    assert names[-2:] == ["catalogue4.0", "catalogue4.1"]
    assert len(names) == 3
