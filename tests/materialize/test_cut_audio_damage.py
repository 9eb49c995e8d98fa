"""Archives that are damaged, hostile or incomplete: told, bounded, and the rest is kept."""

from __future__ import annotations

import gzip
import re
import resource
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import archive_builder, cli_process, cut_runs
from support.cut_runs import content, go, in_order, name_of, row_names, write

from voxblink2_lib.archive.parts import JoinedFile
from voxblink2_lib.archive.reader import ArchiveDamagedError
from voxblink2_lib.cut_audio.cutting import cut_files
from voxblink2_lib.cut_audio.members import FileRange
from voxblink2_lib.cut_audio.tasks import CutFile, CutTask, VideoFiles
from voxblink2_lib.errors import SourceError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import arrow_schema

PARTS, VIDEOS = 5, 30


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with cut_runs.small():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive in five parts, and the store of a run over it."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "parts", in_order(VIDEOS), parts=PARTS)
    with cut_runs.small():
        go(folder / "parts", folder / "store")
    return folder


@pytest.fixture
def parts(whole: Path, tmp_path: Path) -> list[Path]:
    """A copy of the parts."""
    (tmp_path / "parts").mkdir()
    paths = sorted((whole / "parts").iterdir())
    for path in paths:
        (tmp_path / "parts" / path.name).write_bytes(path.read_bytes())
    return [tmp_path / "parts" / path.name for path in paths]


def mend(parts: list[Path], whole: Path) -> None:
    for path in parts:
        path.write_bytes((whole / "parts" / path.name).read_bytes())


def truncate(part: Path, size_bytes: int) -> None:
    part.write_bytes(part.read_bytes()[:size_bytes])


def flip(part: Path, at: int) -> None:
    data = bytearray(part.read_bytes())
    data[at] ^= 16
    part.write_bytes(bytes(data))


def swap(one: Path, other: Path) -> None:
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


Damage = Callable[[list[Path]], object]

# What is done; which part the message names; how many utterances are kept at least.
DAMAGES: dict[str, tuple[Damage, str, int]] = {
    "truncated": (lambda parts: truncate(parts[2], 1000), "0[23]", 24),
    "empty": (lambda parts: truncate(parts[2], 0), "03", 24),
    "swapped": (lambda parts: swap(parts[2], parts[3]), "02", 24),
    "the last is missing": (lambda parts: parts[4].rename(parts[4].with_name("x")), "03", 48),
    "two are missing": (
        lambda parts: [path.rename(path.with_suffix(".x")) for path in parts[3:]],
        "02",
        36,
    ),
    "the trailer is cut": (lambda parts: truncate(parts[4], -3), "04", 60),
    "a bit, felt": (lambda parts: flip(parts[4], 500), "04", 60),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_part_is_named_and_a_mended_one_goes_on(
    name: str,
    parts: list[Path],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "store"
    damage, part, kept = DAMAGES[name]
    damage(parts)
    with pytest.raises(ArchiveDamagedError) as caught:
        go(tmp_path / "parts", store)
    message = str(caught.value)
    assert re.search(rf"VB2_audio\.tar\.gz\.{part}, at byte [\d,]+: ", message)
    assert not caught.value.is_anywhere
    with Ledger(store / "ledger.sqlite", "audio", readonly=True) as ledger:
        clips = ledger.statistics.totals().clips
    assert clips >= kept
    assert f"has {clips:,} utterances, which are kept. Run the same command again" in message
    mend(parts, whole)
    reads: list[tuple[int, int]] = []
    original = JoinedFile.readinto

    def counted(self: JoinedFile, buffer: bytearray) -> int:
        start = self.tell()
        count = original(self, buffer)
        reads.append((start, count))
        return count

    monkeypatch.setattr(JoinedFile, "readinto", counted)
    go(tmp_path / "parts", store)
    assert cli_process.shards(store) == cli_process.shards(whole / "store")
    assert any(start > parts[0].stat().st_size for start, _ in reads)


@pytest.mark.parametrize(
    ("part", "at"), [(2, 5000), (4, -6), (4, -2)], ids=["silent", "crc", "length"]
)
def test_a_bit_that_only_the_checksum_shows_leaves_a_store_nobody_relies_on(
    part: int, at: int, parts: list[Path], whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    flip(parts[part], at)
    for _ in range(2):  # the second run reads nothing, and says the same
        with pytest.raises(ArchiveDamagedError, match="at the end of the stream is") as caught:
            go(tmp_path / "parts", store)
        assert caught.value.is_anywhere
        assert f"So the clips of the store {store} are not to be relied on." in str(caught.value)
        assert f"'voxblink2 archive check {tmp_path / 'parts'} --sums SUMS'" in str(caught.value)
        assert "kept" not in str(caught.value)
    mend(parts, whole)
    with pytest.raises(ArchiveDamagedError, match="not to be relied on"):
        go(tmp_path / "parts", store)
    go(tmp_path / "parts", tmp_path / "other")
    assert cli_process.shards(tmp_path / "other") == cli_process.shards(whole / "store")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda parts: parts[2].unlink(),
            r"A part of \S+ is missing: VB2_audio\.tar\.gz\.02; seen",
        ),
        (lambda parts: parts[0].unlink(), r"\.01, at byte [\d,]+: .* Name the first part"),
        (lambda parts: truncate(parts[0], 1), r"at byte [\d,]+: .* Name the first part"),
        (lambda parts: parts[0].write_bytes(b"<html>not found</html>"), "Name the first part"),
        (
            lambda parts: parts[0].with_name("VB2_audio.tar.gz").write_bytes(b"x"),
            r"VB2_audio\.tar\.gz lies beside parts of an archive of the same name",
        ),
    ],
    ids=["missing", "first missing", "first cut", "first is a page", "whole beside parts"],
)
def test_what_cannot_be_begun_leaves_no_store(
    damage: Damage, message: str, parts: list[Path], tmp_path: Path
) -> None:
    damage(parts)
    with pytest.raises(SourceError, match=message):
        go(tmp_path / "parts", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_part_that_is_another_one_by_now_is_refused(
    parts: list[Path], whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    truncate(parts[4], -3)
    with pytest.raises(ArchiveDamagedError):
        go(tmp_path / "parts", store)
    mend(parts, whole)
    before = parts[1].read_bytes()
    parts[1].write_bytes(before + b"more")
    with pytest.raises(SourceError, match=r"\.01 has [\d,]+ bytes; it had [\d,]+ when its audio"):
        go(tmp_path / "parts", store)
    parts[1].write_bytes(before)
    go(tmp_path / "parts", store)
    assert cli_process.shards(store) == cli_process.shards(whole / "store")


# -- Members ---------------------------------------------------------------------------------------


def other(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


STRANGERS = [
    ("audio/id000000/video000000/00009.txt", "no audio by its name"),
    ("audio/id000000/00009.wav", "no speaker id"),
    ("00009.wav", "no name of the form <speaker>/<video>/<utterance>.<ext>"),
    ("audio/speaker1/video000000/00009.wav", "no speaker id"),
    ("audio/id000000/video/00009.wav", "no video id"),
    ("audio/id000000/video000000/an utterance.wav", "no utterance id"),
    ("/id000000/video000000/00009.wav", "a name that leads outside"),
    ("audio/../../id000000/video000000/00009.wav", "a name that leads outside"),
]
DEVICES = [
    other(name_of(0, 20), tarfile.SYMTYPE, "/etc/passwd"),
    other(name_of(0, 21), tarfile.LNKTYPE, name_of(0, 0)),
    other(name_of(0, 22), tarfile.CHRTYPE),
    other(name_of(0, 23), tarfile.BLKTYPE),
    other(name_of(0, 24), tarfile.FIFOTYPE),
]
DAMAGED = [
    (name_of(0, 10), b"", "the file is empty"),
    (name_of(0, 11), b"text\n" * 99, "the media file cannot be read: Invalid data"),
    (name_of(1, 12), content(name_of(1, 12))[:-100], "a WAV file that ends early"),
    (name_of(1, 13), content(name_of(1, 13))[:44], "a WAV file that ends early"),
    (name_of(2, 14), b"RIFF" + b"\xff" * 200, "no WAV file"),
]


def test_strangers_are_counted_and_damaged_files_listed_and_the_rest_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = in_order(3)
    files = [(name, content(name)) for name in good]
    files += [(name, content(good[0])) for name, _ in STRANGERS]
    files += [(name, data) for name, data, _ in DAMAGED]
    data = archive_builder.tar(files, DEVICES)
    archive_builder.write_parts(tmp_path / "parts", gzip.compress(data, 1), 2)
    store = tmp_path / "store"
    go(tmp_path / "parts", store)
    assert row_names(store) == sorted(good)
    told = caplog.text
    for reason in {reason for _, reason in STRANGERS}:
        count = [reason for _, reason in STRANGERS].count(reason)
        assert re.search(rf"{count} members of the cut audio are no utterances: {reason}", told)
    assert "5 members of the cut audio are no utterances: no regular file but a link" in told
    with Ledger(store / "ledger.sqlite", "audio", readonly=True) as ledger:
        keys = dict.fromkeys(key for key, _ in ledger.job_videos(0))
        missing = {
            f"audio/{'/'.join(key)}/{row.utterance_id}.wav": row.reason
            for key in keys
            for row in ledger.cut.missing(key)
        }
    assert sorted(missing) == sorted(name for name, _, _ in DAMAGED)
    for name, _, reason in DAMAGED:
        assert missing[name].startswith(reason)


@pytest.mark.parametrize("size_bytes", [80 << 20, pytest.param(1 << 30, marks=pytest.mark.slow)])
def test_a_member_of_zeros_is_skipped_in_bounded_memory(
    size_bytes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = in_order(2)
    giant = tarfile.TarInfo(name_of(0, 9))
    giant.size = size_bytes
    path = tmp_path / "parts" / "audio.tar.gz"
    path.parent.mkdir()
    with gzip.open(path, "wb", compresslevel=1) as file:
        first = tarfile.TarInfo(names[0])
        first.size = len(content(names[0]))
        file.write(first.tobuf() + content(names[0]) + bytes(-first.size % 512) + giant.tobuf())
        for _ in range(size_bytes >> 20):
            file.write(bytes(1 << 20))
        file.write(archive_builder.tar([(name, content(name)) for name in names[1:]]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    go(tmp_path / "parts", tmp_path / "store")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert row_names(tmp_path / "store") == names
    assert "1 members of the cut audio are no utterances: more than 67,108,864 bytes" in caplog.text


def test_absurd_headers_and_an_empty_tar(tmp_path: Path) -> None:
    data = bytearray(archive_builder.tar([(name, content(name)) for name in in_order(3)]))
    data[2560 + 124 : 2560 + 136] = b"\x80" + b"\xff" * 11  # the size of the second member
    archive_builder.write_parts(tmp_path / "parts", gzip.compress(bytes(data)), 2)
    with pytest.raises(ArchiveDamagedError, match=r"header .* at byte 2560|byte 2560"):
        go(tmp_path / "parts", tmp_path / "store")
    (tmp_path / "empty.tar").write_bytes(archive_builder.tar([]))
    with pytest.raises(SourceError, match="no utterances, such as none at all"):
        go(tmp_path / "empty.tar", tmp_path / "store2")
    assert not (tmp_path / "store2").exists()


def test_a_tar_that_vanishes_is_no_fault_of_its_files(tmp_path: Path) -> None:
    def task(offset: int) -> CutTask:
        file = CutFile("00001", "wav", FileRange(tmp_path / "gone", offset, 9), None)
        video = VideoFiles(VideoKey("id000001", "video000001"), (file,))
        return CutTask(0, 0, (video,), arrow_schema("audio"), "flac")

    (video,) = cut_files(task(0)).videos
    (missing,) = video.missing
    assert missing.reason == "it cannot be read: No such file or directory"
    with pytest.raises(OSError, match="No such file"):
        cut_files(task(512))
