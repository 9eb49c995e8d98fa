"""What ``status`` says of sound and of pauses, and that it says nothing without cause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts, Outcome
from voxblink2_lib.progress import clock_text
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.rate_limits import RateLimiter, shared_file
from voxblink2_lib.store.ledger import Ledger

KEYS = [VideoKey("id000001", f"{letter * 11}") for letter in "abcdefgh"]


def status(store: Path, facts: list[MediaFacts], capsys: pytest.CaptureFixture[str]) -> str:
    """Record done videos with these facts; return what ``status`` prints, in both forms."""
    with Ledger(store / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([KEYS])
        for key, learned in zip(KEYS, facts, strict=False):
            ledger.verdicts("youtube").record(Outcome(key, "done", clips=1, facts=learned))
    assert main(["status", "--store", str(store)]) == 0
    return capsys.readouterr().out


def test_sound_as_it_should_be_is_not_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = MediaFacts(audio_id="140", language="de", audio_tracks=1)
    assert "Sound" not in status(tmp_path, [fine, NO_FACTS], capsys)
    assert main(["status", "--store", str(tmp_path), "--config", "audio", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sound"] == {
        **{"videos_with_tracks": 0, "clipped_samples": 0, "clipped_videos": 0},
        "louder_channels": [],
    }


def test_tracks_clipping_and_channels_that_cancel_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = [MediaFacts(audio_tracks=2), MediaFacts(clipped_samples=1200, audio_tracks=3)]
    facts += [MediaFacts(louder_channel=1 + number % 2) for number in range(6)]
    lines = status(tmp_path, facts, capsys).splitlines()
    assert [line for line in lines if line.startswith("Sound")] == [
        "Sound      videos with several audio tracks: 2",
        "Sound      samples beyond full scale: 1,200, videos that have any: 1",
        "Sound      channels cancel each other, so the louder one was used: "
        "id000001/ccccccccccc (channel 1), id000001/ddddddddddd (channel 2), "
        "id000001/eeeeeeeeeee (channel 1), id000001/fffffffffff (channel 2), "
        "id000001/ggggggggggg (channel 1), and 1 more",
    ]
    assert main(["status", "--store", str(tmp_path), "--config", "audio", "--json"]) == 0
    sound = json.loads(capsys.readouterr().out)["sound"]
    assert (sound["videos_with_tracks"], sound["clipped_samples"]) == (2, 1200)
    assert len(sound["louder_channels"]) == 6
    assert sound["louder_channels"][-1] == {
        **{"speaker_id": "id000001", "video_id": "h" * 11, "channel": 2}
    }


# -- pauses ----------------------------------------------------------------------------------------


@pytest.fixture
def paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of YouTube, one route to which is paused; so is one to another source."""
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))
    with Ledger(tmp_path / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([KEYS])
        ledger.set_setting("source", "youtube")
    limiter = RateLimiter(shared_file())
    limiter.pause("youtube gate:1 with a.txt", 3600, "Too Many Requests", grows=False)
    limiter.pause("media.example.org direct", 3600, "another", grows=False)
    return tmp_path


def test_pauses_of_the_stores_source_are_shown(
    paused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    until = RateLimiter(shared_file()).pause_for("youtube gate:1 with a.txt").until
    assert main(["status", "--store", str(paused)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Paused")] == [
        f"Paused     gate:1 with a.txt until {clock_text(until)} (Too Many Requests)"
    ]
    assert main(["status", "--store", str(paused), "--config", "audio", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pauses"] == [
        {"route": "gate:1 with a.txt", "until": until, "reason": "Too Many Requests"}
    ]


def test_retry_lifts_pauses_of_the_stores_source_only(
    paused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retry", "--store", str(paused), "--lift-pauses"]) == 0
    output = capsys.readouterr()
    assert "Pauses lifted: gate:1 with a.txt.\n" in output.err
    assert "Paused" not in output.out
    limiter = RateLimiter(shared_file())
    assert limiter.pauses("youtube") == {}
    assert [*limiter.pauses("media.example.org")] == ["direct"]
    assert main(["retry", "--store", str(paused), "--lift-pauses"]) == 0
    assert "Pauses lifted: none, no route is paused.\n" in capsys.readouterr().err


def test_retry_needs_something_to_do(paused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retry", "--store", str(paused)]) == 2
    assert "retry needs --class CLASS, for example --class geo" in capsys.readouterr().err


@pytest.mark.parametrize("source", [None, "/nowhere", "."])
def test_a_store_without_a_remote_source_has_no_pauses(
    source: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([KEYS])
        if source:
            ledger.set_setting("source", source)
    assert main(["status", "--store", str(tmp_path), "--config", "audio", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pauses"] == []
