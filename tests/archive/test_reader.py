"""Reading members of an archive from its start and from every place in it; damage is placed."""

from __future__ import annotations

import gzip
import re
import resource
import zlib
from pathlib import Path

import pytest
from support import archive_builder
from support.archive_builder import members, tar, write_archive, write_parts

from voxblink2_lib.archive.parts import Archive, find_archives
from voxblink2_lib.archive.reader import ArchiveDamagedError, ArchiveReader, Place

COUNT = 40
POINT_BYTES = 60_000


def contents(archive: Archive, place: Place | None = None) -> list[tuple[str, bytes]]:
    with ArchiveReader(archive, place=place) as reader:
        return [(member.name, reader.read()) for member in reader]


def places(archive: Archive) -> list[Place]:
    with ArchiveReader(archive, point_bytes=POINT_BYTES) as reader:
        return [reader.place for _ in reader]


@pytest.fixture(params=["gzip", "plain"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    data = tar(members(COUNT))
    write_parts(tmp_path, data if request.param == "plain" else gzip.compress(data, 6))
    return find_archives(str(tmp_path))[0]


def test_members_come_whole_across_parts(archive: Archive) -> None:
    assert contents(archive) == members(COUNT)


def test_reading_goes_on_at_every_member(archive: Archive) -> None:
    found = places(archive)
    assert len(found) == COUNT
    for number, place in enumerate(found):
        again = Place.from_dict(place.as_dict())
        assert contents(archive, again) == members(COUNT)[number:]


def test_going_on_repeats_at_most_an_interval_and_a_block(tmp_path: Path) -> None:
    write_archive(tmp_path, COUNT)
    (archive,) = find_archives(str(tmp_path))
    found = places(archive)
    distances = [place.offset - (place.point.offset if place.point else 0) for place in found]
    # A point is at the first end of a block after the interval: some 60 kB with this content.
    assert max(distances) < POINT_BYTES + 100_000
    assert len({place.point.offset for place in found if place.point}) >= 3


def test_a_cut_part_is_named_with_the_place_and_what_came_is_kept(archive: Archive) -> None:
    cut, *others = (part for part in archive.parts[3:] if isinstance(part, Path))
    size = cut.stat().st_size
    for later in others:
        later.unlink()
    cut.write_bytes(cut.read_bytes()[: size // 2])
    shorter = Archive(archive.name, archive.parts[:4])
    seen = []
    with (  # noqa: PT012  # it is raised after some members
        ArchiveReader(shorter) as reader,
        pytest.raises(
            ArchiveDamagedError,
            match=rf"{re.escape(str(cut))}, at byte {size // 2:,}: .*Fetch this part again",
        ),
    ):
        for member in reader:
            seen.append((member.name, reader.read()))
    assert COUNT // 3 < len(seen) < COUNT * 2 // 3
    assert seen == members(COUNT)[: len(seen)]


def test_a_repaired_part_goes_on_from_there(tmp_path: Path) -> None:
    paths = write_archive(tmp_path, COUNT)
    good = paths[5].read_bytes()
    paths[5].write_bytes(b"\xff" * len(good))
    (archive,) = find_archives(str(tmp_path))
    seen: list[tuple[Place, tuple[str, bytes]]] = []
    with (  # noqa: PT012  # it is raised after some members
        ArchiveReader(archive, point_bytes=POINT_BYTES) as reader,
        pytest.raises(
            ArchiveDamagedError, match=r"gz\.0[56], at byte .* the end of the part before"
        ),
    ):
        for member in reader:
            seen.append((reader.place, (member.name, reader.read())))
    paths[5].write_bytes(good)
    # zlib may make something of damaged data before it is noticed: what came since the last point
    # is read again.
    last = seen[-1][0]
    assert last.point is not None
    trusted = [member for place, member in seen if place.offset < last.point.offset]
    place = seen[len(trusted)][0]
    assert [*trusted, *contents(archive, place)] == members(COUNT)


def test_a_swapped_part_is_told(tmp_path: Path) -> None:
    paths = write_archive(tmp_path, COUNT)
    second, third = paths[1].read_bytes(), paths[2].read_bytes()
    paths[1].write_bytes(third)
    paths[2].write_bytes(second)
    with pytest.raises(ArchiveDamagedError, match=r"gz\.0[1-6], at byte"):
        contents(find_archives(str(tmp_path))[0])


@pytest.mark.parametrize(
    "size", [100 << 20, pytest.param(1 << 30, id="gigabyte", marks=pytest.mark.slow)]
)
def test_zeros_are_passed_over_in_bounded_memory(size: int, tmp_path: Path) -> None:
    (utterance,) = members(1)
    header = bytearray(tar([("zeros.wav", b"")])[:512])
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    data = packer.compress(bytes(header))
    for _ in range(size >> 20):
        data += packer.compress(bytes(1 << 20))
    data += packer.compress(tar([utterance])) + packer.flush()
    write_parts(tmp_path, data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ArchiveReader(find_archives(str(tmp_path))[0]) as reader:
        names = [member.name for member in reader]
    assert names == ["zeros.wav", archive_builder.name(0)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
