"""Media between download and cropping: whole, or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from voxblink2_lib.errors import StoreFullError
from voxblink2_lib.materialize.fetched_media import FetchRecord, discard, open_staged, stage
from voxblink2_lib.outcomes import MediaFacts
from voxblink2_lib.sources import Media

RECORD = FetchRecord(bytes_fetched=123, seconds_taken=4.5, route="10.0.0.1:8080 with cookies.txt")


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "media" / "audio" / "id000001_abcdefghijk"


def fetched(tmp: Path, *, sound: bytes | None = None, media: bytes = b"pictures") -> Media:
    (tmp / "media").write_bytes(media)
    if sound is None:
        return Media(tmp / "media", 123)
    (tmp / "sound").write_bytes(sound)
    return Media(tmp / "media", 123, tmp / "sound")


def test_one_file(tmp: Path, target: Path) -> None:
    stage(fetched(tmp), target, RECORD)
    media, record = open_staged(target) or pytest.fail("nothing is staged")
    assert record == RECORD
    assert media == Media(target / "media", 8)
    assert media.audio == media.path
    assert media.path.read_bytes() == b"pictures"
    assert list(tmp.iterdir()) == []
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]


def test_pictures_and_sound_in_two_files(tmp: Path, target: Path) -> None:
    stage(fetched(tmp, sound=b"sound"), target, RECORD)
    media, _ = open_staged(target) or pytest.fail("nothing is staged")
    assert media == Media(target / "media", 13, target / "sound")
    assert media.audio.read_bytes() == b"sound"
    assert list(tmp.iterdir()) == []


def test_an_existing_folder_is_replaced_whole(tmp: Path, target: Path) -> None:
    stage(fetched(tmp, sound=b"old"), target, RECORD)
    stage(fetched(tmp, media=b"new"), target, FetchRecord(3, 1.0, "direct"))
    media, record = open_staged(target) or pytest.fail("nothing is staged")
    assert (media.path.read_bytes(), media.audio_path) == (b"new", None)
    assert record == FetchRecord(3, 1.0, "direct")


def test_a_folder_of_the_version_before_is_read(target: Path) -> None:
    target.mkdir(parents=True)
    (target / "media").write_bytes(b"pictures")
    text = '{"bytes_fetched": 123, "seconds_taken": 4.5, "address": "10.0.0.1:8080"}'
    (target / "fetched.json").write_text(text)
    staged = (Media(target / "media", 8), FetchRecord(123, 4.5, "10.0.0.1:8080"))
    assert open_staged(target) == staged


def test_the_record_is_written_as_the_version_before_reads_it(tmp: Path, target: Path) -> None:
    stage(fetched(tmp), target, FetchRecord(123, 4.5, "10.0.0.1:8080"))
    assert (target / "fetched.json").read_text() == (
        '{"bytes_fetched": 123, "seconds_taken": 4.5, "address": "10.0.0.1:8080"}'
    )


def test_what_was_learned_of_the_media_stays_with_them(tmp: Path, target: Path) -> None:
    facts = MediaFacts(audio_id="251-3", language="de", client="web")
    stage(fetched(tmp), target, replace(RECORD, facts=facts))
    media, record = open_staged(target) or pytest.fail("nothing is staged")
    assert record == replace(RECORD, facts=facts)
    assert media == Media(target / "media", 8, facts=facts)


def test_nothing_is_none(target: Path) -> None:
    assert open_staged(target) is None
    target.mkdir(parents=True)
    assert open_staged(target) is None


@pytest.mark.parametrize("lost", ["media", "fetched.json"])
def test_half_a_folder_is_none(lost: str, tmp: Path, target: Path) -> None:
    stage(fetched(tmp, sound=b"sound"), target, RECORD)
    (target / lost).unlink()
    assert open_staged(target) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"bytes_fetched": 1, "wrong": 2}', "\0"]
)
def test_a_record_that_cannot_be_read_is_none(text: str, tmp: Path, target: Path) -> None:
    stage(fetched(tmp), target, RECORD)
    (target / "fetched.json").write_text(text)
    assert open_staged(target) is None


def test_discard(tmp: Path, target: Path) -> None:
    stage(fetched(tmp, sound=b"sound"), target, RECORD)
    discard(target)
    assert not target.exists()
    discard(target)
    assert target.parent.exists()


def test_half_discarded_is_none(tmp: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is removed: its record is removed first."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stage(fetched(tmp), target, RECORD)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            discard(target)
    assert (target / "media").exists()
    assert open_staged(target) is None
    # And the next download takes its place.
    stage(fetched(tmp, media=b"new"), target, RECORD)
    assert open_staged(target) is not None


def test_a_full_disk_leaves_nothing(
    tmp: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFullError, match="No space is left for"):
        stage(fetched(tmp), target, RECORD)
    assert open_staged(target) is None
    assert list(target.parent.iterdir()) == []
    assert list(tmp.iterdir()) == []


KILLED = """
import os, pathlib, signal, sys
from voxblink2_lib.materialize.fetched_media import FetchRecord, stage
from voxblink2_lib.sources import Media
tmp, target, moment = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
(tmp / "media").write_bytes(b"pictures")
(tmp / "sound").write_bytes(b"sound")
calls = 0
def count(event, _):
    global calls
    if event in {"os.rename", "open", "os.mkdir"}:
        calls += 1
        if calls > moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
stage(Media(tmp / "media", 13, tmp / "sound"), target, FetchRecord(13, 1.0, "direct"))
"""


def test_killed_at_any_step_it_is_whole_or_absent(tmp_path: Path) -> None:
    """Every file made, opened or renamed is a moment to be killed at."""
    outcomes: list[bool] = []
    for moment in range(40):
        tmp, target = tmp_path / f"tmp{moment}", tmp_path / f"media{moment}" / "video"
        tmp.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp), str(target), str(moment)],
            env={"PYTHONPATH": ":".join(sys.path)},
            check=False,
        )
        staged = open_staged(target)
        outcomes.append(staged is not None)
        if staged is not None:
            assert staged[0].path.read_bytes() == b"pictures"
            assert staged[0].audio.read_bytes() == b"sound"
            assert json.loads((target / "fetched.json").read_text())["bytes_fetched"] == 13
        else:
            assert not target.exists()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) >= 8
