"""Damage to clips and shards is told, with the place of the clip, and never played."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import shard_builder

from voxblink2_lib.errors import ClipDamagedError, StoreDamagedError
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.records import AUDIO_FORMATS, AudioFormat
from voxblink2_lib.training import (
    Corpus,
    Reader,
    ShuffleSampler,
    SpeakerLabels,
    TrainingLoader,
    UtteranceDataset,
)

FRAMES = 200  # eight seconds
SAMPLES = 640 * FRAMES
SHARD = "audio-00000.arrow"
NAME = "id000001/abcdefghijk/00001"


# -- Damage ----------------------------------------------------------------------------------------


def sealed(folder: Path, audio_format: AudioFormat, damage: dict[int, bytes]) -> Reader:
    """Return a reader of one good clip, and one whose bytes at some places are others."""
    good = shard_builder.clip(0, frames=FRAMES, audio_format=audio_format)
    bad = shard_builder.clip(1, frames=FRAMES, audio_format=audio_format)
    folder.mkdir(exist_ok=True)
    shard_builder.seal(folder / SHARD, [good, bad], audio_format=audio_format)
    reader = Reader(Corpus.open(folder))
    place = reader.corpus.place(1)
    for offset, data in damage.items():
        shard_builder.overwrite(folder / SHARD, place.offset + offset % place.size, data)
    return reader


@pytest.mark.parametrize("audio_format", AUDIO_FORMATS)
@pytest.mark.parametrize("damage", [b"\0\0\0\0", b"junk"])
def test_a_damaged_header_is_told(audio_format: AudioFormat, damage: bytes, tmp_path: Path) -> None:
    reader = sealed(tmp_path, audio_format, {0: damage})
    words = rf"Shard {SHARD} row 1 \({NAME}\) cannot be decoded: .+"
    with pytest.raises(ClipDamagedError, match=words):
        reader.read(1, start=100, samples=100)
    assert len(reader.read(0)) == SAMPLES


@pytest.mark.parametrize("audio_format", ["flac", "opus"])
def test_damage_is_never_played(audio_format: AudioFormat, tmp_path: Path) -> None:
    """Checksums of FLAC's frames and Ogg's pages; a crop beside the damage may be right."""
    reader = sealed(tmp_path, audio_format, {})
    whole, place = reader.read(1).numpy(), reader.corpus.place(1)
    original, random = reader.encoded(1), np.random.default_rng(1)
    reported = 0
    for number in range(640):
        offset = int(random.integers(place.size if number % 3 else 100))
        size = min(int(random.choice([1, 1, 4, 600])), place.size - offset)
        flips = np.frombuffer(random.bytes(size), np.uint8) | 1
        was = original[offset : offset + size]
        now = (np.frombuffer(was, np.uint8) ^ flips).tobytes() if number % 4 else bytes(size)
        start = int(random.integers(SAMPLES - 16_000))
        shard_builder.overwrite(tmp_path / SHARD, place.offset + offset, now)
        words, samples = "", None
        try:
            samples = reader.read(1, start=start, samples=16_000).numpy()
        except ClipDamagedError as error:
            words = str(error)
            reported += 1
        if samples is None:
            assert f"Shard {SHARD} row 1 ({NAME}) " in words
        else:
            assert np.array_equal(samples, whole[start : start + 16_000]), (offset, size, start)
        shard_builder.overwrite(tmp_path / SHARD, place.offset + offset, was)
    assert reported > 150
    assert np.array_equal(reader.read(1).numpy(), whole)


@pytest.mark.parametrize("audio_format", ["flac", "opus"])
@pytest.mark.parametrize("zeros", [20, 4_000])
def test_damage_in_the_middle_is_told(
    audio_format: AudioFormat, zeros: int, tmp_path: Path
) -> None:
    size = sealed(tmp_path, audio_format, {}).corpus.place(1).size
    reader = sealed(tmp_path, audio_format, {size // 2: bytes(zeros)})
    for start, samples in [(0, SAMPLES), (SAMPLES // 2 - 8_000, 16_000)]:
        with pytest.raises(ClipDamagedError, match=rf"Shard {SHARD} row 1 \({NAME}\) "):
            reader.read(1, start=start, samples=samples)


def test_wav_has_no_checksum(tmp_path: Path) -> None:
    # The one format of which damage can be played: only the shard's SHA-256 tells it.
    reader = sealed(tmp_path, "wav", {})
    before = reader.read(1).numpy()
    damaged = sealed(tmp_path / "damaged", "wav", {1_000: bytes(200)}).read(1).numpy()
    assert np.flatnonzero(before != damaged).size in range(1, 102)


@pytest.mark.parametrize("audio_format", AUDIO_FORMATS)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.98])
def test_a_clip_cut_short_is_told(audio_format: AudioFormat, kept: float, tmp_path: Path) -> None:
    whole = shard_builder.clip(1, frames=FRAMES, audio_format=audio_format).data
    short = shard_builder.clip(1, frames=FRAMES, data=whole[: int(kept * len(whole))])
    shard_builder.seal(tmp_path / SHARD, [short])
    with pytest.raises(ClipDamagedError, match=rf"Shard {SHARD} row 0 \({NAME}\) "):
        Reader(Corpus.open(tmp_path)).read(0)


def test_another_length_than_was_sealed_is_told(tmp_path: Path) -> None:
    data = encode(shard_builder.talk(SAMPLES - 1), audio_format="flac")
    stereo, fast = io.BytesIO(), io.BytesIO()
    soundfile.write(stereo, np.zeros((SAMPLES, 2)), 16_000, format="WAV")
    soundfile.write(fast, np.zeros(SAMPLES), 44_100, format="FLAC")
    kinds = [data, stereo.getvalue(), fast.getvalue()]
    sound = [
        shard_builder.clip(number, frames=FRAMES, data=data) for number, data in enumerate(kinds)
    ]
    shard_builder.seal(tmp_path / SHARD, sound)
    reader = Reader(Corpus.open(tmp_path))
    expected = rf"sealed were {SAMPLES} at 16000 Hz in one"
    for row, has in enumerate(
        [f"{SAMPLES - 1} samples at 16000 Hz in 1", f"{SAMPLES} samples at 16000 Hz in 2"]
    ):
        words = rf"Shard {SHARD} row {row} \(\S+\) has {has} channels; {expected}"
        with pytest.raises(ClipDamagedError, match=words):
            reader.read(row, samples=10)
    with pytest.raises(ClipDamagedError, match=rf"row 2 .*at 44100 Hz in 1 .*{expected}"):
        reader.read(2, samples=10)


def test_a_shard_cut_short_after_it_was_opened(tmp_path: Path) -> None:
    reader = sealed(tmp_path, "flac", {})
    place = reader.corpus.place(1)
    data = (tmp_path / SHARD).read_bytes()
    (tmp_path / SHARD).write_bytes(data[: place.offset + place.size - 1])
    words = rf"The shard .*/{SHARD} ends before byte {place.offset + place.size:,}\."
    with pytest.raises(StoreDamagedError, match=words):
        reader.read(1)
    assert len(reader.read(0)) == SAMPLES


@pytest.mark.parametrize("is_there", [True, False])
def test_a_shard_that_is_gone_or_empty(is_there: bool, tmp_path: Path) -> None:
    reader = sealed(tmp_path, "flac", {})
    (tmp_path / SHARD).unlink()
    if is_there:
        (tmp_path / SHARD).touch()
    problem = "cannot be opened: .+" if is_there else r"is missing\. .* open it again"
    with pytest.raises(StoreDamagedError, match=rf"The shard .*/{SHARD} {problem}"):
        reader.read(1)


# -- Damage in batches -----------------------------------------------------------------------------


def damaged_corpus(folder: Path, damaged: Sequence[int]) -> Corpus:
    """Twelve short clips in two shards, some of them damaged."""
    for shard in (0, 1):
        rows = range(6 * shard, 6 * shard + 6)
        sound = [
            shard_builder.clip(row, audio_format="flac", speaker=f"id{row:06}") for row in rows
        ]
        bad = [shard_builder.clip(row, data=b"junk", speaker=f"id{row:06}") for row in rows]
        chosen = [bad[row % 6] if row in damaged else sound[row % 6] for row in rows]
        shard_builder.seal(folder / f"{shard}.arrow", chosen)
    return Corpus.open(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_clips_are_skipped_and_told(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = damaged_corpus(tmp_path, [2, 7, 8])
    dataset = UtteranceDataset(corpus, crop_seconds=0.5, on_damaged="skip")
    loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=6), num_workers=workers)
    with caplog.at_level(logging.WARNING):
        batches = list(loader)
    rows = [row for batch in batches for row in batch["rows"].tolist()]
    assert sorted(rows) == [0, 1, 3, 4, 5, 6, 9, 10, 11]
    assert sorted(clip.row for clip in loader.damaged) == [2, 7, 8]
    assert all("damaged" not in batch for batch in batches)
    for batch in batches:
        assert len(batch["waveforms"]) == len(batch["labels"]) == len(batch["lengths"])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for count, (message, clip) in enumerate(zip(messages, loader.damaged, strict=True), start=1):
        where = f"Shard {clip.row // 6}.arrow row {clip.row % 6} (id{clip.row:06}/"
        assert message.startswith(f"Skipped, {count} so far: {where}")
        assert "cannot be decoded" in message


# PyTorch waits five seconds for each worker of a loader that goes after one of them raised.
@pytest.mark.parametrize("workers", [0, 1])
def test_damage_raises_by_default(workers: int, tmp_path: Path) -> None:
    corpus = damaged_corpus(tmp_path, [8])
    sampler = ShuffleSampler(corpus, batch_size=6)
    loader = TrainingLoader(UtteranceDataset(corpus), sampler, num_workers=workers)
    words = r"Shard 1\.arrow row 2 \(id000008/abcdefghijk/00008\) cannot be decoded"
    with pytest.raises(ClipDamagedError, match=words):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_damaged_clips_only_raises(workers: int, tmp_path: Path) -> None:
    corpus = damaged_corpus(tmp_path, range(12)).select(range(6))
    labels = SpeakerLabels.of(corpus)
    dataset = UtteranceDataset(corpus, labels=labels, on_damaged="skip")
    loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=6), num_workers=workers)
    words = r"None of the 6 clips of a batch can be decoded\. Shard 0\.arrow row \d \(id"
    with pytest.raises(ClipDamagedError, match=words):
        list(loader)
