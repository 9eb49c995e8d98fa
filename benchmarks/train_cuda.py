"""Measure training steps on a GPU: where features are made, and in which precision.

ResNet34 with a margin head of 20,000 classes takes batches of 256 crops of 2 s from memory.
Features are made by the processor in this process, as one worker of a loader does, or on the
device. Before, how far the gradient of the embeddings is off with autocast in the head, and now;
and how far features on the device are off.

It needs no store, and of packages torch, transformers, numpy, soundfile, soxr and pyarrow.

Example:
    python benchmarks/train_cuda.py
    python benchmarks/train_cuda.py --device cpu --quick
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.models.device_features import DeviceFeatures
from voxblink2_lib.models.margin_head import MarginHead
from voxblink2_lib.recipes.device_inputs import DeviceInputs
from voxblink2_lib.recipes.training import FeatureCollate, make_model
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training import Example

CROP_SECONDS = 2
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Size(NamedTuple):
    """How much is measured."""

    arch: str
    classes: int
    batch: int
    warm_up: int
    steps: int
    rounds: int


FULL = Size("resnet34", 20_000, 256, 5, 10, 3)
QUICK = Size("small", 50, 8, 1, 2, 1)


class Bench:
    """A model with its batches in memory, and a step of training in some precision."""

    def __init__(self, device: torch.device, size: Size) -> None:
        self.device, self.size = device, size
        network = make_model(size.arch, classes=size.classes, seed=1)
        model: Any = network.model  # the types of transformers refuse a device
        self.model, self.extractor = model.to(device).train(), network.extractor
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.inputs = DeviceInputs(self.extractor).to(device)
        generator = torch.Generator().manual_seed(1)
        noise = 0.1 * torch.randn(size.batch, CROP_SECONDS * SAMPLE_RATE_HZ, generator=generator)
        self.examples = [Example(wave, row % size.classes, row) for row, wave in enumerate(noise)]
        self.on_device = FeatureCollate(self.extractor, on_device=True)
        self.on_processor = FeatureCollate(self.extractor)

    def moved(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a batch on the device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def step(self, inputs: dict[str, Tensor], dtype: torch.dtype | None) -> None:
        """Train once."""
        is_scaled = dtype == torch.float16
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            loss = self.model(**inputs).loss
        # A constant scale: what a scaler adds is not measured.
        (loss * 1024 if is_scaled else loss).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step_from_waveforms(self, batch: dict[str, Tensor], dtype: torch.dtype | None) -> None:
        """Train once, with features made before."""
        self.step(self.inputs(batch), dtype)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], bench: Bench) -> list[float]:
    """Return seconds of one call, of each round."""
    size, seconds = bench.size, []
    for _ in range(size.warm_up):
        work()
    for _ in range(size.rounds):
        wait(bench.device)
        start = time.perf_counter()
        for _ in range(size.steps):
            work()
        wait(bench.device)
        seconds.append((time.perf_counter() - start) / size.steps)
    return seconds


def works_of(bench: Bench) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is timed."""
    waveforms = bench.moved(bench.on_device(bench.examples))
    inputs = bench.inputs(waveforms)
    yield "features by one process", partial(bench.on_processor, bench.examples)
    yield "batch of waveforms by one process", partial(bench.on_device, bench.examples)
    yield "features on the device", partial(bench.inputs, waveforms)
    for name, dtype in PRECISIONS.items():
        yield f"step {name}", partial(bench.step, inputs, dtype)
        from_waveforms = partial(bench.step_from_waveforms, waveforms, dtype)
        yield f"step {name} with features on the device", from_waveforms


def report_speed(bench: Bench) -> None:
    batch, medians = bench.size.batch, {}
    for name, work in works_of(bench):
        seconds = seconds_of(work, bench)
        medians[name] = statistics.median(seconds)
        spread = f"{min(seconds) * 1e3:.1f}-{max(seconds) * 1e3:.1f}"
        rate = batch / medians[name]
        print(f"{name:45} {medians[name] * 1e3:9.2f} ms {spread:>16} {rate:12,.0f} crops/s")
    single, device = medians["features by one process"], medians["features on the device"]
    waves = medians["batch of waveforms by one process"]
    print(f"{'time of features: one process / device':60} {single / device:8.2f} x")
    print(f"{'time in a worker: features / waveforms':60} {single / waves:8.2f} x")
    for name in PRECISIONS:
        step = medians[f"step {name}"]
        both = medians[f"step {name} with features on the device"]
        print(f"{f'{name}: step with features on the device / without':60} {both / step:8.2f} x")
        print(f"{f'{name}: processes of features that keep one GPU busy':60} {single / step:8.2f}")
        print(
            f"{f'{name}: steps a second / of float32':60} {medians['step float32'] / step:8.2f} x"
        )


def distance(result: Tensor, expected: Tensor) -> float:
    return float((result.float() - expected).norm() / expected.norm())


def report_head(device: torch.device, size: Size) -> None:
    """Print how far gradients are off that the head gives for equal embeddings."""
    torch.manual_seed(1)
    head = MarginHead(256, size.classes, margin=0.2, scale=32.0).to(device)
    labels = torch.arange(size.batch, device=device) % size.classes
    # Somewhat trained: each embedding leans towards the centre of its class.
    centres = nn.functional.normalize(head.weight.detach())[labels]
    embeddings = centres + 0.1 * torch.randn(size.batch, 256, device=device)
    expected = gradient(head, embeddings, labels, None)
    nothing = patch("voxblink2_lib.models.margin_head.full_precision", contextlib.nullcontext)
    for name, dtype in PRECISIONS.items():
        now = distance(gradient(head, embeddings, labels, dtype), expected)
        with nothing:
            before = distance(gradient(head, embeddings, labels, dtype), expected)
        print(
            f"{name + ': gradient of embeddings off':45} {now:9.2e} "
            f"with autocast inside the head {before:9.2e}"
        )


def gradient(head: MarginHead, x: Tensor, labels: Tensor, dtype: Any) -> Tensor:
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        loss = head(x, labels)[1]
    assert loss is not None
    loss.backward()
    assert x.grad is not None
    return x.grad


def report_features(device: torch.device) -> None:
    """Print how far features on the device are from the extractor's, also with TF32 allowed."""
    wave = 0.1 * torch.randn(4, 32_000, generator=torch.Generator().manual_seed(2))
    options: list[dict[str, Any]] = [{}, {"normalization": "max"}, {"front_end": "kaldi"}]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    for each in options:
        extractor = SpeakerFeatureExtractor(**each)
        expected = extractor([*wave])["input_features"]
        with torch.autocast(device.type, torch.bfloat16):
            result, _ = DeviceFeatures(extractor).to(device)(wave.to(device))
        off = distance(result.cpu(), expected)
        print(f"features of {each!s:35} on the device off {off:9.2e} (allowed 1e-4)")
    torch.set_float32_matmul_precision(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("Example:")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="little data, to test that it runs")
    args = parser.parse_args()
    device, size = torch.device(args.device), QUICK if args.quick else FULL
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{name}, torch {torch.__version__}, python {platform.python_version()}, {size}")
    torch.set_num_threads(1)  # as in a worker
    report_features(device)
    report_head(device, size)
    report_speed(Bench(device, size))


if __name__ == "__main__":
    main()
