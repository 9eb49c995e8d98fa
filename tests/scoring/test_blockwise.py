"""Products in blocks: the right row is selected, in bounded memory, and cosines keep their bits."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import Array, all_cosines, apart, cosine

from voxblink2_lib.errors import DependencyError, ScoringError
from voxblink2_lib.scoring import blockwise
from voxblink2_lib.scoring.blockwise import cosines, nearest, top_statistics, unit
from voxblink2_lib.scoring.validation import norms_of

MEBIBYTE = 1 << 20
# Float32 products of vectors of length 1: some rounding errors of 6e-8.
CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 2e-6}
DEVICES = [
    None,
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ),
]


def vectors(seed: int, rows: int, dimensions: int) -> Array:
    generator = np.random.default_rng(seed)
    lengths = generator.uniform(0.1, 10, (rows, 1))
    return (generator.normal(size=(rows, dimensions)) * lengths).astype(np.float32)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most memory that NumPy and Python held while something was done."""
    call()  # what is imported or cached once does not count
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- Unit ------------------------------------------------------------------------------------------


def test_unit_rows_have_length_1_and_their_direction() -> None:
    rows = vectors(1, 500, 33)
    before = rows.copy()
    values = unit(rows, "rows")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_allclose(np.linalg.norm(values.astype(float), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.diag(all_cosines(values, rows)), 1, atol=1e-6)


def test_unit_names_a_zero_row() -> None:
    rows = vectors(1, 5, 3)
    rows[3] = 0
    with pytest.raises(ScoringError, match=r"gallery: row 3 has the length 0"):
        unit(rows, "gallery")


# -- Cosines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 3, 7, 31, 64, 192, 193, 255, 256, 257, 512, 2048])
def test_the_same_pair_has_the_same_bits_in_any_row_and_on_any_side(dimensions: int) -> None:
    # The pair again and again, at odd distances, so at all alignments and places in a block.
    a, b = vectors(dimensions, 2, dimensions)
    noise = vectors(2, 3000, dimensions)
    noise[::3], noise[1::7] = a, b
    noise[2::11] = a
    norms = norms_of(noise, "noise")
    is_a = np.flatnonzero((noise == a).all(axis=1))
    is_b = np.flatnonzero((noise == b).all(axis=1))
    assert len(np.unique(norms[is_a])) == 1
    generator = np.random.default_rng(0)
    a_rows = generator.choice(is_a, 2500)
    b_rows = generator.choice(is_b, 2500)
    values = [cosines(noise, noise, a_rows, b_rows, (norms, norms))]
    values += [cosines(noise, noise, b_rows, a_rows, (norms, norms))]
    values += [cosines(noise, noise, a_rows[:1], b_rows[:1], (norms, norms))]
    values += [cosines(noise, noise, a_rows[:1025], b_rows[:1025], (norms, norms))]
    # Among other pairs, and with embeddings that lie otherwise in memory.
    mixed = generator.integers(0, 3000, (2, 2000))
    mixed[:, 500:1500] = a_rows[:1000], b_rows[:1000]
    values += [cosines(noise, noise, mixed[0], mixed[1], (norms, norms))[500:1500]]
    turned = np.asfortranarray(noise)
    values += [cosines(turned, turned, a_rows, b_rows, (norms, norms))]
    raw = np.empty(noise.nbytes + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(noise.shape)
    odd[:] = noise
    assert not odd.flags.aligned
    values += [cosines(odd, odd, a_rows, b_rows, (norms, norms))]
    bits = np.unique(np.concatenate(values).view(np.uint32))
    assert len(bits) == 1
    assert values[0][0] == pytest.approx(cosine(a, b), abs=2e-6)


@pytest.mark.parametrize("pairs", [0, 1, 1023, 1024, 1025, 5000])
def test_cosines_are_those_of_a_loop_in_float64(pairs: int) -> None:
    a, b = vectors(1, 40, 65), vectors(2, 70, 65)
    generator = np.random.default_rng(pairs)
    a_rows, b_rows = generator.integers(0, 40, pairs), generator.integers(0, 70, pairs)
    values = cosines(a, b, a_rows, b_rows, (norms_of(a, "a"), norms_of(b, "b")))
    assert values.dtype == np.float32
    expected = np.array([cosine(a[i], b[j]) for i, j in zip(a_rows, b_rows, strict=True)])
    np.testing.assert_allclose(values, expected, **CLOSE)


# -- Nearest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("rows", "models", "dimensions"), [(1, 1, 1), (300, 7, 3), (5000, 50, 16), (40, 9000, 8)]
)
def test_nearest_is_the_largest_cosine(
    rows: int, models: int, dimensions: int, device: str | None
) -> None:
    generator = np.random.default_rng(rows)
    probes, others, expected = apart(generator, rows=rows, models=models, dimensions=dimensions)
    assert len(probes) > 0.9 * rows
    probes *= generator.uniform(0.1, 10, (len(probes), 1)).astype(np.float32)
    nearest_rows = nearest(probes, unit(others, "models"), device=device)
    np.testing.assert_array_equal(nearest_rows, expected)
    assert nearest_rows.dtype == np.int64
    least = nearest(probes, unit(others, "models"), device=device, memory_bytes=MEBIBYTE)
    np.testing.assert_array_equal(least, expected)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 30)),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    device=st.sampled_from([None, "cpu"]),
)
def test_borders_of_blocks_do_not_show(
    shape: tuple[int, int], blocks: tuple[int, int], device: str | None
) -> None:
    generator = np.random.default_rng(shape)
    probes, others, expected = apart(generator, rows=shape[0], models=shape[1], dimensions=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "_BLOCK_ROWS", blocks[0])
        patch.setattr(blockwise, "_BLOCK_COLUMNS", blocks[1])
        nearest_rows = nearest(probes, unit(others, "models"), device=device)
    np.testing.assert_array_equal(nearest_rows, expected)


def test_negative_cosines_have_a_nearest_as_well() -> None:
    models = unit(np.array([[-1, -2], [-2, -1], [-1, 0]], np.float32), "models")
    assert nearest(np.array([[1, 0], [0, 5]], np.float32), models).tolist() == [0, 2]


@pytest.mark.parametrize("device", DEVICES)
def test_memory_maps_that_cannot_be_written_serve(device: str | None, tmp_path: Any) -> None:
    probes, models, expected = apart(np.random.default_rng(3), rows=50, models=9, dimensions=4)
    for name, array in (("probes", probes), ("models", unit(models, "models"))):
        np.save(tmp_path / name, array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("probes", "models")]
    np.testing.assert_array_equal(nearest(mapped[0], mapped[1], device=device), expected)


def test_progress_counts_every_row_once_and_one_call_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blockwise, "_BLOCK_ROWS", 7)
    counted: list[int] = []
    busy = threading.Lock()

    def progress(rows: int) -> None:
        assert busy.acquire(blocking=False)
        counted.append(rows)
        busy.release()

    ours = vectors(1, 1000, 4)
    nearest(ours, unit(vectors(2, 3, 4), "models"), progress=progress)
    assert sum(counted) == 1000
    counted.clear()
    top_statistics(unit(ours, "ours"), unit(vectors(2, 30, 4), "cohort"), progress=progress)
    assert (sum(counted), max(counted)) == (1000, 7)


def test_an_error_in_one_block_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_BLOCK_ROWS", 1)
    begun: list[int] = []

    def fail(_: object, scores: Array) -> tuple[Array, Array]:
        begun.append(len(scores))
        raise KeyboardInterrupt

    monkeypatch.setattr(blockwise._NumPy, "best", fail)
    with pytest.raises(KeyboardInterrupt):
        nearest(vectors(1, 5000, 4), unit(vectors(2, 3, 4), "models"))
    assert len(begun) < 5000
    assert sum(pool["num_threads"] for pool in blockwise._blas()[0].info()) > 0


# -- The nearest of a cohort -----------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("top_n", [None, 1, 2, 17, 59, 60])
def test_top_statistics_are_those_of_the_sorted_cosines(
    top_n: int | None, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, cohort = unit(vectors(1, 33, 12), "one"), unit(vectors(2, 60, 12), "two")
    best = np.sort(all_cosines(embeddings, cohort), axis=1)[:, -(top_n or 60) :]
    for rows, columns in ((1024, 8192), (5, 7), (1, 1), (40, 59)):
        monkeypatch.setattr(blockwise, "_BLOCK_ROWS", rows)
        monkeypatch.setattr(blockwise, "_BLOCK_COLUMNS", columns)
        mean, deviation = top_statistics(embeddings, cohort, top_n=top_n, device=device)
        assert mean.dtype == deviation.dtype == np.float64
        np.testing.assert_allclose(mean, best.mean(axis=1), **CLOSE)
        np.testing.assert_allclose(deviation, best.std(axis=1), **CLOSE)


# -- Memory ----------------------------------------------------------------------------------------

# Beside the bound: iterators, small arrays, Python itself.
SMALL = 100_000


@pytest.fixture(autouse=True)
def _libraries_known() -> None:
    """Looking for the matrix library happens once a process and is not what is measured."""
    blockwise._blas()


@pytest.mark.parametrize("memory_bytes", [MEBIBYTE, 4 * MEBIBYTE])
def test_nearest_keeps_to_its_memory(memory_bytes: int) -> None:
    probes, models = vectors(1, 3000, 64), unit(vectors(2, 9000, 64), "models")
    peak = peak_bytes(lambda: nearest(probes, models, memory_bytes=memory_bytes))
    result = 8 * len(probes)
    assert memory_bytes / 4 < peak - result < memory_bytes + SMALL


@pytest.mark.parametrize("memory_bytes", [MEBIBYTE, 4 * MEBIBYTE])
@pytest.mark.parametrize("top_n", [None, 2, 300])
def test_top_statistics_keep_to_their_memory(memory_bytes: int, top_n: int | None) -> None:
    embeddings, cohort = unit(vectors(1, 600, 64), "one"), unit(vectors(2, 9000, 64), "two")

    def call() -> object:
        return top_statistics(embeddings, cohort, top_n=top_n, memory_bytes=memory_bytes)

    result = 16 * len(embeddings)
    assert memory_bytes / 8 < peak_bytes(call) - result < memory_bytes + SMALL


def test_cosines_take_a_few_mebibytes_however_many_pairs() -> None:
    a = vectors(1, 1000, 256)
    norms = norms_of(a, "a")
    rows = np.random.default_rng(0).integers(0, 1000, (2, 100_000))
    peak = peak_bytes(lambda: cosines(a, a, rows[0], rows[1], (norms, norms)))
    assert peak - 4 * rows.shape[1] < 3 * MEBIBYTE


# -- Engines ---------------------------------------------------------------------------------------


def test_pytorch_is_not_loaded_for_small_products() -> None:
    program = (
        "import sys, numpy as np\n"
        "from voxblink2_lib.scoring.open_set import open_set_identification\n"
        "from voxblink2_lib.scoring.normalization import s_norm\n"
        "x = np.eye(3) + 1\n"
        "open_set_identification(x, [0, 1, 2], x, [0, 1, 9])\n"
        "s_norm([0.5], enrolment_rows=[0], test_rows=[1], embeddings=x, cohort=np.eye(3))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("cuda", [False, True])
def test_large_products_go_to_cuda_where_it_is(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []
    monkeypatch.setattr(blockwise, "_LARGE_PRODUCT", 1000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)

    class Engine(blockwise._Torch):
        def __init__(self, device: str) -> None:
            devices.append(device)
            super().__init__("cpu")

    monkeypatch.setattr(blockwise, "_Torch", Engine)
    probes, models, expected = apart(np.random.default_rng(3), rows=50, models=9, dimensions=4)
    np.testing.assert_array_equal(nearest(probes, unit(models, "models")), expected)
    assert devices == (["cuda"] if cuda else [])
    nearest(probes[:2], unit(models, "models"))  # 72 multiplications are not many
    assert devices == (["cuda"] if cuda else [])


def test_without_pytorch_numpy_serves_and_a_device_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", {"torch": None}.__getitem__)
    monkeypatch.setattr(blockwise, "_LARGE_PRODUCT", 1)
    probes, models, expected = apart(np.random.default_rng(3), rows=50, models=9, dimensions=4)
    np.testing.assert_array_equal(nearest(probes, unit(models, "models")), expected)
    with pytest.raises(DependencyError, match=r"device='cpu' needs PyTorch: pip install torch"):
        nearest(probes, unit(models, "models"), device="cpu")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    rows = unit(vectors(1, 3, 2), "rows")
    with pytest.raises(ScoringError, match=rf"device is '{device}', and PyTorch cannot use it: ."):
        nearest(rows, rows, device=device)
    with pytest.raises(ScoringError, match=rf"device is '{device}'"):
        top_statistics(rows, rows, device=device)


@pytest.mark.parametrize("memory_bytes", [MEBIBYTE - 1, 0, -1])
def test_a_bound_below_a_mebibyte_is_refused(memory_bytes: int) -> None:
    rows = unit(vectors(1, 3, 2), "rows")
    with pytest.raises(
        ScoringError, match=r"memory_bytes must be at least 1,048,576, got "
    ) as error:
        nearest(rows, rows, memory_bytes=memory_bytes)
    assert isinstance(error.value, ValueError)
    with pytest.raises(ScoringError, match=r"memory_bytes must be at least 1,048,576, got "):
        top_statistics(rows, rows, memory_bytes=memory_bytes)


def test_no_cosine_of_a_vector_with_itself_is_above_1() -> None:
    vectors = np.random.default_rng(3).normal(size=(4000, 37)).astype(np.float32)
    rows, norms = np.arange(4000), norms_of(vectors, "vectors")
    own = cosines(vectors, vectors, rows, rows, (norms, norms))
    opposite = cosines(vectors, -vectors, rows, rows, (norms, norms))
    assert own.max() == 1
    assert opposite.min() == -1
    assert own.min() > 1 - 1e-6
