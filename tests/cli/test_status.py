"""What ``status`` says of the sound of a store's videos, and that it says nothing without cause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts, Outcome
from voxblink2_lib.records import VideoKey
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
    assert main(["status", "--store", str(tmp_path), "--json"]) == 0
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
    assert main(["status", "--store", str(tmp_path), "--json"]) == 0
    sound = json.loads(capsys.readouterr().out)["sound"]
    assert (sound["videos_with_tracks"], sound["clipped_samples"]) == (2, 1200)
    assert len(sound["louder_channels"]) == 6
    assert sound["louder_channels"][-1] == {
        **{"speaker_id": "id000001", "video_id": "h" * 11, "channel": 2}
    }
