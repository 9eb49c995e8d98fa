"""Measure random 2 s crops from 6 s utterances, as batches that reach a training loop.

The methods run in turns, each with two decoding processes: ours, of FLAC and of WAV; ours as it was
before it decoded by frames, with soundfile; datasets, which decodes whole utterances; WebDataset
tars of the same FLAC bytes, decoded whole with soundfile, and only the crop; MosaicML streaming and
LitData with crops by soundfile, where they are installed (mosaicml-streaming, litdata); and a loop
that only decodes such crops from memory, with our decoder. Then the time to the first batch of a
store of 2,000 shards with as many utterances as the corpus has. A benchmark is evidence, not a
gate: it exits with 0 whether or not the targets are met.

Example:
    python benchmarks/read.py
    python benchmarks/read.py --quick
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import soundfile
import torch
import webdataset
from figures import Figure, figure, run_benchmark, seconds_of
from inputs import speech_like

from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.training import (
    Corpus,
    Reader,
    ShuffleSampler,
    TrainingLoader,
    UtteranceDataset,
)
from voxblink2_lib.training.flac_frames import decode_crop

SECONDS, CROP_SECONDS = 6, 2.0
LENGTH, CROP = SECONDS * SAMPLE_RATE_HZ, int(CROP_SECONDS * SAMPLE_RATE_HZ)
BATCH, WORKERS = 64, 2
ROWS_PER_SHARD = 256
CLIPS: list[bytes] = []  # inherited by processes that decode from memory


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    shards: int  # of 6 s utterances
    many_rows: int  # of each of the 2,000 shards


FULL = Size(7, 16, 4_952)  # 9.9 million utterances
QUICK = Size(1, 2, 64)
MANY_SHARDS = 2_000


def make_shard(path: Path, clips: list[bytes], *, first: int, seconds: float) -> None:
    """Write a shard as the package seals them; ids are derived from the row index."""
    schema = arrow_schema("audio")
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(clips), ROWS_PER_SHARD):
            batch = clips[start : start + ROWS_PER_SHARD]
            rows = range(first + start, first + start + len(batch))
            columns: dict[str, Any] = {
                "audio": [
                    {"bytes": clip, "path": f"{row}.flac"}
                    for clip, row in zip(batch, rows, strict=True)
                ],
                "speaker_id": [f"id{row // 89:06}" for row in rows],
                "video_id": [f"video{row // 7:06}" for row in rows],
                "utterance_id": [f"{row % 7:05}" for row in rows],
                "start_seconds": [0.0] * len(batch),
                "end_seconds": [seconds] * len(batch),
                "source": ["synthetic"] * len(batch),
            }
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def encoded(samples: npt.NDArray[np.float64], kind: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format=kind, subtype="PCM_16")
    return file.getvalue()


def as_wav(clip: bytes) -> bytes:
    return encoded(soundfile.read(io.BytesIO(clip))[0], "WAV")


def make_inputs(folder: Path, shards: int) -> list[bytes]:
    """Write the same clips as shards, of FLAC and of WAV, and as tars; return them all."""
    voices = [speech_like(rate_hz=SAMPLE_RATE_HZ, seed=seed) for seed in range(3)]
    generator = np.random.default_rng(1)
    everything: list[bytes] = []
    for number in range(shards):
        clips = []
        for _ in range(ROWS_PER_SHARD):
            voice = voices[generator.integers(len(voices))]
            first = int(generator.integers(len(voice) - LENGTH))
            noise = 0.003 * generator.standard_normal(LENGTH)
            clips.append(encoded(voice[first : first + LENGTH] + noise))
        name = f"audio-{number:05}"
        path = folder / "store" / "shards" / "audio" / f"{name}.arrow"
        make_shard(path, clips, first=number * ROWS_PER_SHARD, seconds=SECONDS)
        path = folder / "wav" / "shards" / "audio" / f"{name}.arrow"
        wavs = [as_wav(clip) for clip in clips]
        make_shard(path, wavs, first=number * ROWS_PER_SHARD, seconds=SECONDS)
        (folder / "tars").mkdir(exist_ok=True)
        with tarfile.open(folder / "tars" / f"{name}.tar", "w") as tar:
            for row, clip in enumerate(clips):
                about = tarfile.TarInfo(f"{number:05}{row:05}.flac")
                about.size = len(clip)
                tar.addfile(about, io.BytesIO(clip))
        everything += clips
    return everything


# -- The methods -----------------------------------------------------------------------------------


def ours(folder: Path, store: str = "store", kind: type = UtteranceDataset) -> Iterator[Any]:
    corpus = Corpus.open(folder / store)
    dataset = kind(corpus, crop_seconds=CROP_SECONDS)
    sampler = ShuffleSampler(corpus, batch_size=BATCH, seed=1, drop_last=True)
    for batch in TrainingLoader(dataset, sampler, num_workers=WORKERS):
        yield batch["waveforms"]


def our_wav(folder: Path) -> Iterator[Any]:
    return ours(folder, "wav")


class _SeekingClip(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    def seekable(self) -> bool:
        return False


class _SeekingReader(Reader):
    """Opens each clip with soundfile, seeks, and reads, as the package did."""

    def read(
        self,
        row: int,
        *,
        start: int = 0,
        samples: int | None = None,
        out: torch.Tensor | None = None,  # noqa: ARG002  # a new tensor each time, as it was
    ) -> torch.Tensor:
        with _SeekingClip(io.BytesIO(self.encoded(row))) as file:
            file.seek(start)
            return torch.from_numpy(file.read(samples, dtype="float32"))


class BySeeking(UtteranceDataset):
    """Examples one by one, which are stacked later."""

    def __init__(self, corpus: Corpus, *, crop_seconds: float) -> None:
        super().__init__(corpus, crop_seconds=crop_seconds)
        self._reader = _SeekingReader(corpus)

    def __getitem__(self, row: int) -> Any:
        return super().__getitem__(row)


def by_seeking(folder: Path) -> Iterator[Any]:
    return ours(folder, kind=BySeeking)


def cropped(waveform: torch.Tensor) -> torch.Tensor:
    first = int(np.random.randint(len(waveform) - CROP + 1))
    return waveform[first : first + CROP]


class WholeByDatasets(torch.utils.data.Dataset[torch.Tensor]):
    """The usual code with `datasets`: its decoded audio, then a crop."""

    def __init__(self, folder: Path) -> None:
        files = [str(path) for path in sorted(folder.glob("store/shards/audio/*.arrow"))]
        parts = [datasets.Dataset.from_file(file) for file in files]
        self._rows = datasets.concatenate_datasets(parts)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> torch.Tensor:
        return cropped(self._rows[row]["audio"].get_all_samples().data[0])


def by_datasets(folder: Path) -> Iterator[Any]:
    rows = WholeByDatasets(folder)
    yield from torch.utils.data.DataLoader(
        rows, batch_size=BATCH, shuffle=True, num_workers=WORKERS, drop_last=True
    )


def whole(sample: dict[str, Any]) -> torch.Tensor:
    return cropped(torch.from_numpy(soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")[0]))


def crop_alone(clip: bytes) -> npt.NDArray[np.float32]:
    with soundfile.SoundFile(io.BytesIO(clip)) as file:
        file.seek(int(np.random.randint(LENGTH - CROP + 1)))
        return np.asarray(file.read(CROP, dtype="float32"))


def part(sample: dict[str, Any]) -> torch.Tensor:
    return torch.from_numpy(crop_alone(sample["flac"]))


def by_webdataset(decode: Callable[[dict[str, Any]], torch.Tensor]) -> Any:
    def run(folder: Path) -> Iterator[Any]:
        tars = [str(path) for path in sorted(folder.glob("tars/*.tar"))]
        samples = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False)
        batches = samples.shuffle(1000).map(decode).batched(BATCH, collation_fn=torch.stack)
        yield from torch.utils.data.DataLoader(batches, batch_size=None, num_workers=WORKERS)

    return run


def by_mosaic(folder: Path) -> Iterator[Any]:
    streaming = importlib.import_module("streaming")
    local = folder / "mosaic"
    if not local.exists():
        with streaming.MDSWriter(out=str(local), columns={"flac": "bytes"}) as writer:
            for clip in CLIPS:
                writer.write({"flac": clip})

    class Crops(streaming.StreamingDataset):  # type: ignore[misc,name-defined]  # where installed
        def __getitem__(self, row: Any) -> torch.Tensor:
            return part(super().__getitem__(row))

    rows = Crops(local=str(local), shuffle=True, batch_size=BATCH)
    yield from torch.utils.data.DataLoader(
        rows, batch_size=BATCH, num_workers=WORKERS, drop_last=True
    )


def clip_of(row: int) -> dict[str, bytes]:
    return {"flac": CLIPS[row]}


def by_litdata(folder: Path) -> Iterator[Any]:
    litdata = importlib.import_module("litdata")
    local = folder / "litdata"
    if not local.exists():
        rows = list(range(len(CLIPS)))
        options = {"chunk_bytes": "64MB", "num_workers": 1, "start_method": "fork"}
        litdata.optimize(fn=clip_of, inputs=rows, output_dir=str(local), **options)

    class Crops(litdata.StreamingDataset):  # type: ignore[misc,name-defined]  # where installed
        def __getitem__(self, row: Any) -> torch.Tensor:
            return part(super().__getitem__(row))

    crops = Crops(str(local), shuffle=True, drop_last=True)
    yield from litdata.StreamingDataLoader(crops, batch_size=BATCH, num_workers=WORKERS)


def rate_of(method: Callable[[Path], Iterable[Any]], folder: Path) -> float:
    """Return crops per second, from the first batch to the last: while workers are running.

    The loop over memory has neither their start nor their end in it.
    """
    batches = iter(method(folder))
    assert next(batches).shape[1] == CROP
    start, count, seconds = time.perf_counter(), 0, 0.0
    for batch in batches:
        count += len(batch)
        seconds = time.perf_counter() - start
    return count / seconds


def crop_by_frames(clip: bytes) -> None:
    start, into = int(np.random.randint(LENGTH - CROP + 1)), np.empty(CROP, np.float32)
    assert decode_crop(clip, range(len(clip)), length=LENGTH, start=start, into=into)


def decode_all(part: int) -> float:
    np.random.seed(os.getpid())
    rows = np.random.permutation(len(CLIPS))[part::WORKERS]
    return seconds_of(lambda: deque(map(crop_by_frames, (CLIPS[row] for row in rows)), maxlen=0))


def rate_from_memory() -> float:
    """Return crops per second of two processes that only decode, and store nothing."""
    with get_context("fork").Pool(WORKERS) as pool:
        return len(CLIPS) / max(pool.map(decode_all, range(WORKERS), chunksize=1))


# -- Many shards -----------------------------------------------------------------------------------

FIRST_BATCH = """
import sys, time, json
started = time.perf_counter()
from voxblink2_lib.training import Corpus, ShuffleSampler, TrainingLoader, UtteranceDataset
imported = time.perf_counter()
corpus = Corpus.open(sys.argv[1])
dataset = UtteranceDataset(corpus, crop_seconds=2.0)
sampler = ShuffleSampler(corpus, batch_size=64, seed=1)
batch = next(iter(TrainingLoader(dataset, sampler, num_workers=2)))
assert batch["waveforms"].shape == (64, 32000)
print(json.dumps([imported - started, time.perf_counter() - imported]))
"""


def make_many(folder: Path, rows: int) -> None:
    """Write 2,000 shards of tiny clips: their duration does not matter here."""
    clips = [encoded(0.1 * np.random.default_rng(1).standard_normal(640))] * rows
    for number in range(MANY_SHARDS):
        path = folder / "shards" / "audio" / f"audio-{number:05}.arrow"
        make_shard(path, clips, first=number * rows, seconds=640 / SAMPLE_RATE_HZ)


def first_batch(store: Path) -> tuple[float, float]:
    """Return the seconds to import, and from there to the first batch, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_BATCH, str(store)], check=True, stdout=subprocess.PIPE
    )
    imports, batch = json.loads(done.stdout)
    return imports, batch


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    CLIPS[:] = make_inputs(folder, size.shards)
    methods: dict[str, Callable[[], float]] = {
        "datasets": lambda: rate_of(by_datasets, folder),
        "WebDataset, whole": lambda: rate_of(by_webdataset(whole), folder),
        "by seeking": lambda: rate_of(by_seeking, folder),
        "ours": lambda: rate_of(ours, folder),
        # Next to ours, where a few per cent matter: the machine's speed drifts.
        "memory": rate_from_memory,
        "WAV": lambda: rate_of(our_wav, folder),
        "WebDataset, crops": lambda: rate_of(by_webdataset(part), folder),
    }
    others = {"streaming": ("MosaicML", by_mosaic), "litdata": ("LitData", by_litdata)}
    for module, (name, method) in others.items():
        if importlib.util.find_spec(module):
            methods[name] = functools.partial(rate_of, method, folder)
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(size.rounds):
        for name, rate in methods.items():
            rates[name].append(rate())

    def ratio(name: str, target: float, mine: str = "ours") -> Iterator[Figure]:
        if name in rates:
            values = [our / other for our, other in zip(rates[mine], rates[name], strict=True)]
            yield figure(f"{mine} / {name}", values, at_least=target)

    yield figure("2 s crops per second: ours", rates["ours"], unit="")
    yield from ratio("datasets", 3.4)
    yield from ratio("WebDataset, whole", 1.7)
    yield from ratio("WebDataset, crops", 1.7)
    yield from ratio("by seeking", 1.45)
    yield from ratio("MosaicML", 1.45)
    yield from ratio("LitData", 1.45)
    yield from ratio("memory", 0.85)
    yield from ratio("MosaicML", 4, mine="WAV")
    store = folder / "many"
    make_many(store, size.many_rows)
    total = MANY_SHARDS * size.many_rows
    imports, first = first_batch(store)
    yield figure(f"2,000 shards, {total:,} rows: first batch ever", [first], unit="s")
    again = [first_batch(store) for _ in range(size.rounds)]
    yield figure("the same, catalogue exists", [batch for _, batch in again], unit="s", at_most=1.5)
    yield figure("imports before", [imports, *(seconds for seconds, _ in again)], unit="s")


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
