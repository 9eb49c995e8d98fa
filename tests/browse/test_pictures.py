"""Pictures are whole SVG of what they are made of, whatever its length."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shard_builder import talk

from voxblink2_lib.browse.pictures import (
    Cut,
    cosine_picture,
    envelope,
    lanes_of,
    sound_picture,
    spectrogram,
    time_line,
    voice_map,
)

SVG = "{http://www.w3.org/2000/svg}"
times = st.integers(0, 50)
cuts = st.lists(st.tuples(times, times), min_size=1, max_size=30).map(
    lambda pairs: [
        Cut(f"{n:05}", min(pair), max(pair) + 0.5, n % 2 == 0) for n, pair in enumerate(pairs)
    ]
)


def parsed(picture: str) -> ElementTree.Element:
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    root = ElementTree.fromstring(picture.replace("<svg", f"<svg {spaces}", 1))
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    return root


@pytest.mark.parametrize("samples", [1, 100, 400, 16_000, 16_000 * 61])
def test_sound_of_any_length(samples: int) -> None:
    root = parsed(sound_picture(talk(samples), start_seconds=12.5))
    assert root.findall(f".//{SVG}image")
    words = " ".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert "kHz" in words
    assert "seconds of the video" in words


def test_the_loudest_frequency_is_that_of_a_tone() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000).astype(np.float32)
    power = spectrogram(tone)
    assert power.shape[0] == 201
    assert set(power.argmax(axis=0).tolist()) == {50}  # of 40 Hz each
    low, high = envelope(tone)
    assert len(low) == len(high) <= 1200
    assert (low.min(), high.max()) == (tone.min(), tone.max())


@given(cuts)
def test_cuts_of_a_lane_do_not_overlap(cuts: list[Cut]) -> None:
    lanes = lanes_of(cuts)
    if max(lanes) < 11:  # else lanes do not suffice
        for lane in set(lanes):
            own = sorted(cut[1:3] for cut, at in zip(cuts, lanes, strict=True) if at == lane)
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(own))


def test_the_time_line_marks_the_chosen_cut() -> None:
    made = [Cut("00001", 0.0, 2.0, True), Cut("00002", 1.0, 3.0, False), Cut("00003", 4, 5, True)]
    root = parsed(time_line(made, "00002"))
    styles = " ".join(path.get("style") or "" for path in root.iter(f"{SVG}path"))
    assert styles.count("fill: #d1495b") == 2  # the cut and its legend
    assert "3 cuts of the video" in (root.get("aria-label") or "")


def test_voices() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(6, 2)).astype(np.float32)
    videos = ["-JUT3czS6OI"] * 3 + ["abcdefghijk"] * 3
    parsed(cosine_picture(np.eye(6, dtype=np.float32), videos))
    root = parsed(voice_map(points, videos, (0.6, 0.3)))
    assert "60 % of the differences" in " ".join(t.text or "" for t in root.iter(f"{SVG}text"))
    parsed(cosine_picture(np.ones((1, 1), np.float32), ["abcdefghijk"]))
