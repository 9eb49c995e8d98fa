"""Samples of any place of any clip, from few open files, in any process."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import cli_process, shard_builder

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.records import AUDIO_FORMATS
from voxblink2_lib.training import (
    Corpus,
    Reader,
)

FRAMES = 200  # eight seconds
SAMPLES = 640 * FRAMES
SHARD = "audio-00000.arrow"
NAME = "id000001/abcdefghijk/00001"


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """A reader of two clips for each format."""
    opened = {}
    for audio_format in AUDIO_FORMATS:
        folder = tmp_path_factory.mktemp(audio_format)
        sound = [
            shard_builder.clip(number, frames=FRAMES, audio_format=audio_format)  # type: ignore[arg-type]
            for number in (0, 1)
        ]
        shard_builder.seal(folder / SHARD, sound)
        opened[audio_format] = Reader(Corpus.open(folder))
    return opened


@functools.cache
def _decoded(data: bytes) -> shard_builder.Array:
    return np.asarray(soundfile.read(io.BytesIO(data), dtype="float32")[0])


# -- Crops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("audio_format", AUDIO_FORMATS)
def test_a_crop_is_the_slice_of_the_whole(audio_format: str, readers: dict[str, Reader]) -> None:
    # Of Opus, too, to the bit: libsndfile decodes from far enough before the place.
    reader = readers[audio_format]

    @given(row=st.integers(0, 1), ends=st.tuples(*[st.integers(0, SAMPLES)] * 2))
    def holds(row: int, ends: tuple[int, int]) -> None:
        first, last = sorted(ends)
        crop = reader.read(row, start=first, samples=last - first).numpy()
        assert crop.dtype == np.float32
        expected = _decoded(reader.encoded(row))[first:last]
        assert np.array_equal(crop, expected)

    holds()


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_what_is_read_is_what_was_sealed(audio_format: str, readers: dict[str, Reader]) -> None:
    for row in (0, 1):
        sealed = shard_builder.talk(SAMPLES, seed=row)
        samples = readers[audio_format].read(row).numpy()
        assert np.abs(samples - sealed).max() <= 0.5 / 32768 + 1e-7


def test_opus_is_not_shifted(readers: dict[str, Reader]) -> None:
    sealed, decoded = shard_builder.talk(SAMPLES, seed=0), readers["opus"].read(0).numpy()
    right = np.corrcoef(sealed, decoded)[0, 1]
    assert right > 0.99
    for shift in (1, 2, 8):
        assert np.corrcoef(sealed[shift:], decoded[:-shift])[0, 1] < right
        assert np.corrcoef(sealed[:-shift], decoded[shift:])[0, 1] < right


@pytest.mark.parametrize("kind", ["noise", "bursts", "clicks", "chords"])
def test_opus_crops_of_other_sounds(kind: str, tmp_path: Path) -> None:
    random, seconds = np.random.default_rng(4), np.arange(SAMPLES) / shard_builder.RATE
    sound = {
        "noise": 0.3 * random.standard_normal(SAMPLES),
        "bursts": 0.3 * random.standard_normal(SAMPLES) * (np.sin(12 * seconds) > 0.5),
        "clicks": 0.9 * (random.random(SAMPLES) < 1e-3),
        "chords": sum(0.2 * np.sin(6.28 * pitch * seconds) for pitch in (220, 277, 330, 3333)),
    }[kind]
    data = encode(np.asarray(sound, np.float32), audio_format="opus")
    shard_builder.seal(tmp_path / SHARD, [shard_builder.clip(1, frames=FRAMES, data=data)])
    reader, whole = Reader(Corpus.open(tmp_path)), _decoded(data)
    differences = [
        np.abs(reader.read(0, start=start, samples=4_000).numpy() - whole[start : start + 4_000])
        for start in random.integers(1, SAMPLES - 4_000, 60).tolist()
    ]
    assert np.max(differences) < 1e-6
    assert whole.any()


def test_an_end_is_read_to_by_default(readers: dict[str, Reader]) -> None:
    reader = readers["flac"]
    whole = reader.read(1)
    assert whole.shape == (SAMPLES,)
    assert np.array_equal(reader.read(1, start=SAMPLES - 5).numpy(), whole[-5:].numpy())
    assert reader.read(1, start=SAMPLES).shape == (0,)


@pytest.mark.parametrize(
    ("start", "samples"), [(-1, 5), (0, SAMPLES + 1), (SAMPLES, 1), (5, -1), (SAMPLES + 1, None)]
)
def test_samples_that_are_not_there(
    start: int, samples: int | None, readers: dict[str, Reader]
) -> None:
    words = rf"Samples {start} to -?\d+ of Shard {SHARD} row 1 \({NAME}\) .*; it has {SAMPLES}\."
    with pytest.raises(TrainingError, match=words):
        readers["wav"].read(1, start=start, samples=samples)


def test_samples_are_written_where_they_are_wanted(readers: dict[str, Reader]) -> None:
    batch = torch.full((3, 500), torch.nan)
    for row, reader in zip(batch, readers.values(), strict=True):
        returned = reader.read(1, start=70, samples=500, out=row)
        assert returned.data_ptr() == row.data_ptr()
        assert torch.equal(row, reader.read(1, start=70, samples=500))


@pytest.mark.parametrize(
    ("out", "form"),
    [
        (torch.empty(9), r"torch\.float32 of shape \(9,\)"),
        (torch.empty(10, dtype=torch.float64), r"torch\.float64 of shape \(10,\)"),
        (torch.empty(1, 10), r"torch\.float32 of shape \(1, 10\)"),
        (torch.empty(20)[::2], r"torch\.float32 of shape \(10,\)"),
    ],
    ids=["length", "type", "dimensions", "gaps"],
)
def test_a_tensor_of_another_form_is_refused(
    out: torch.Tensor, form: str, readers: dict[str, Reader]
) -> None:
    words = rf"out is {form}; expected is contiguous torch\.float32 of shape \(10,\)\."
    with pytest.raises(TrainingError, match=words):
        readers["wav"].read(1, samples=10, out=out)


# -- Ten thousand reads ----------------------------------------------------------------------------

MANY = 80


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for shard in range(MANY):
        numbers = range(3 * shard, 3 * shard + 3)
        shard_builder.seal(
            folder / f"{shard:03}.arrow",
            [shard_builder.clip(number, frames=8) for number in numbers],
        )
    return folder


def read_much(folder: str) -> None:
    """Read at random places; print what is open and how much memory is used. Its own process."""
    reader, random = Reader(Corpus.open(folder)), np.random.default_rng(0)
    before, most = shard_builder.open_files(), 0
    memory = []
    for number in range(1, 10_001):
        start = int(random.integers(5_120 - 1_600))
        reader.read(int(random.integers(3 * MANY)), start=start, samples=1_600)
        if number % 100 == 0:
            most = max(most, shard_builder.open_files() - before)
        if number in (2_000, 10_000):
            memory.append({what: shard_builder.kibibytes(what) for what in ("RssAnon", "VmRSS")})
    print(json.dumps({"files": most, "kibibytes": memory}))  # noqa: T201


def test_ten_thousand_reads_keep_files_and_memory_flat(many_shards: Path) -> None:
    code = f"import test_reader as t; t.read_much({str(many_shards)!r})"
    environment = {
        **cli_process.environment(),
        "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2])),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    # There are more shards than may be open: 64.
    assert 60 < report["files"] <= 64
    early, late = report["kibibytes"]
    # Pages of the shards themselves belong to the system's cache, and count in VmRSS only.
    assert late["RssAnon"] - early["RssAnon"] < 2_048, report
    assert late["VmRSS"] - early["VmRSS"] < 4_096, report


def test_a_shard_that_was_closed_is_opened_again(many_shards: Path) -> None:
    reader, before = Reader(Corpus.open(many_shards)), shard_builder.open_files()
    first = reader.read(0)
    for row in range(3 * MANY):
        reader.read(row, samples=10)
    assert shard_builder.open_files() - before == 64
    assert np.array_equal(reader.read(0).numpy(), first.numpy())
    assert shard_builder.open_files() - before == 64


# -- Processes -------------------------------------------------------------------------------------


def _sums(reader: Reader) -> list[float]:
    return [float(reader.read(row, start=17, samples=99).sum()) for row in range(9)]


def _read(reader: Reader, answers: multiprocessing.Queue[list[float]]) -> None:
    answers.put(_sums(reader))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_reader_works_in_another_process(method: str, many_shards: Path) -> None:
    reader = Reader(Corpus.open(many_shards))
    expected = _sums(reader)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_read, args=(reader, answers))  # type: ignore[attr-defined]
    process.start()
    assert answers.get(timeout=cli_process.DEADLINE_SECONDS) == expected
    process.join(cli_process.DEADLINE_SECONDS)
    assert process.exitcode == 0
    assert _sums(reader) == expected


def test_a_pickled_reader_holds_no_files(many_shards: Path) -> None:
    reader = Reader(Corpus.open(many_shards))
    expected = reader.read(5)
    before = shard_builder.open_files()
    again = pickle.loads(pickle.dumps(reader))
    assert shard_builder.open_files() == before
    assert np.array_equal(again.read(5).numpy(), expected.numpy())
