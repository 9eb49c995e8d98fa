"""A folder in which not one selected video is found: what it looks like, and what to do."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.folder_check import folder_problem

KEY = VideoKey("id000001", "-truth_0001")
KEYS = [KEY, VideoKey("id000001", "truth__0002"), VideoKey("id000003", "truth__0003")]
LOOKED_FOR = (
    "has a usable file of none of the 3 selected videos; looked for <speaker>/<video>.<ext>, such "
    "as id000001/-truth_0001.mp4. "
)


def put(folder: Path, *names: str) -> Path:
    """Make empty files; return the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def problem(folder: Path, **options: Any) -> str:
    """Return what is wrong with a folder, without what was looked for."""
    text = folder_problem(folder, KEYS, **options)
    assert text.startswith(f"The source {folder} {LOOKED_FOR}")
    return text.partition(LOOKED_FOR)[2]


# -- Folders that can be a source ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["id000001/-truth_0001.mp4", "id000001/-truth_0001.f137.MP4", "id000003/truth__0003.webm"],
)
@pytest.mark.parametrize("with_video", [False, True])
def test_one_file_of_one_selected_video_will_do(
    tmp_path: Path, name: str, with_video: bool
) -> None:
    put(tmp_path, name, "VB2_audio.tar.gz.00", "flat_file_1.wav", "id000009/x.mp4.part")
    assert folder_problem(tmp_path, KEYS, with_video=with_video) == ""
    assert folder_problem(tmp_path, None, with_video=with_video) == ""


def test_a_file_behind_links_will_do(tmp_path: Path) -> None:
    media = put(tmp_path / "elsewhere", "sound.m4a")
    (tmp_path / "speaker").mkdir()
    (tmp_path / "speaker" / "-truth_0001.m4a").symlink_to(media / "sound.m4a")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "id000001").symlink_to(tmp_path / "speaker")
    assert folder_problem(tmp_path / "source", KEYS) == ""


def test_the_search_ends_at_the_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No speaker is listed twice, and none who has no folder, whatever the size of the corpus."""
    put(tmp_path, "id000002/other_video.mp4", "id000005/video000050.mp4", "id000007/x.mp4")
    asked = []

    def keys() -> Iterator[VideoKey]:
        for number in range(100_000):
            asked.append(number)
            yield VideoKey(f"id{number // 10:06}", f"video{number:06}")

    listed: list[str] = []
    listdir = os.listdir

    def recorded(path: Path) -> list[str]:
        listed.append(path.name)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", recorded)
    assert folder_problem(tmp_path, keys()) == ""
    assert asked[-1] == 50
    assert listed == [tmp_path.name, "id000002", "id000005"]


# -- Folders of another shape ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["id000001/-truth_0001/00001.wav", "id000001/-truth_0001/00002.wav"],
            r"It holds id000001/-truth_0001/00001\.wav: a folder for each video, a file an "
            r"utterance\. Files of cut audio have an extension of audio, such as wav",
        ),
        (
            ["id000009/xxxxxxxxxxx/00001.flac"],
            r"It holds id000009/xxxxxxxxxxx/00001\.flac: a folder for each video",
        ),
        (
            ["id000001/-truth_0001/00001.txt"],
            "these are annotations of the release, no media. Use --data-dir ",
        ),
        (
            ["VB2_audio.tar.gz.00", "VB2_audio.tar.gz.01", "VB2_audio.tar.gz.02"],
            r"It holds the archive VB2_audio\.tar\.gz\.00, VB2_audio\.tar\.gz\.01 and 1 more, .* "
            "cut audio is, from tars that begin with files <speaker>/",
        ),
        (["vb2_meta.tar.gz", "spk2videos"], "It holds vb2_meta.tar.gz: it is the release"),
        (["media.tar"], "It holds the archive media.tar, and media are not read from archives"),
        (["a.zip", "b.tar.zst"], "It holds the archive a.zip, b.tar.zst, and media are not read"),
        (
            ["-truth_0001.m4a", "truth__0002.m4a"],
            r"It holds -truth_0001\.m4a without a folder for the speaker\. .* this one becomes "
            r"id000001/-truth_0001\.m4a",
        ),
        (["unselected1.m4a"], r"this one becomes <speaker>/unselected1\.m4a"),
        (
            ["A title [truth__0003].webm"],
            r"It holds A title \[truth__0003\]\.webm without .* becomes id000003/truth__0003\.webm",
        ),
        (
            ["id000001/A title [-truth_0001].webm"],
            r"named by the title before the id\. Rename each file to its id, this one to "
            r"-truth_0001\.webm; yt-dlp names files so with -o '%\(id\)s\.%\(ext\)s'",
        ),
        (
            ["id10001/xxxxxxxxxxx.mp4", "id10002/xxxxxxxxxxx.mp4"],
            "It has 2 folders of speakers, such as id10001, none of which is selected, such as "
            "id000001. It is the folder of another corpus",
        ),
        (
            ["id000001/xxxxxxxxxxx.mp4", "id10002/xxxxxxxxxxx.mp4"],
            r"The folder id000001 holds xxxxxxxxxxx\.mp4, none of which is a selected video",
        ),
        (["p225/p225_001.wav", "p226/p226_001.wav"], "It holds p225, p226, nothing of which is"),
    ],
)
def test_shapes(tmp_path: Path, names: list[str], message: str) -> None:
    assert re.search(message, problem(put(tmp_path, *names)))


def test_folders_of_speakers_that_are_empty(tmp_path: Path) -> None:
    (tmp_path / "id000001").mkdir()
    assert problem(tmp_path).startswith("It has folders of speakers, such as id000001, and these")


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("media", "It holds media, which has the folders of speakers: one level too high. Use "),
        ("a b/c", "It holds a b/c, which has the folders of speakers: two levels too high. Use "),
    ],
)
def test_a_folder_that_is_too_high(tmp_path: Path, below: str, message: str) -> None:
    put(tmp_path / below, "id000001/-truth_0001.mp4")
    text = problem(put(tmp_path, "readme.txt"))
    assert text.startswith(message)
    _, folder = shlex.split(text.partition(" Use ")[2])
    assert folder_problem(Path(folder), KEYS) == "", "the advice works as printed"


def test_a_folder_that_is_too_low(tmp_path: Path) -> None:
    put(tmp_path, "id000001/-truth_0001.mp4")
    text = problem(tmp_path / "id000001")
    assert text.startswith("It is the folder of one speaker, with -truth_0001.mp4: one level too")
    _, folder = shlex.split(text.partition(" Use ")[2])
    assert folder_problem(Path(folder), KEYS) == ""


def test_the_folder_of_one_video(tmp_path: Path) -> None:
    put(tmp_path, "id000001/-truth_0001/00001.wav")
    text = problem(tmp_path / "id000001" / "-truth_0001")
    assert text.startswith("It is the folder of one video of one speaker, with 00001.wav: two")
    assert text.endswith(f"Use --source {tmp_path}")


# -- Nothing there, or nothing that can be read ----------------------------------------------------


@pytest.mark.parametrize("litter", [(), (".DS_Store",), ("lost+found/x",)])
def test_an_empty_folder_may_not_be_mounted(tmp_path: Path, litter: tuple[str, ...]) -> None:
    text = problem(put(tmp_path, *litter))
    assert text.startswith(
        "The folder is empty. If a disk or a network share belongs there, it is not mounted: mount "
        "it, then run this again."
    )


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    text = folder_problem(tmp_path / "gone", KEYS)
    assert text.startswith(f"The source {tmp_path}/gone cannot be listed: No such file")


@pytest.mark.parametrize(
    ("denied", "message"),
    [
        ("", "cannot be listed: Permission denied. Make it readable"),
        ("id000001", "id000001 cannot be read: permission denied. Make it readable."),
        ("id000001/-truth_0001.mp4", r"-truth_0001\.mp4 cannot be read: permission denied"),
    ],
)
def test_what_cannot_be_read(
    tmp_path: Path, denied: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the modes of files, which do not stop the user root."""
    folder = put(tmp_path / "media", "id000001/-truth_0001.mp4")
    listdir = os.listdir

    def guarded(path: Path) -> list[str]:
        if path == folder / denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", guarded)
    monkeypatch.setattr(os, "access", lambda path, _: path != folder / denied)
    assert re.search(message, folder_problem(folder, KEYS))


@pytest.mark.parametrize("name", ["id000001", "id000001/-truth_0001.mp4"])
def test_links_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("/nowhere/at/all")
    assert problem(tmp_path).startswith(f"{link} is a link that leads nowhere. Mount what it leads")


def test_downloads_that_did_not_finish(tmp_path: Path) -> None:
    put(tmp_path, "id000001/-truth_0001.mp4.part", "id000001/-truth_0001.f140.m4a.ytdl")
    assert "is of a download that did not finish. Finish the downloads" in problem(tmp_path)


def test_sound_without_pictures(tmp_path: Path) -> None:
    put(tmp_path, "id000003/truth__0003.m4a")
    assert "truth__0003.m4a has no pictures" in problem(tmp_path, with_video=True)
    assert folder_problem(tmp_path, KEYS) == ""


# -- Without a selection ---------------------------------------------------------------------------


def test_a_folder_is_judged_by_its_shape_alone(tmp_path: Path) -> None:
    put(tmp_path, "id000001/-truth_0001/00001.wav", "id000002/title.mp4")
    text = folder_problem(tmp_path, None)
    assert text.startswith(f"The source {tmp_path} has no usable file <speaker>/<video>.<ext>. It ")
    assert "a folder for each video, a file an utterance" in text
    put(tmp_path, "id000003/any_video01.mp4")
    assert folder_problem(tmp_path, None) == ""


def test_names_that_no_terminal_should_see(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2Jclear").mkdir()
    (tmp_path / os.fsdecode(b"\xff\xfe")).mkdir()
    assert problem(tmp_path).startswith(r"It holds '\x1b[2Jclear', '\udcff\udcfe', nothing of")
