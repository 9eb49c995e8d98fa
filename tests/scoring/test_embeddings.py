"""Embeddings: every format as the real libraries write it, and broken and hostile files."""

from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import kaldiio
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from support.recorded_progress import RecordedProgress

from voxblink2_lib.errors import DependencyError, ScoringError, VoxBlink2Error
from voxblink2_lib.scoring import embedding_tables
from voxblink2_lib.scoring.embedding_files import NAMES_SUFFIXES
from voxblink2_lib.scoring.embedding_tables import NAME_COLUMNS, VECTOR_COLUMNS
from voxblink2_lib.scoring.embeddings import Embeddings, read_embeddings

NAMES = ["id00001/-abcdefghij/00001.wav", "id00001/-abcdefghij/00002.wav", "noise.wav"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 0.5  # exact in float16 too
Array = npt.NDArray[Any]


def vectors_of(names: list[str] = NAMES, vectors: Array = VECTORS) -> dict[str, Array]:
    return {name: vector.copy() for name, vector in zip(names, vectors, strict=True)}


def check(got: Embeddings, vectors: Array = VECTORS) -> None:
    assert got.names == NAMES
    assert got.vectors.dtype == np.float32
    np.testing.assert_array_equal(got.vectors, vectors.astype(np.float32))
    assert got.rows_of([*NAMES[::-1], "?"]).tolist() == [2, 1, 0, -1]


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ScoringError, match=match):
        read_embeddings(path, **options)


# Names


def made(*names: str) -> Embeddings:
    return Embeddings(list(names), np.ones((len(names), 2), np.float32), "here")


@pytest.mark.parametrize(
    ("names", "vectors", "match"),
    [
        (["a"], np.ones((1, 2)), r"here: expected float32 .* float64 of shape \(1, 2\)"),
        (["a"], np.ones(2, np.float32), r"got 1 names and float32 of shape \(2,\)"),
        (["a"], np.float32(1), r"got 1 names and float32 of shape \(\)"),
        (["a", "b"], np.ones((1, 2), np.float32), r"got 2 names and float32 of shape \(1, 2\)"),
        ([], np.ones((0, 2), np.float32), "got 0 names"),
        (["a"], np.ones((1, 0), np.float32), r"of shape \(1, 0\)"),
        (["a", "b", "a"], np.ones((3, 2), np.float32), "'a' occurs twice, in rows 0 and 2"),
    ],
)
def test_embeddings_are_checked_where_they_are_made(
    names: list[str], vectors: Any, match: str
) -> None:
    with pytest.raises(ScoringError, match=match):
        Embeddings(names, vectors, "here")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_not_finite(number: float, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.ones((5000, 1024), np.float32)  # more than one block
    vectors[4999, 1023] = number
    with pytest.raises(ScoringError, match=r"here: row 4999 \('4999'\) has a number that is not"):
        Embeddings([str(row) for row in range(5000)], vectors, "here")


# Files


def test_unknown_files(tmp_path: Path) -> None:
    refused(
        tmp_path / "x.csv",
        "extension '.csv' is not read. Allowed are .parquet, .npy, .*, .pickle, a folder",
    )
    refused(tmp_path / "x", "extension '' is not read")
    for suffix in ("parquet", "npy", "scp", "ark", "pkl", "pickle"):
        path = tmp_path / f"x.{suffix}"
        refused(path, f"x.{suffix}: this file does not exist or is empty")
        path.touch()
        refused(path, f"x.{suffix}: this file does not exist or is empty")
    os.mkfifo(tmp_path / "pipe.ark")
    refused(tmp_path / "pipe.ark", "this file does not exist")
    assert issubclass(ScoringError, VoxBlink2Error)


def test_names_go_with_arrays_only(tmp_path: Path) -> None:
    path = write_pickle(tmp_path, vectors_of())
    refused(path, "names='x.txt' .--names. goes with .npy and .safetensors only", names="x.txt")


def test_upper_case_extensions_and_strings_as_paths(tmp_path: Path) -> None:
    path = write_pickle(tmp_path, vectors_of()).rename(tmp_path / "X.PKL")
    check(read_embeddings(str(path)))
    assert read_embeddings(str(path)).source == str(path)


# Parquet

LISTS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "fixed_size_list": lambda kind: pa.list_(kind, 4),
}
NUMBERS = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64()]


def write_parquet(
    path: Path,
    vectors: Any,
    names: list[Any] | None = None,
    *,
    columns: tuple[str, str] = ("name", "embedding"),
    kind: pa.DataType | None = None,
    **options: Any,
) -> Path:
    lists = pa.array(
        [None if v is None else list(v) for v in vectors], kind or pa.list_(pa.float32())
    )
    texts = pa.array(NAMES if names is None else names, pa.string())
    pq.write_table(pa.table({columns[0]: texts, columns[1]: lists}), path, **options)
    return path


@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", LISTS)
def test_parquet(tmp_path: Path, kind: str, number: pa.DataType) -> None:
    vectors = VECTORS.astype(number.to_pandas_dtype())
    path = write_parquet(
        tmp_path / "x.parquet", vectors, kind=LISTS[kind](number), row_group_size=2
    )
    check(read_embeddings(path), vectors)


def test_parquet_of_other_libraries(tmp_path: Path) -> None:
    import datasets

    rows = {"utt": NAMES, "xvector": VECTORS.tolist(), "n": [1, 2, 3]}
    frame: Any = datasets.Dataset.from_dict(rows).to_pandas()
    frame.to_parquet(tmp_path / "pandas.parquet")
    check(read_embeddings(tmp_path / "pandas.parquet"))
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "datasets.parquet"))
    check(read_embeddings(tmp_path / "datasets.parquet"))


@pytest.mark.parametrize("name", [*NAME_COLUMNS, "whatever"])
@pytest.mark.parametrize("vector", [*VECTOR_COLUMNS, "anything"])
def test_parquet_columns(tmp_path: Path, name: str, vector: str) -> None:
    path = write_parquet(tmp_path / "x.parquet", VECTORS, columns=(name, vector))
    check(read_embeddings(path))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_kinds_of_strings(tmp_path: Path, kind: pa.DataType) -> None:
    lists = pa.array(VECTORS.tolist(), pa.list_(pa.field("x", pa.float32(), nullable=False)))
    texts = pa.array(NAMES, pa.string()).cast(kind)
    pq.write_table(pa.table({"speaker": lists, "segment": texts}), tmp_path / "x.parquet")
    assert pq.read_schema(tmp_path / "x.parquet").field("segment").type == kind
    check(read_embeddings(tmp_path / "x.parquet"))


def test_parquet_preferred_columns_come_first(tmp_path: Path) -> None:
    lists = pa.array(VECTORS.tolist(), pa.list_(pa.float32()))
    other = pa.array([[1.0]] * 3, pa.list_(pa.float64()))
    words = pa.array([["a"]] * 3)
    columns = {"id": ["x"] * 3, "name": NAMES, "other": other, "embeddings": lists, "vector": words}
    pq.write_table(pa.table({**columns, "key": [1, 2, 3]}), tmp_path / "x.parquet")
    check(read_embeddings(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        ({"a": ["x"], "b": ["y"], "e": [[1.0]]}, "Got a .string., b .string., e .list<.*double"),
        ({"name": ["x"], "e": [[1.0]], "f": [[1.0]]}, "Got name .string., e .list"),
        ({"name": ["x"], "embedding": [["a"]]}, "Got name .string., embedding .list<.*string"),
        ({"name": ["x"], "embedding": [[[1.0]]]}, "Got name .string., embedding .list<.*list<"),
        ({"name": [1], "embedding": [[1.0]]}, "Got name .int64."),
        ({"embedding": [[1.0]]}, "Got embedding"),
        ({}, "Got no columns"),
    ],
)
def test_parquet_without_the_columns(tmp_path: Path, columns: dict[str, Any], seen: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", f"x.parquet: expected a column of strings .name.*{seen}")


@pytest.mark.parametrize(
    ("vectors", "names", "match"),
    [
        ([[1, 2], [3, 4]], ["a", None], r"row 1 \(None\) has no name"),
        ([[1, 2], None], ["a", "b"], r"row 1 \('b'\) has no embedding"),
        ([None, [1, 2]], ["a", "b"], r"row 0 \('a'\) has no embedding"),
        ([[], []], ["a", "b"], r"row 0 \('a'\) has no embedding"),
        (
            [[1, 2], [3, 4], [5]],
            ["a", "b", "c"],
            r"row 2 \('c'\) has 1 numbers, but row 0 \('a'\) has 2",
        ),
        (
            [[1, 2], [3, 4], [5, None]],
            ["a", "b", "c"],
            r"row 2 \('c'\) has a null among its numbers",
        ),
        ([[1, 2], [np.nan, 4]], ["a", "b"], r"row 1 \('b'\) has a number that is not finite"),
        ([[1], [2]], ["a", "a"], "'a' occurs twice, in rows 0 and 1"),
        ([], [], "it contains no embeddings"),
    ],
)
@pytest.mark.parametrize("row_group_size", [1, 100])
def test_broken_parquet(
    tmp_path: Path, vectors: list[Any], names: list[Any], match: str, row_group_size: int
) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, vectors, names, row_group_size=row_group_size)
    refused(path, f"x.parquet: {match}")


def test_parquet_that_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_tables, "_ROWS_AT_ONCE", 2)
    path, progress = tmp_path / "x.parquet", RecordedProgress()
    write_parquet(path, [[row, 1] for row in range(5)], list("abcde"))
    embeddings = read_embeddings(path, progress=progress)
    assert embeddings.names == list("abcde")
    np.testing.assert_array_equal(embeddings.vectors, [[row, 1] for row in range(5)])
    assert [(task.task, task.unit, task.total) for task in progress.tasks] == [
        ("Reading", "vector", 5)
    ]
    assert progress.tasks[0].counts == [2, 2, 1]


@pytest.mark.parametrize(
    ("vectors", "match"),
    [
        ([[1, 2], [3, 4], [5, 6], [7]], r"row 3 \('d'\) has 1 numbers, but row 2 \('c'\) has 2"),
        ([[1, 2], [3, 4], [5, 6], None], r"row 3 \('d'\) has no embedding"),
        ([[1, 2], [3, 4], [5], [7]], "'c' has 1 numbers, but 'a' has 2"),
    ],
)
def test_rows_of_a_broken_part_are_counted_from_the_start_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: list[Any], match: str
) -> None:
    monkeypatch.setattr(embedding_tables, "_ROWS_AT_ONCE", 2)
    write_parquet(tmp_path / "x.parquet", vectors, list("abcd"))
    refused(tmp_path / "x.parquet", f"x.parquet: {match}")


def test_nulls_of_fixed_size_lists(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32(), 2)
    path = tmp_path / "x.parquet"
    write_parquet(path, [[1, 2], None, [3, 4]], ["a", "b", "c"], kind=kind)
    refused(path, r"x.parquet: row 1 \('b'\) has no embedding")
    write_parquet(path, [None, None], ["a", "b"], kind=kind)
    refused(path, r"x.parquet: row 0 \('a'\) has no embedding")


def test_parquet_folder(tmp_path: Path) -> None:
    refused(tmp_path, "it contains no embeddings")
    write_parquet(tmp_path / "b.parquet", VECTORS[1:], NAMES[1:], kind=pa.large_list(pa.float64()))
    write_parquet(tmp_path / "a.parquet", VECTORS[:1], NAMES[:1])
    write_parquet(tmp_path / "empty.parquet", [], [])
    (tmp_path / "readme.txt").write_text("not one of them")
    check(read_embeddings(tmp_path))
    write_parquet(tmp_path / "c.parquet", [[1, 2]], ["c"])
    refused(tmp_path, "'c' has 2 numbers, but 'id00001/-abcdefghij/00001.wav' has 4")
    write_parquet(tmp_path / "c.parquet", [[1, 2], [3]], ["c", "d"])
    refused(tmp_path, r"c.parquet: row 1 \('d'\) has 1 numbers")


def test_two_parquet_columns_of_one_name(tmp_path: Path) -> None:
    lists = pa.array(VECTORS.tolist())
    table = pa.Table.from_arrays([pa.array(NAMES), pa.array([1, 2, 3]), lists], ["id", "id", "a.b"])
    pq.write_table(table, tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "x.parquet: cannot be read as Parquet: .*id.*2 times")
    pq.write_table(table.remove_column(1), tmp_path / "x.parquet")
    check(read_embeddings(tmp_path / "x.parquet"))


def test_garbage_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    refused(path, "x.parquet: cannot be read")
    whole = write_parquet(path, VECTORS).read_bytes()
    path.write_bytes(whole[:-10])
    refused(path, "x.parquet: cannot be read")
    write_parquet(path, VECTORS, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"noise", b"\xffoise"))
    refused(path, "x.parquet: cannot be read as Parquet: .*UTF8")


# NumPy


def write_npy(path: Path, vectors: Any = VECTORS, names: str = "\n".join(NAMES)) -> Path:
    np.save(path, vectors)
    path.with_suffix(".txt").write_text(names)
    return path


def test_npy_stays_a_memory_map(tmp_path: Path) -> None:
    got = read_embeddings(write_npy(tmp_path / "x.npy"))
    check(got)
    assert isinstance(got.vectors, np.memmap)
    assert not got.vectors.flags.writeable


@pytest.mark.parametrize("kind", ["f2", "f8", ">f4", "i1", "u8", "<i8"])
def test_npy_of_other_types(tmp_path: Path, kind: str) -> None:
    vectors = (VECTORS * 8 + 4).astype(kind)
    check(read_embeddings(write_npy(tmp_path / "x.npy", vectors)), vectors)


def test_npy_in_columns_first(tmp_path: Path) -> None:
    check(read_embeddings(write_npy(tmp_path / "x.npy", np.asfortranarray(VECTORS))))


@pytest.mark.parametrize("suffix", NAMES_SUFFIXES)
def test_npy_names(tmp_path: Path, suffix: str) -> None:
    path = write_npy(tmp_path / "x.npy")
    lines = "".join(f" {name}\tx.ark:12 3\r\n" for name in NAMES)
    path.with_suffix(".txt").rename(path.with_suffix(suffix)).write_text("\ufeff" + lines + "\n\n")
    check(read_embeddings(path))
    moved = path.with_suffix(suffix).rename(tmp_path / "elsewhere")
    check(read_embeddings(path, names=moved))
    check(read_embeddings(path, names=str(moved)))
    refused(path, r"x.npy: expected one file of names beside it, .*; got none. Name .* names=FILE")
    refused(path, "cannot be read: .*No such file.*nowhere", names=tmp_path / "nowhere")
    refused(path, "cannot be read: .*[Dd]irectory", names=tmp_path)


def test_npy_with_two_files_of_names(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "x.npy")
    path.with_suffix(".scp").touch()
    refused(path, "expected one file of names .*; got x.txt, x.scp. Name it")
    check(read_embeddings(path, names=path.with_suffix(".txt")))


@pytest.mark.parametrize(
    ("vectors", "names", "match"),
    [
        (VECTORS, "a\nb\n", r"expected one vector .* each of 2 names .'a' first.*shape \(3, 4\)"),
        (VECTORS[0], "a", r"got float32 of shape \(4,\)"),
        (VECTORS[None], "a", r"got float32 of shape \(1, 3, 4\)"),
        (VECTORS > 0, "a\nb\nc", "real numbers .* got bool"),
        (VECTORS * 1j, "a\nb\nc", "real numbers .* got complex"),
        (np.array([["a"]]), "a", "real numbers .* got <U1"),
        (
            np.array([["a", None]], object),
            "a",
            "not a pickled dictionary of arrays: TypeError: it holds one array",
        ),
        (VECTORS[:0], "a", r"each of 1 names .* got float32 of shape \(0, 4\)"),
        (VECTORS[:, :0], "a\nb\nc", r"got 3 names and float32 of shape \(3, 0\)"),
        (VECTORS, "a\n\nc", "x.txt: line 2 is empty"),
        (VECTORS, "\n", "x.txt: line 1 is empty"),
        (VECTORS, "a\nb\na", "'a' occurs twice, in rows 0 and 2"),
        (VECTORS.astype("f8") * 1e300, "a\nb\nc", r"row 0 \('a'\) has a number that is not finite"),
        (np.array([[0], [np.nan]]), "a\nb", r"row 1 \('b'\) has a number that is not finite"),
    ],
)
def test_broken_npy(tmp_path: Path, vectors: Any, names: str, match: str) -> None:
    refused(write_npy(tmp_path / "x.npy", vectors, names), match)


def test_npy_of_other_kinds_of_files(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "x.npy")
    whole = path.read_bytes()
    open_bracket = whole.replace(b"}", b"(")
    for data in (whole[:-1], whole[:20], open_bracket, b"x", pickle.dumps(Bomb(tmp_path))):
        path.write_bytes(data)
        refused(path, "x.npy: cannot be read as a NumPy array")
    with path.open("wb") as file:
        np.savez(file, VECTORS)
    refused(path, "x.npy: cannot be read as a NumPy array")
    assert not (tmp_path / "ran").exists()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "x.npy")
    path.with_suffix(".txt").write_bytes(b"a\nb\n\xff")
    assert read_embeddings(path).names == ["a", "b", "\\xff"]


# safetensors


def write_safetensors(path: Path, tensors: dict[str, Any]) -> Path:
    save_file(tensors, path)
    path.with_suffix(".ids").write_text("\n".join(NAMES))
    return path


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1"])
def test_safetensors(tmp_path: Path, kind: str) -> None:
    vectors = (VECTORS * 8 + 4).astype(kind)
    path = write_safetensors(tmp_path / "x.safetensors", {"any name": vectors})
    check(read_embeddings(path), vectors)
    moved = path.with_suffix(".ids").rename(tmp_path / "elsewhere")
    check(read_embeddings(path, names=moved), vectors)
    refused(path, "expected one file of names beside it, .*; got none")


def test_safetensors_with_none_or_two_tensors(tmp_path: Path) -> None:
    for tensors in ({}, {"a": VECTORS, "b": VECTORS}):
        path = write_safetensors(tmp_path / "x.safetensors", tensors)
        refused(
            path,
            "x.safetensors: (cannot be read as safetensors: it holds 0 |'.': expected one vector)",
        )


def test_broken_safetensors(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"a": VECTORS})
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:20], whole[:4], bytes(50), pickle.dumps(Bomb(tmp_path))):
        path.write_bytes(data)
        refused(path, "x.safetensors: cannot be read as safetensors: ")
    assert not (tmp_path / "ran").exists()


# Kaldi


def write_ark(folder: Path, vectors: dict[str, Any], **options: Any) -> Path:
    kaldiio.save_ark(str(folder / "x.ark"), vectors, scp=str(folder / "x.scp"), **options)
    return folder / "x.ark"


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_kaldi(tmp_path: Path, *, text: bool, kind: str, shape: tuple[int, ...]) -> None:
    vectors = {name: v.astype(kind).reshape(shape) for name, v in vectors_of().items()}
    path = write_ark(tmp_path, vectors, text=text)
    check(read_embeddings(path))
    check(read_embeddings(path.with_suffix(".scp")))


def test_text_of_kaldi_itself(tmp_path: Path) -> None:
    """Kaldi prints what is whole without a point, which kaldiio itself fails on."""
    path = tmp_path / "x.ark"
    path.write_text("a  [ 0 0.5 1e-05 ]\nb  [\n  1 2.5 -3 ]\n")
    got = read_embeddings(path)
    assert got.names == ["a", "b"]
    np.testing.assert_array_equal(got.vectors, np.array([[0, 0.5, 1e-5], [1, 2.5, -3]], "f4"))
    with pytest.raises(ValueError, match="could not convert"):
        dict(kaldiio.load_ark(io.BytesIO(path.read_bytes())))


def test_scp_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name, vector in zip(("a:1.ark", "b.ark"), VECTORS, strict=False):
        kaldiio.save_mat(str(tmp_path / "work" / name), vector)
    kaldiio.save_mat(str(tmp_path / "lists" / "b.ark"), VECTORS[1] + 1)
    kaldiio.save_mat(str(tmp_path / "lists" / "c d.ark"), VECTORS[2])
    scp = tmp_path / "lists" / "x.scp"
    scp.write_text(f"{NAMES[0]} a:1.ark\n{NAMES[1]}  b.ark:0 \n{NAMES[2]} c d.ark:0\n")
    check(read_embeddings(scp))


def test_scp_opens_each_ark_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:04}" for n in range(1000)]
    path = write_ark(tmp_path, dict.fromkeys(names, VECTORS[0]))
    lines = path.with_suffix(".scp").read_text().splitlines()
    path.with_suffix(".scp").write_text("\n".join(lines[::-1]))
    opened: list[Path] = []
    real = Path.open

    def counting(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(self)
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", counting)
    assert read_embeddings(path.with_suffix(".scp")).names == names[::-1]
    assert opened.count(path) == 1


def test_scp_over_very_many_arks(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for n in range(400):
        kaldiio.save_mat(str(tmp_path / f"{n}.ark"), VECTORS[0])
    (tmp_path / "x.scp").write_text("".join(f"{n} {n}.ark\n" for n in range(400)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        assert len(read_embeddings(tmp_path / "x.scp").names) == 400
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "place",
    [
        "touch {ran} |",
        "|touch {ran}",
        "cat {ark} |",
        "| cat",
        "touch {ran}; cat {ark}|",
        "{ark}:0[0:1]",
        "",
    ],
)
def test_scp_runs_nothing(tmp_path: Path, place: str) -> None:
    ark, ran = write_ark(tmp_path, vectors_of()), tmp_path / "ran"
    line = "a " + place.format(ark=ark, ran=ran)
    (tmp_path / "y.scp").write_text(f"{line}\n")
    refused(
        tmp_path / "y.scp", r"y.scp: line 1 is 'a.*expected 'NAME FILE:BYTE'. Commands .* never"
    )
    assert not ran.exists()


def test_the_name_of_the_scp_is_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(Path("|touch ran; cat x.scp"), "this file does not exist")
    assert not (tmp_path / "ran").exists()


def entry(name: str, data: bytes) -> bytes:
    return name.encode() + b" " + data


def fv(count: int, data: bytes) -> bytes:
    return b"\0BFV \4" + struct.pack("<i", count) + data


ZEROS = bytes(16)
BROKEN_ARKS = {
    "PKL": entry("a", b"PKL" + pickle.dumps(1)),
    "NPY": entry("a", b"NPY\1\1x"),
    "RIFF": entry("a", b"RIFF" + ZEROS),
    "fLaC": entry("a", b"fLaC" + ZEROS),
    "AUDIO": entry("a", b"AUDIO\1\1x"),
    "int32": entry("a", b"\0B\4" + ZEROS),
    "compressed": entry("a", b"\0BCM " + ZEROS),
    "cut header": entry("a", fv(4, b"")[:8]),
    "cut": entry("a", fv(4, ZEROS[:-4])),
    "cut number": entry("a", fv(4, ZEROS[:-1])),
    "negative": entry("a", fv(-1, ZEROS)),
    "huge": entry("a", fv(2**31 - 1, ZEROS)),
    "negative matrix": entry("a", b"\0BFM \4" + struct.pack("<ibi", -1, 4, -4) + ZEROS),
    "no bracket": entry("a", b" 1 2 3\n"),
    "open bracket": entry("a", b" [ 1 2 3\n"),
    "words": entry("a", b" [ 1 x 3 ]\n"),
    "ragged": entry("a", b" [\n 1 2 3\n 4 5 ]\n"),
    "nothing": entry("a", b""),
}


@pytest.mark.parametrize("what", BROKEN_ARKS)
@pytest.mark.parametrize("before", [b"", entry("z", fv(4, ZEROS))], ids=["first", "second"])
def test_broken_ark(tmp_path: Path, what: str, before: bytes) -> None:
    path = tmp_path / "x.ark"
    path.write_bytes(before + BROKEN_ARKS[what])
    match = rf"x.ark: 'a': no whole vector at byte {len(before) + 2}, which begins with b"
    refused(path, match)
    path.with_suffix(".scp").write_text(f"a x.ark:{len(before) + 2}\n")
    refused(path.with_suffix(".scp"), match)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (entry("a", b"[ ]\n"), r"names .'a' first.*got float64 of shape \(0,\)"),
        (entry("a", b"[\n 1 2\n 3 4 ]\n"), r"'a' first.*got float64 of shape \(2, 2\)"),
        (entry("a", fv(0, b"")), r"got 1 names and float32 of shape \(1, 0\)"),
        (
            entry("a", fv(4, ZEROS)) + entry("b", fv(2, ZEROS[:8])),
            "'b' has 2 numbers, but 'a' has 4",
        ),
        (entry("a", fv(4, ZEROS)) * 2, "'a' occurs twice, in rows 0 and 1"),
        (entry("a", b"[ 1 nan ]\n"), r"row 0 \('a'\) has a number that is not finite"),
        (entry("a", b"[ 1 1e300 ]\n"), r"row 0 \('a'\) has a number that is not finite"),
        (b" x", "byte 0: expected the name of an utterance"),
        (bytes(100_000), "byte 0: expected the name of an utterance"),
        (b"x" * 100_000 + b" ", "byte 0: expected the name of an utterance"),
    ],
)
def test_ark_of_other_contents(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "x.ark").write_bytes(data)
    refused(tmp_path / "x.ark", match)


def test_pickles_in_an_ark_are_not_read(tmp_path: Path) -> None:
    """kaldiio runs them: that is why its read_kaldi, load_ark and load_scp are not called."""
    path = tmp_path / "x.ark"
    path.write_bytes(entry("a", b"PKL" + pickle.dumps(Bomb(tmp_path))))
    path.with_suffix(".scp").write_text("a x.ark:2\n")
    for file in (path, path.with_suffix(".scp")):
        refused(file, r"begins with b'PKL.*Nothing was run")
    assert not (tmp_path / "ran").exists()
    list(kaldiio.load_ark(io.BytesIO(path.read_bytes())))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "place", ["nowhere.ark:5", "empty.ark", ".", "pipe", "x.ark:99999999999999999999", "/dev/zero"]
)
def test_scp_of_missing_places(tmp_path: Path, place: str) -> None:
    write_ark(tmp_path, vectors_of())
    (tmp_path / "empty.ark").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "y.scp").write_text(f"a {place}\n")
    refused(
        tmp_path / "y.scp",
        "line 1 names .*no file|does not exist or is empty|no whole vector at byte 9",
    )


def test_kaldiio_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ark(tmp_path, vectors_of())
    monkeypatch.setitem(sys.modules, "kaldiio.matio", None)
    with pytest.raises(DependencyError, match="Run 'pip install kaldiio'"):
        read_embeddings(path)


# Pickles


class Bomb:
    """Its pickle makes a file when it is read by a plain reader."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ran"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.path),))


class OldPickler(pickle._Pickler):
    """Writes what NumPy 1 writes and, on demand, text and bytes in the way of Python 2."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_global(self: Any, obj: Any, name: str | None = None) -> None:
        module, name = obj.__module__, name or obj.__qualname__
        module = {"numpy._core.multiarray": "numpy.core.multiarray"}.get(module, module)
        if self.proto >= 4:
            self.save(module.replace("numpy._core", "numpy.core"))
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".replace("_core", "core").encode())
        self.memoize(obj)

    def save_old(self: Any, obj: str | bytes) -> None:
        data = obj.encode() if isinstance(obj, str) else obj
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(obj)

    dispatch[type(len)] = save_global
    dispatch[type(Bomb)] = save_global
    dispatch[type(check)] = save_global


class Python2Pickler(OldPickler):
    dispatch: ClassVar[dict[Any, Any]] = dict(OldPickler.dispatch)
    dispatch[str] = dispatch[bytes] = OldPickler.save_old


def old_pickle(content: Any, protocol: int, pickler: type[OldPickler] = OldPickler) -> bytes:
    file = io.BytesIO()
    pickler(file, protocol).dump(content)
    return file.getvalue()


def write_pickle(folder: Path, content: Any, protocol: int | None = None) -> Path:
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    path = folder / "x.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u2", "i8"])
def test_pickle(tmp_path: Path, protocol: int, kind: str) -> None:
    vectors = (VECTORS * 8 + 4).astype(kind)
    for content in (
        vectors_of(vectors=vectors),
        OrderedDict(vectors_of(vectors=vectors)),
        {np.str_(name): vector[None] for name, vector in vectors_of(vectors=vectors).items()},
        dict(zip(NAMES, np.asfortranarray(vectors), strict=True)),
        dict(zip(NAMES, np.asfortranarray(vectors[:, None]), strict=True)),
    ):
        check(read_embeddings(write_pickle(tmp_path, content, protocol)), vectors)
    path = write_pickle(tmp_path, vectors_of(), protocol)
    check(read_embeddings(path.rename(path.with_suffix(".pickle"))))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_numpy_1(tmp_path: Path, protocol: int) -> None:
    data = old_pickle(vectors_of(), protocol)
    assert b"numpy.core" in data
    assert b"_core" not in data
    check(read_embeddings(write_pickle(tmp_path, data)))


def test_pickle_of_python_2(tmp_path: Path) -> None:
    vectors = VECTORS * np.float32(1 / 3)
    data = old_pickle(vectors_of(vectors=vectors), 2, Python2Pickler)
    assert b"_codecs" not in data
    check(read_embeddings(write_pickle(tmp_path, data)), vectors)


def code(module: str, name: str, argument: bytes = b"") -> bytes:
    """Return a pickle, {'a': module.name(argument)}, as a person would write it by hand."""
    return b"(dS'a'\nc" + f"{module}\n{name}\n(".encode() + argument + b"tRs."


GLOBALS = [
    ("os", "system"),
    ("posix", "system"),
    ("os", "mkdir"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("__builtin__", "eval"),
    ("builtins", "getattr"),
    ("builtins", "dict"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("pickle", "loads"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy", "memmap"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy._core.multiarray", "_reconstruct.__globals__"),
    ("_codecs", "decode"),
    ("_codecs", "encode.__self__"),
    ("collections", "OrderedDict.__init__"),
    ("collections", "defaultdict"),
    ("copyreg", "_reconstructor"),
    ("voxblink2_lib.scoring.pickles", "_Record"),
]


@pytest.mark.parametrize(("module", "name"), GLOBALS)
def test_other_globals_are_refused(tmp_path: Path, module: str, name: str) -> None:
    ran = tmp_path / "ran"
    data = code(module, name, f"S'touch {ran}'\n".encode())
    match = rf"x.pkl: not a pickled .*it names {module}.{name}, .*Nothing of it was run"
    refused(write_pickle(tmp_path, data), match)
    four = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)
    )
    refused(write_pickle(tmp_path, four + b"\x93."), match)
    assert not ran.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bombs_do_not_go_off(tmp_path: Path, protocol: int) -> None:
    bomb = Bomb(tmp_path)
    hostile: list[Any] = [
        bomb,
        {"a": bomb},
        {"a": VECTORS[0], "b": [[bomb]]},
        {"a": np.array([bomb], object)},
        {"a": np.array([VECTORS[0], bomb], object)},
        {"a": functools.partial(os.mkdir, str(bomb.path))},
        OrderedDict(a=(VECTORS[0], bomb)),
    ]
    for content in hostile:
        refused(write_pickle(tmp_path, content, protocol), "it names .*Nothing of it was run")
        assert not bomb.path.exists()
    pickle.loads(pickle.dumps(bomb, protocol))
    assert bomb.path.exists()


RECORD = b"cnumpy\ndtype\n"
TRICKS = {
    "call the class of arrays": code("numpy", "ndarray", b"(I2\nt"),
    "set attributes of a class": b"(dS'a'\n" + RECORD + b"(N(dS'__init__'\nS'x'\nstbs.",
    "set the state of a class": b"(dS'a'\n" + RECORD + b"(dS'args'\nI1\nsbs.",
    "set attributes of dict": b"(dS'a'\nccollections\nOrderedDict\n(N(dS'x'\nI1\nstbs.",
    "set entries of dict": b"(dS'a'\nccollections\nOrderedDict\n(dS'x'\nI1\nsbs.",
    "append to a record": b"(dS'a'\n" + RECORD + b"(tRI1\nas.",
    "set items of a record": b"(dS'a'\n" + RECORD + b"(tRI1\nI1\nss.",
    "a persistent id": b"(dS'a'\nPx\ns.",
    "an unhashable name": b"(d(lI1\ns.",
    "an extension": b"\x80\x02}U\x01a\x82\x01s.",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks(tmp_path: Path, trick: str) -> None:
    refused(write_pickle(tmp_path, TRICKS[trick]), "x.pkl: not a pickled dictionary of arrays: ")
    check(read_embeddings(write_pickle(tmp_path, vectors_of())))  # nothing stays behind


DTYPE = b"cnumpy\ndtype\n(S'{code}'\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


def array_of(code: str = "f4", shape: bytes = b"(I1\nt", raw: bytes = b"S'0000'\n") -> bytes:
    """Return a pickle, {'a': array}, of parts that need not fit."""
    head = b"(dS'a'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return (
        head + b"(I1\n" + shape + DTYPE.replace(b"{code}", code.encode()) + b"I00\n" + raw + b"tbs."
    )


def test_an_array_by_hand(tmp_path: Path) -> None:
    got = read_embeddings(write_pickle(tmp_path, array_of()))
    assert got.vectors.tobytes() == b"0000"


@pytest.mark.parametrize(
    "data",
    [
        array_of("O8"),
        array_of("O8", raw=b"(lN."),
        array_of("V4"),
        array_of("S4"),
        array_of("M8"),
        array_of("f3"),
        array_of("f4,O"),
        array_of("f99999999999999999999"),
        array_of(shape=b"(I2\nt"),
        array_of(shape=b"(I-1\nI-1\nt"),
        array_of(shape=b"(L99999999999999999999999L\nt"),
        array_of(shape=b"S'x'\n"),
        array_of(raw=b"S'000'\n"),
        array_of(raw=b"N"),
        array_of(raw=b"c_codecs\nencode\n(S'0000'\nS'rot13'\ntR"),
        array_of(raw=b"c_codecs\nencode\n(S'0000'\nS'utf-16'\ntR"),
        array_of(raw=b"c_codecs\nencode\n(V\\u0416\nS'latin1'\ntR"),
        code("numpy", "dtype", b"S'f4'\n"),
        code("numpy.core.multiarray", "_reconstruct", b"S'f4'\n"),
        code("numpy.core.multiarray", "scalar"),
        code("numpy._core.numeric", "_frombuffer", b"S'0000'\nN(I1\ntS'C'\n"),
        code("_codecs", "encode", b"S'a'\nS'latin1'\n"),
        code("collections", "OrderedDict"),
    ],
)
def test_arrays_that_do_not_hold_together(tmp_path: Path, data: bytes) -> None:
    refused(
        write_pickle(tmp_path, data),
        "x.pkl: 'a': expected a name and an array of real|x.pkl: not a pickled",
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([VECTORS], "not a pickled dictionary of arrays: .*it holds one list"),
        (VECTORS, "not a pickled dictionary of arrays: .*it holds one array"),
        ({}, "it contains no embeddings"),
        ({1: VECTORS[0]}, "not a pickled .* it has a key that is no text, at byte"),
        ({np.int64(7): VECTORS[0]}, "x.pkl: a value .*: expected a name .*: a name of type int"),
        ({b"a": VECTORS[0]}, "it has a key that is no text"),
        ({None: VECTORS[0]}, "it has a key that is no text"),
        ({"a": [1.0, 2.0]}, "x.pkl: 'a': .* real numbers: a value of type list"),
        ({"a": 1.0}, "x.pkl: 'a': .* real numbers: a value of type float"),
        ({"a": "x"}, "x.pkl: 'a': .* real numbers: a value of type str"),
        ({"a": None}, "x.pkl: 'a': .* real numbers: a value of type NoneType"),
        ({"a": {"b": VECTORS[0]}}, "x.pkl: 'a': .* real numbers: a value of type dict"),
        ({"a": np.float32(1)}, "x.pkl: 'a': .* a name of type str and 0 axes"),
        ({"a": np.array(1.0)}, "x.pkl: 'a': .* a name of type str and 0 axes"),
        ({"a": VECTORS}, r"'a' first.* got float32 of shape \(3, 4\)"),
        ({"a": VECTORS[:, :1]}, r"'a' first.* got float32 of shape \(3, 1\)"),
        ({"a": VECTORS[None]}, r"'a' first.* got float32 of shape \(1, 3, 4\)"),
        ({"a": VECTORS[0, :0]}, r"got 1 names and float32 of shape \(1, 0\)"),
        ({"a": VECTORS[0] > 0}, "'a' first.* got bool"),
        ({"a": VECTORS[0] * 1j}, "'a' first.* got complex64"),
        ({"a": np.array(["x"])}, "'a' first.* got <U1"),
        ({"a": np.array([b"x"])}, r"x.pkl: 'a': .* an array of type 'S1'"),
        ({"a": np.array([None])}, r"x.pkl: 'a': .* an array of type 'O8'"),
        ({"a": np.zeros(2, "f4,f4")}, r"x.pkl: 'a': .* an array of type 'V8'"),
        ({"a": np.zeros(2, "M8[s]")}, r"x.pkl: 'a': .* an array of type 'M8'"),
        ({"a": VECTORS[0], "b": VECTORS[0, :2]}, "'b' has 2 numbers, but 'a' has 4"),
        ({"a": VECTORS[0] * np.nan}, r"row 0 \('a'\) has a number that is not finite"),
        ({"a": VECTORS[0].astype("f8") * 1e300}, r"row 0 \('a'\) has a number that is not finite"),
    ],
)
def test_pickles_of_other_things(tmp_path: Path, content: Any, match: str) -> None:
    refused(write_pickle(tmp_path, content, 4), match)


def test_tensors_of_torch(tmp_path: Path) -> None:
    import torch

    content = {"a": torch.ones(4)}
    refused(write_pickle(tmp_path, content), r"it names torch\..*of torch: tensor.cpu.*\.npy or")
    torch.save(content, tmp_path / "y.pkl")
    refused(tmp_path / "y.pkl", "y.pkl: not a pickled dictionary of arrays")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cut_pickles(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps(vectors_of(), protocol)
    for length in range(1, len(data)):
        refused(write_pickle(tmp_path, data[:length]), "x.pkl: not a pickled dictionary")


@pytest.mark.parametrize(
    "data", [b"garbage", b"\0" * 100, b"\x80\x63.", b"\x80\x04\x95", b"PK\3\4", "ü".encode()]
)
def test_garbage_pickles(tmp_path: Path, data: bytes) -> None:
    refused(write_pickle(tmp_path, data), "x.pkl: not a pickled dictionary of arrays")


def test_no_warnings(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(read_embeddings(write_pickle(tmp_path, vectors_of())))
        check(read_embeddings(write_ark(tmp_path, vectors_of())))


# -- Corpora ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpora", "expected"),
    [
        (["VoxCeleb1", "voxceleb 1"], "VoxCeleb1"),
        (["VoxCeleb1", "VoxCeleb2"], None),
        (["VoxCeleb1", None], None),
        ([None, None], None),
    ],
)
def test_a_folder_is_of_the_corpus_that_all_its_files_say(
    corpora: list[str | None], expected: str | None, tmp_path: Path
) -> None:
    for place, corpus in enumerate(corpora):
        table = pa.table({"name": [f"{place}"], "embedding": [[1.0, 2.0]]})
        metadata = {"voxblink2_corpus": corpus} if corpus else None
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{place}.parquet")
    assert read_embeddings(tmp_path).corpus == expected
