"""What lies beside the annotations is found in the authors' places, and read safely."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from support.plain_corpus import make_release, video_ids
from support.release_builder import Member, special_member, write_archive
from support.speaker_files import Files, write_speakers, write_voxblink1

from voxblink2_lib.release import speaker_files
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_files import SpeakerFiles, find_speaker_files


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "release", video_ids(2))


def files_of(release: Path) -> SpeakerFiles:
    return find_speaker_files(open_release(release))


@pytest.mark.parametrize("is_archive", [False, True])
@pytest.mark.parametrize("base", [".", "data"])
def test_files_of_speakers_are_found(release: Path, base: str, is_archive: bool) -> None:
    texts: Files = {"id000001": "one", "id000000": b"\xff two", "id000002.json": "{}"}
    write_speakers(release / base, "asr_res", texts, archive=is_archive)
    (release / "data").mkdir(exist_ok=True)
    (release / "data" / "spk2videos").write_text("id000000 video000000 video000001\n")
    files = files_of(release)
    assert sorted(files.paths) == ["asr_res", "spk2videos"]
    found = {text.speaker_id: text.data for text in files.texts("asr_res")}
    assert found == {"id000001": b"one", "id000000": b"\xff two", "id000002": b"{}"}
    assert list(files.lines("spk2videos")) == ["id000000 video000000 video000001\n"]
    assert list(files.texts("spk_info")) == []
    assert files.problems == []


@pytest.mark.parametrize("named", ["meta", "."])
def test_naming_the_annotations_names_what_is_beside_them(release: Path, named: str) -> None:
    write_speakers(release, "spk_info", {"id000000": "x"})
    assert files_of(release / named).paths == {"spk_info": release / "spk_info"}


def test_voxblink1_has_its_own_names(tmp_path: Path) -> None:
    resource = write_voxblink1(tmp_path, ["id00012", "id00013"])
    (resource / "timestamp" / "id00012").mkdir(parents=True)
    (resource / "video_list").mkdir()
    (resource / "video_list" / "spk2videos_full").write_text("id00012 abcdefghijk\n")
    for named in (tmp_path, resource, resource / "timestamp"):
        files = files_of(named)
        assert set(files.paths) == {
            *("spk2gender", "spk2lan", "spk2loc", "spk2videos", "video_tags"),
        }
    assert {text.speaker_id for text in files.texts("video_tags")} == {"id00012", "id00013"}


def test_the_signature_follows_the_files(release: Path) -> None:
    folder = write_speakers(release, "asr_res", {"id000000": "one"})
    seen = [files_of(release).signature()]
    assert files_of(release).signature() == seen[0]
    (folder / "id000001").write_text("two")
    seen.append(files_of(release).signature())
    os.utime(folder / "id000001", ns=(1, 1))
    seen.append(files_of(release).signature())
    write_speakers(release, "spk_info", {"id000000": "one"}, archive=True)
    seen.append(files_of(release).signature())
    assert len(set(seen)) == len(seen)


# -- Hostile and broken ----------------------------------------------------------------------------


def test_what_is_no_file_of_a_speaker_is_left_out_and_named(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_files, "_MAX_FILE_BYTES", 100)
    folder = write_speakers(
        release, "asr_res", {"id000000": "x", "README\x1b[31m": "x", "id000001": "x" * 101}
    )
    (folder / "id000002").mkdir()
    os.mkfifo(folder / "id000003")  # opening it would wait for ever
    (folder / "id000004").symlink_to("nowhere")
    files = files_of(release)
    assert [text.speaker_id for text in files.texts("asr_res")] == ["id000000"]
    problems = "\n".join(files.problems)
    assert len(files.problems) == 5
    assert "'id000001' is too large: 101 bytes, at most 100" in problems
    assert "is not named like a speaker" in problems
    assert problems.count("is not a regular file") == 3
    assert "\x1b" not in problems


def test_members_that_are_no_files_are_left_out(release: Path) -> None:
    members: list[Member] = [
        special_member("asr_res", tarfile.DIRTYPE),
        special_member("asr_res/id000001", tarfile.SYMTYPE, target="/etc/passwd"),
        ("asr_res/../../id000002", b"kept under its speaker, nothing is unpacked"),
        ("asr_res/id000000", b"one"),
    ]
    write_archive(release / "asr_res.tar.gz", members)
    files = files_of(release)
    assert [text.speaker_id for text in files.texts("asr_res")] == ["id000002", "id000000"]
    assert len(files.problems) == 1
    assert "'id000001' is a link or a device" in files.problems[0]


@pytest.mark.parametrize("damage", ["cut", "none", "other"])
def test_of_a_damaged_archive_the_beginning_is_read(release: Path, damage: str) -> None:
    texts = {f"id{number:06}": os.urandom(3000) for number in range(40)}
    path = write_speakers(release, "asr_res", texts, archive=True)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "none": b"", "other": b"x" * 2000}[damage])
    files = files_of(release)
    read = list(files.texts("asr_res"))
    assert (0 < len(read) < 40) if damage == "cut" else not read
    assert len(files.problems) == 1
    assert str(path) in files.problems[0]


def test_lists_that_are_hostile_are_bounded(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker_files, "_MAX_LIST_BYTES", 1000)
    path = release / "spk2videos"
    path.write_bytes(b"id000000 \xff\n")
    assert list(files_of(release).lines("spk2videos")) == ["id000000 \ufffd\n"]
    path.write_bytes(b"x" * 1001)
    files = files_of(release)
    assert list(files.lines("spk2videos")) == []
    assert "spk2videos: larger than" in files.problems[0]


def test_problems_are_few(release: Path) -> None:
    write_speakers(release, "asr_res", {f"foreign{number}": "x" for number in range(100)})
    files = files_of(release)
    assert list(files.texts("asr_res")) == []
    assert len(files.problems) == 20
