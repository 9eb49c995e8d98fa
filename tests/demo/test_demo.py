"""The corpus demo, and the built-in release and media that it is about."""

from __future__ import annotations

import hashlib
import itertools
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_inline_json

from voxblink2_lib.demo.corpus import run_corpus_demo
from voxblink2_lib.demo.face_sheet import draw_faces
from voxblink2_lib.outcomes import RUN_TRIES
from voxblink2_lib.records import Utterance
from voxblink2_lib.release.annotation import read_annotation
from voxblink2_lib.release.builtin import FAULTS, MEDIA, RELEASE
from voxblink2_lib.release.location import open_release

pytestmark = pytest.mark.usefixtures("inline_workers")


def utterances() -> list[Utterance]:
    release = open_release("demo")
    return [read_annotation(file.path, file.data).utterance for file in release.annotations()]


def test_release_and_media_are_small_and_complete() -> None:
    files = [path for folder in (MEDIA, RELEASE) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    per_video = Counter((utterance.speaker_id, utterance.video_id) for utterance in utterances())
    videos = set(per_video)
    assert len({speaker for speaker, _ in videos}) == 8
    assert Counter(per_video.values()) == {3: 18}
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
            rates = [f"{float(stream.average_rate or 0):.2f}" for stream in container.streams.video]
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
    of_video: dict[str, list[Utterance]] = {}
    for utterance in utterances():
        of_video.setdefault(utterance.video_id, []).append(utterance)
    overlapping = [
        video
        for video, cuts in of_video.items()
        if any(a.last_frame >= b.first_frame for a, b in itertools.pairwise(cuts))
    ]
    assert len(overlapping) >= 4


def test_the_corpus_demo_reports_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_corpus_demo(tmp_path / 'it\'s "here"', config="audio", workers=2)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "another cache")
    rows = run_printed_code(result.lines())["ds"]
    assert isinstance(rows, datasets.Dataset)
    assert len(rows) == 48
    # Whether the site answers; a probe, the index and the audio of each downloaded video; one for
    # 404, three for 403, which is retried.
    assert result.requests == 1 + 16 * 3 + 1 + RUN_TRIES
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in result.clips}) == 4
    assert "    num_rows: 48" in result.lines()  # a line of its own: a terminal shows no others
    assert "16 videos downloaded, 2 unavailable; 48 utterances" in "\n".join(result.lines())
    assert capsys.readouterr().out == ""
    # The site is gone, the store goes on with the media where they lie.
    status = run_inline_json("materialize", "--store", result.status.store)
    assert (status["utterances"], sum(status["videos"].values())) == (48, 18)


def run_printed_code(lines: list[str]) -> dict[str, Any]:
    """Run the code at the end of the demo's lines, as a user who copies it; return its names."""
    start = lines.index("Load it again, without any download:") + 1
    names: dict[str, Any] = {}
    exec(textwrap.dedent("\n".join(lines[start:])), names)
    return names


def test_the_corpus_demo_draws_faces_with_their_boxes(tmp_path: Path) -> None:
    result = run_corpus_demo(tmp_path, config="audio-visual", workers=2)
    text = "\n".join(result.lines())
    assert "num_rows: 36" in text
    assert text.count("the media file has no video stream") == 4
    assert '"audio-visual", data_dir="demo"' in text
    assert result.first_row["video"] == "75 frames of 112 x 112"
    assert result.first_row["boxes"] == "75 x 4"
    assert sorted(path.suffix for path in result.clips) == [".flac"] * 4 + [".mp4"] * 4
    sheet = np.asarray(Image.open(result.plot).convert("RGB"), np.int16)
    # Each of the 24 video frames has a box with four edges in its own red.
    red = np.all(np.abs(sheet - (0xE5, 0x3E, 0x3E)) < 40, axis=2)
    assert red.sum() > 24 * 2 * (80 + 60)


def test_a_contact_sheet_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one utterance, got none"):
        draw_faces(tmp_path / "sheet.png", [])
