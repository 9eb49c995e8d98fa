"""``archive check``: what it counts, names and remembers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.archive_builder import members, tar, wav, write_archive, write_parts
from support.clocks import SteppingClock

from voxblink2_lib.archive import check_memory
from voxblink2_lib.archive.check import check_archive
from voxblink2_lib.archive.parts import find_archives
from voxblink2_lib.archive.reader import ArchiveReader
from voxblink2_lib.archive.wav import read_wav_header
from voxblink2_lib.cli import main

COUNT = 40


def lines_of(capsys: pytest.CaptureFixture[str], *words: object, code: int) -> list[str]:
    assert main(["archive", "check", *map(str, words)]) == code
    return capsys.readouterr().out.splitlines()


def test_contents_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = sum(path.stat().st_size for path in write_archive(tmp_path, COUNT))
    assert lines_of(capsys, tmp_path, code=0) == [
        f"Archive    VB2_audio.tar.gz: 7 parts, {size / 1000:.1f} kB",
        "Contents   7 speakers, 14 videos, 40 utterances, 0.00 hours of WAV",
        "Audio      40 x wav 16000 Hz, 1 x 16 bit",
        "No problems.",
    ]
    assert main(["archive", "check", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    (archive,) = record.pop("archives")
    assert record == {"ok": True, "problems": []}
    assert archive["wav_hours"] == round(COUNT * 0.25 / 3600, 4)
    assert [archive[name] for name in ("speakers", "videos", "utterances")] == [7, 14, 40]


def test_strangers_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flac = io.BytesIO()
    soundfile.write(flac, np.zeros(800), 16_000, format="FLAC")
    link, device = tarfile.TarInfo("id000001/video000001/00009.wav"), tarfile.TarInfo("null")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    cut = wav(1)[:500]
    files = [
        *members(2),
        ("id000001/video000001/00001.flac", flac.getvalue()),
        ("id000001/video000001/00002.wav", b"RIFX" + bytes(40)),
        ("id000001/video000001/00003.wav", cut),
        ("readme.txt", b"x"),
        ("speaker/video000001/00001.wav", cut),
        ("id000001/video/00001.wav", cut),
        ("id000001/video000001/a b.wav", cut),
        ("../id000001/video000001/00001.wav", cut),
        ("00001.wav", cut),
    ]
    write_parts(tmp_path, gzip.compress(tar(files, [link, device])), 2)
    lines = lines_of(capsys, tmp_path, code=0)
    assert lines[1:4] == [
        "Contents   2 speakers, 2 videos, 3 utterances, 0.00 hours of WAV",
        "Audio      2 x wav 16000 Hz, 1 x 16 bit",
        "Audio      1 x flac",
    ]
    left_out = [line.removeprefix("Left out   1 x ") for line in lines[4:-1]]
    assert left_out[2:-1] == [
        "no audio by its name: readme.txt",
        "no speaker id ('id' and 5 or 6 digits) in its name: speaker/video000001/00001.wav",
        "no video id (11 characters of A-Z a-z 0-9 _ -) in its name: id000001/video/00001.wav",
        "no utterance id (letters, digits, _ and -) in its name: id000001/video000001/a b.wav",
        "a name that leads outside: ../id000001/video000001/00001.wav",
        "no name of the form <speaker>/<video>/<utterance>.<ext>: 00001.wav",
    ]
    assert left_out[0].startswith("no WAV file: it begins with b'RIFX")
    assert left_out[1].startswith("a WAV file that is shorter than its header declares: ")
    assert lines[-2] == (
        "Left out   2 x no regular file but a link or a device: "
        "id000001/video000001/00009.wav, null"
    )


def test_damage_ends_with_1_and_what_is_before_it_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_archive(tmp_path, COUNT)
    paths[-1].unlink()
    lines = lines_of(capsys, tmp_path, code=1)
    assert re.fullmatch(r"Contents   \d speakers, 1[12] videos, 3[345] utterances, .*", lines[1])
    assert lines[-1].startswith(f"{paths[-2]}, at byte {paths[-2].stat().st_size:,}: the stream")
    assert "Left out" not in "".join(lines)


def test_an_archive_without_utterances_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.tar").write_bytes(tar([("notes.txt", b"nothing")]))
    lines = lines_of(capsys, tmp_path / "empty.tar", code=1)
    assert lines[-1] == f"There is no utterance in {tmp_path / 'empty.tar'}."


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_checksums_name_wrong_parts(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_archive(tmp_path, COUNT)
    digests = [hashlib.new(kind, path.read_bytes()).hexdigest() for path in paths]
    sums = tmp_path / "sums.txt"
    rows = [f"{digest.upper()} *{path.name}" for path, digest in zip(paths, digests, strict=True)]
    sums.write_text("\n".join(rows) + "\n\n")
    assert lines_of(capsys, tmp_path, "--sums", sums, code=0)[-1] == "No problems."
    rows[2] = f"{digests[1]}  {paths[2].name}"
    sums.write_text("\n".join(rows[:-1]))
    lines = lines_of(capsys, tmp_path, "--sums", sums, code=1)
    assert lines[-2:] == [
        f"{paths[2]} has the checksum {digests[2]}, listed is {digests[1]}.",
        f"{paths[-1].name} is not in the list of checksums.",
    ]
    sums.unlink()
    assert main(["archive", "check", str(tmp_path), "--sums", str(sums)]) == 2
    assert f"The checksums {sums} cannot be read" in capsys.readouterr().err


def test_a_check_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "parts", COUNT)
    (archive,) = find_archives(str(tmp_path / "parts"))
    whole = check_archive(archive)
    # Every point is saved: time passes at each look at the clock.
    monkeypatch.setattr(check_memory, "_SAVE_SECONDS", 0.0)
    read = ArchiveReader.read
    reads: list[int] = []

    def stopped_at_30(reader: ArchiveReader) -> bytes:
        reads.append(1)
        if len(reads) == 30:
            raise KeyboardInterrupt
        return read(reader)

    monkeypatch.setattr(ArchiveReader, "read", stopped_at_30)
    with pytest.raises(KeyboardInterrupt):
        check_archive(archive, point_bytes=60_000)
    assert len(list((tmp_path / "home").rglob("*.json"))) == 1
    result = check_archive(archive, point_bytes=60_000)
    assert result.contents.as_dict() == whole.contents.as_dict()
    assert 40 <= len(reads) < 30 + 40 - 15, "it began at the start again"
    assert not list((tmp_path / "home").rglob("*.json"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))


def test_a_check_of_other_parts_begins_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_archive(tmp_path / "parts", COUNT)
    (archive,) = find_archives(str(tmp_path / "parts"))
    clock = SteppingClock()
    monkeypatch.setattr("voxblink2_lib.archive.check_memory.time.monotonic", clock)
    memory = check_memory.CheckMemory(archive)
    memory.save_now_and_then(*memory.load())
    assert not list((tmp_path / "home").rglob("*.json"))
    clock.now += 31
    memory.save_now_and_then(*memory.load())
    (file,) = (tmp_path / "home").rglob("*.json")
    paths[0].touch()
    check_memory.CheckMemory(archive).forget()
    assert file.exists()
    file.write_text("{half")
    assert memory.load()[0].offset == 0


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
@pytest.mark.parametrize("channels", [1, 2])
def test_headers_of_wav_files_are_read_as_soundfile_does(subtype: str, channels: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((1234, channels)), 44_100, subtype=subtype, format="WAV")
    header = read_wav_header(file.getvalue())
    assert (header.frames, header.channels, header.rate_hz) == (1234, channels, 44_100)
    assert header.seconds == 1234 / 44_100
    assert len(file.getvalue()) - header.start >= header.size_bytes
