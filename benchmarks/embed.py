"""Measure embedding against a loop over single utterances in float32, on the same processor.

Both are whole programs that read files and write embeddings. Their time for two utterances, which
is start-up and loading the model, is subtracted and reported separately. They run in turns, and are
reported as ratios: the median of the rounds, with minimum and maximum. Then the throughput of the
network is compared with that of a single convolution. If there is a CUDA device, ResNet293 in
bfloat16 is measured on it. A benchmark is evidence, not a gate: it exits with 0 whether or not the
targets are met.

Example:
    python benchmarks/embed.py
    python benchmarks/embed.py --quick
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from figures import Figure, figure, run_benchmark, seconds_of
from inputs import speech_like
from torch.utils.flop_counter import FlopCounterMode

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.embedding.block_worker import Dtype
from voxblink2_lib.models import RELEASED, SpeakerFeatureExtractor
from voxblink2_lib.models.architectures import KINDS
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.scoring import read_embeddings


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    utterances: dict[str, int]  # by model: so many that they take about half a minute


FULL = Size(3, {"resnet34": 60, "ecapa_tdnn": 200})
QUICK = Size(1, {"ecapa_tdnn": 24})
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
# A batch of an accelerator: 50 utterances of 6 s.
BATCH, BATCH_SECONDS = 50, 6


def save_model(folder: Path, arch: str) -> Path:
    """Save a released architecture with random weights, which do not change the time."""
    released = RELEASED[arch]
    torch.manual_seed(1)
    model = KINDS[type(released.config)](released.config)
    model.save_pretrained(folder / arch)
    SpeakerFeatureExtractor(normalization=released.normalization).save_pretrained(folder / arch)
    return folder / arch


def make_audio(folder: Path, utterances: int) -> Path:
    """Write FLAC files of 2 to 10 s and their list."""
    folder.mkdir()
    generator = np.random.default_rng(1)
    voice = speech_like(rate_hz=SAMPLE_RATE_HZ, seed=1)
    lines = []
    for index in range(utterances):
        seconds = generator.uniform(2, 10)
        first = int(generator.uniform(0, len(voice) - 10 * SAMPLE_RATE_HZ))
        cut = voice[first : first + int(seconds * SAMPLE_RATE_HZ)]
        soundfile.write(folder / f"{index:05}.flac", cut, SAMPLE_RATE_HZ)
        lines.append(f"{index:05} {folder / f'{index:05}.flac'}\n")
    (folder / "wav.scp").write_text("".join(lines), encoding="utf-8")
    return folder / "wav.scp"


# A plain loop that uses this package's models, but none of its commands.
LOOP = """
import sys
import numpy as np
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector
import voxblink2_lib.models
model, wav_scp, out = sys.argv[1:]
extractor = AutoFeatureExtractor.from_pretrained(model)
network = AutoModelForAudioXVector.from_pretrained(model).eval()
vectors = []
with torch.inference_mode():
    for line in open(wav_scp):
        waveform, rate = soundfile.read(line.split()[1], dtype="float32")
        vectors.append(network(**extractor(waveform, sampling_rate=rate)).embeddings[0].numpy())
np.save(out, np.stack(vectors))
"""


def loop(model: Path, wav_scp: Path) -> list[str]:
    return [
        sys.executable,
        "-c",
        LOOP,
        str(model),
        str(wav_scp),
        str(wav_scp.with_name("loop.npy")),
    ]


def ours(model: Path, wav_scp: Path, dtype: str) -> list[str]:
    out = wav_scp.with_name(f"{dtype}.parquet")
    out.unlink(missing_ok=True)
    options = ("--model", model, "--wav-scp", wav_scp, "--out", out, "--dtype", dtype)
    return [sys.executable, "-m", "voxblink2_lib.cli", "embed", *map(str, options)]


def run(command: list[str]) -> tuple[float, float]:
    """Return the seconds of a program, and the peak memory in MB of its largest process."""
    peaks: list[float] = []

    def wait() -> None:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        peaks.append((used.ru_maxrss << 10) / 1e6)

    return seconds_of(wait), peaks[0]


def cosine(folder: Path, dtype: str) -> float:
    """Return the minimum cosine between our embedding of an utterance and the loop's."""
    mine = read_embeddings(folder / f"{dtype}.parquet").vectors
    theirs = np.load(folder / "loop.npy")
    both = np.einsum("nd,nd->n", mine, theirs)
    return float((both / np.linalg.norm(mine, axis=1) / np.linalg.norm(theirs, axis=1)).min())


def programs(folder: Path, size: Size) -> Iterator[Figure]:
    """Compare whole programs, minus their time for two utterances."""
    for arch, utterances in size.utterances.items():
        few = make_audio(folder / f"{arch}-few", 2)
        many = make_audio(folder / f"{arch}-many", utterances)
        hours = _hours(many) - _hours(few)
        model = save_model(folder, arch)
        commands: dict[str, Callable[[Path], list[str]]] = {"loop": partial(loop, model)}
        commands |= {dtype: partial(ours, model, dtype=dtype) for dtype in DTYPES}
        starts: dict[str, list[float]] = {name: [] for name in commands}
        rates: dict[str, list[float]] = {name: [] for name in commands}
        peaks: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(size.rounds):
            for name, command in commands.items():
                start, _ = run(command(few))
                seconds, peak = run(command(many))
                starts[name].append(start)
                rates[name].append(3600 * hours / (seconds - start))
                peaks[name].append(peak)
        for name in commands:
            title = f"{arch}, {name}"
            if name != "loop":
                ratios = [
                    mine / loop for mine, loop in zip(rates[name], rates["loop"], strict=True)
                ]
                target = 1.0 if name == "float32" else 1.7
                yield figure(f"{title}: speed / loop in float32", ratios, at_least=target)
                minimum = cosine(many.parent, name)
                yield figure(f"{title}: minimum cosine to the loop", [minimum], at_least=0.9995)
            yield figure(f"{title}: hours of speech per hour", rates[name], unit="h")
            yield figure(f"{title}: two utterances", starts[name], unit="s")
            yield figure(f"{title}: peak memory of a process", peaks[name], unit="MB")


def _hours(wav_scp: Path) -> float:
    seconds = (soundfile.info(path).duration for path in wav_scp.parent.glob("*.flac"))
    return float(sum(seconds)) / 3600


def network_alone(arch: str, dtype: torch.dtype, device: str, batch: int) -> Iterator[Figure]:
    """Compare the throughput of a network with that of its fastest convolution."""
    released = RELEASED[arch]
    network: Any = KINDS[type(released.config)](released.config)
    network = network.eval().to(device, dtype, memory_format=torch.channels_last)
    features = torch.randn(batch, BATCH_SECONDS * 100, 80, device=device, dtype=dtype)
    with torch.inference_mode():
        counter = FlopCounterMode(display=False)
        with counter:
            network(features)
        seconds = _seconds(lambda: network(features), device)
        alone = max(_convolution_rate((batch, *shape), dtype, device) for shape in _STAGES)
    rate = counter.get_total_flops() / seconds
    name = f"{arch}, {str(dtype).removeprefix('torch.')}, network alone on {device}"
    speech = batch * BATCH_SECONDS / 3600 / seconds
    yield figure(f"{name}: hours of speech per second", [speech], unit="h")
    yield figure(f"{name}: share of the bare convolution", [rate / alone])


# Channels, bands and frames (of 6 s) of the four stages.
_STAGES = ((64, 80, 600), (128, 40, 300), (256, 20, 150), (512, 10, 75))


def _convolution_rate(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> float:
    """Return the operations per second of a 3x3 convolution of (batch, channels, bands, frames)."""
    batch, channels, bands, frames = shape
    layer: Any = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    layer = layer.to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    operations = 2 * 9 * channels**2 * bands * frames * batch
    return operations / _seconds(lambda: layer(x), device)


def _seconds(work: Callable[[], object], device: str) -> float:
    """Return the seconds of one call: the best of five, after a warm-up."""

    def waited() -> None:
        work()
        if device != "cpu":
            torch.cuda.synchronize()

    waited()
    return min(seconds_of(waited) for _ in range(5))


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    yield from programs(folder, size)
    torch.set_num_threads(usable_cores())
    for dtype in (torch.float32, torch.bfloat16):
        if "resnet34" in size.utterances:
            yield from network_alone("resnet34", dtype, "cpu", 1)
    if torch.cuda.is_available():
        yield from network_alone("resnet293", torch.bfloat16, "cuda", BATCH)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
