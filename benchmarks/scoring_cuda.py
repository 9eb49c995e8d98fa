"""Measure scoring on a CUDA device against NumPy on the same machine's processor.

Embeddings have 256 dimensions, float32. Needs neither the data sets' library nor media: NumPy,
SciPy, threadpoolctl and PyTorch. With --device cpu the path of PyTorch runs on the processor.

Example:
    python benchmarks/scoring_cuda.py
    python benchmarks/scoring_cuda.py --device cpu --quick
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from figures import Figure, figure, format_figure, seconds_of

from voxblink2_lib.scoring.blockwise import nearest, pairs_above, top_statistics

Vectors = npt.NDArray[np.float32]
DIMENSIONS = 256


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    probes: int
    speakers: int
    shared: int  # probes of which NumPy is measured, and compared


FULL = Size(3, 1_000_000, 111_284, 20_000)
QUICK = Size(1, 4_000, 2_000, 2_000)


def embeddings(rows: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def rate(work: Callable[[], object], rows: int, rounds: int) -> list[float]:
    return [rows / seconds_of(work) for _ in range(rounds)]


def measure(device: str, size: Size) -> Iterator[Figure]:
    probes, models = embeddings(size.probes, 1), embeddings(size.speakers, 2)
    few = probes[: size.shared]
    nearest(few[:64], models, device=device)  # starts the device
    fast = rate(lambda: nearest(probes, models, device=device), len(probes), size.rounds)
    slow = rate(lambda: nearest(few, models), len(few), 1)
    yield figure("nearest of all speakers: probes a second on the device", fast, unit="")
    yield figure("the same / NumPy", [value / slow[0] for value in fast])
    same = nearest(few, models, device=device) == nearest(few, models)
    yield figure("   of the probes, the same speaker", [float(same.mean())], unit="")
    normed = rate(
        lambda: top_statistics(probes, models, top_n=300, device=device), len(probes), size.rounds
    )
    plain = rate(lambda: top_statistics(few[:2000], models, top_n=300), len(few[:2000]), 1)
    yield figure("AS-norm, 300 of all speakers: / NumPy", [value / plain[0] for value in normed])
    on_device = top_statistics(few[:2000], models, top_n=300, device=device)
    on_cpu = top_statistics(few[:2000], models, top_n=300)
    most = max(float(np.abs(a - b).max()) for a, b in zip(on_device, on_cpu, strict=True))
    yield figure("   largest difference of mean or deviation, x 1e-6", [1e6 * most], unit="")
    paired = rate(
        lambda: pairs_above(models, 0.3, most=10**7, device=device), len(models), size.rounds
    )
    yield figure("pairs of all speakers: speakers a second", paired, unit="")


def main() -> None:
    description, _, example = (__doc__ or "").partition("Example:")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="little data")
    options = parser.parse_args()
    name = options.device
    if name.startswith("cuda"):
        name = torch.cuda.get_device_name(options.device)
    print(f"device {name}, PyTorch {torch.__version__}, NumPy {np.__version__}")
    for item in measure(options.device, QUICK if options.quick else FULL):
        print(format_figure(item), flush=True)


if __name__ == "__main__":
    main()
