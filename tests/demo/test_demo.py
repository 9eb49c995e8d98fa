"""The built-in release and its media are what the demo says they are."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from voxblink2_lib.demo.corpus import run_corpus_demo
from voxblink2_lib.demo.face_sheet import draw_faces
from voxblink2_lib.outcomes import RUN_TRIES
from voxblink2_lib.records import Utterance
from voxblink2_lib.release.annotation import read_annotation
from voxblink2_lib.release.builtin import FAULTS, MEDIA, RELEASE
from voxblink2_lib.release.location import open_release


def utterances() -> list[Utterance]:
    release = open_release("demo")
    return [read_annotation(one.path, one.data).utterance for one in release.annotations()]


def test_release_and_media_are_small_and_complete() -> None:
    files = [path for folder in (MEDIA, RELEASE) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    videos = {(one.speaker_id, one.video_id) for one in utterances()}
    assert len({speaker for speaker, _ in videos}) == 8
    assert Counter(Counter((one.speaker_id, one.video_id) for one in utterances()).values()) == {
        3: 18
    }
    media = {(path.parent.name, path.stem) for path in MEDIA.rglob("*.*")}
    assert {video for _, video in videos - media} == set(FAULTS)
    assert sorted(FAULTS.values()) == [403, 404]
    assert sum(video.startswith("-") for _, video in videos) == 1
    listed = (RELEASE / "data" / "spk2videos").read_text().split("\n")
    assert {(row.split()[0], video) for row in listed if row for video in row.split()[1:]} == videos


def test_containers_and_rates() -> None:
    kinds: Counter[str] = Counter()
    for path in MEDIA.rglob("*.*"):
        with av.open(path) as container:
            codecs = [stream.codec_context.name for stream in container.streams]
            rates = [f"{float(one.average_rate or 0):.2f}" for one in container.streams.video]
        kinds[" ".join([path.suffix, *sorted(codecs), *rates])] += 1
    assert set(kinds) == {
        ".mp4 aac h264 25.00",
        ".mp4 aac h264 30.00",
        ".webm libopus libvpx-vp9 29.97",
        ".m4a aac",
    } or set(kinds) == {
        ".mp4 aac h264 25.00",
        ".mp4 aac h264 30.00",
        ".webm opus vp9 29.97",
        ".m4a aac",
    }
    assert min(kinds.values()) >= 2


def test_some_utterances_overlap() -> None:
    found: dict[str, list[Utterance]] = {}
    for one in utterances():
        found.setdefault(one.video_id, []).append(one)
    overlapping = [
        video
        for video, cuts in found.items()
        if any(a.last_frame >= b.first_frame for a, b in itertools.pairwise(cuts))
    ]
    assert len(overlapping) >= 4


def test_the_tour_shows_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tour = run_corpus_demo(tmp_path, config="audio", workers=2)
    # A look, the index and the sound for each that came; one for 404, three for 403, which is
    # tried again.
    assert tour.requests == 16 * 3 + 1 + RUN_TRIES
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in tour.clips}) == 4
    assert "num_rows: 48" in "\n".join(tour.lines())
    assert capsys.readouterr().out == ""


def test_the_tour_of_faces_shows_them_with_their_boxes(tmp_path: Path) -> None:
    tour = run_corpus_demo(tmp_path, config="audio-visual", workers=2)
    said = "\n".join(tour.lines())
    assert "num_rows: 36" in said
    assert said.count("the media file has no video stream") == 4
    assert '"audio-visual", data_dir="demo"' in said
    assert tour.first_row["video"] == "75 frames of 112 x 112"
    assert tour.first_row["boxes"] == "75 x 4"
    assert sorted(path.suffix for path in tour.clips) == [".flac"] * 4 + [".mp4"] * 4
    sheet = np.asarray(Image.open(tour.picture).convert("RGB"), np.int16)
    # Each of the 24 source pictures has a box with four edges in its own red.
    red = np.all(np.abs(sheet - (0xE5, 0x3E, 0x3E)) < 40, axis=2)
    assert red.sum() > 24 * 2 * (80 + 60)


def test_a_contact_sheet_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one utterance, got none"):
        draw_faces(tmp_path / "sheet.png", [])
