"""Batches of files: all files, and from the place of each batch on, the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.release_builder import (
    Member,
    jittering_release,
    special_member,
    voxblink2,
    write_archive,
    write_release,
)

from voxblink2_lib.archive import gzip_stream
from voxblink2_lib.archive.reader import Place
from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.release import annotation_files
from voxblink2_lib.release.annotation_files import BatchPlace, PlacedBatch, read_batches, walk

FORMS = ["folder", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"]
FILES = jittering_release(20)


def release(folder: Path, form: str) -> Path:
    if form == "folder":
        return write_release(folder, FILES) / "meta"
    members: list[Member] = [special_member("meta", b"5"), *FILES.items()]
    # A name that needs an extended header.
    members.insert(9, (f"meta/id000009/{'x' * 150}/1.txt", voxblink2()))
    return write_archive(folder / form, members)


def files_of(batches: list[PlacedBatch]) -> list[tuple[str, bytes]]:
    return [(file.path, file.data) for placed in batches for file in placed.batch.files()]


@pytest.fixture(autouse=True)
def small_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_files, "POINT_BYTES", 8192)
    monkeypatch.setattr(gzip_stream, "_INPUT_BYTES", 512)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_bytes", [1, 3000, 10**7])
def test_from_each_place_on_it_has_the_rest(tmp_path: Path, form: str, batch_bytes: int) -> None:
    path = release(tmp_path, form)
    batches = list(read_batches(path, batch_bytes=batch_bytes))
    everything = files_of(batches)
    assert len(everything) == len(FILES) + (form != "folder")
    assert len(batches) > 1 or batch_bytes == 10**7
    assert batches[0].place.files == 0
    for placed in batches[:: max(1, len(batches) // 12)]:
        record = json.loads(json.dumps(placed.place.as_dict()))
        place = BatchPlace.from_dict(record)
        assert place == placed.place
        rest = list(read_batches(path, place=place, batch_bytes=batch_bytes))
        assert files_of(rest) == everything[place.files :]
        assert rest[0].place == place


@pytest.mark.parametrize("form", FORMS)
def test_positions_grow_to_the_end(tmp_path: Path, form: str) -> None:
    path = release(tmp_path, form)
    batches = list(read_batches(path, batch_bytes=1000))
    ends = [placed.end_position for placed in batches]
    assert [placed.place.position for placed in batches] == [0, *ends[:-1]]
    assert ends == sorted(ends)
    assert ends[-1] <= (len(FILES) if form == "folder" else path.stat().st_size)
    assert ends[-1] >= (len(FILES) if form == "folder" else path.stat().st_size // 2)


def test_a_gzip_is_read_from_the_point_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = release(tmp_path, "a.tar.gz")
    (*_, last) = read_batches(path, batch_bytes=3000)
    assert last.place.tar.point is not None
    offsets: list[int] = []

    class Watched(gzip_stream.GzipStream):
        def __init__(self, packed: Any, **options: Any) -> None:
            super().__init__(packed, **options)
            offsets.append(packed.tell())

    monkeypatch.setattr(annotation_files, "GzipStream", Watched)
    assert files_of(list(read_batches(path, place=last.place))) == files_of([last])
    assert offsets == [last.place.tar.point.packed_offset]
    assert last.place.tar.offset - last.place.tar.point.offset < 3 * 8192


@pytest.mark.parametrize("form", ["a.tar.gz", "a.tar.bz2"])
def test_an_archive_that_has_become_shorter(tmp_path: Path, form: str) -> None:
    path = release(tmp_path, form)
    (*_, last) = read_batches(path, batch_bytes=3000)
    write_archive(path, {"meta/x": b""})
    place = BatchPlace(last.place.files, tar=Place(last.place.tar.offset))
    with pytest.raises(ReleaseError, match="the archive is shorter than before"):
        list(read_batches(path, place=place))


def test_a_walk_begins_anywhere(tmp_path: Path) -> None:
    meta = release(tmp_path, "folder")
    (meta / "readme.txt").write_text("x")
    (meta / "id000002" / "x.txt").write_text("x")
    names = [name for name, _ in walk(meta)]
    for number, start in enumerate(names):
        assert [name for name, _ in walk(meta, start=start)] == names[number:]
