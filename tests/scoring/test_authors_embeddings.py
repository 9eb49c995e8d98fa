"""Embeddings as the authors and others save them: a name for each vector, and no code is run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import read_embeddings
from voxblink2_lib.scoring.protocols import read_protocols

NAMES = ["id10000-abcdefghijk-00001", "id10000/abcdefghijk/00002.wav", "noise", "x y"]
VECTORS = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
Vectors = dict[str, Any]


def rows(*, kind: str = "f4", axes: int = 2) -> Vectors:
    """A dictionary of arrays of the shape (1, dimensions), as the scripts have it, or vectors."""
    shape = (1, 6) if axes == 2 else (6,)
    return {
        name: vector.astype(kind).reshape(shape)
        for name, vector in zip(NAMES, VECTORS, strict=True)
    }


def save_dictionary(path: Path, vectors: Vectors) -> Path:
    np.save(path / "embd.npy", vectors, allow_pickle=True)  # type: ignore[arg-type]  # as they do
    return path / "embd.npy"


def save_npz(path: Path, vectors: Vectors) -> Path:
    np.savez(path / "embd.npz", **vectors)
    return path / "embd.npz"


def save_small_npz(path: Path, vectors: Vectors) -> Path:
    np.savez_compressed(path / "embd.npz", **vectors)
    return path / "embd.npz"


def save_tensors(path: Path, vectors: Vectors) -> Path:
    save_file(
        {name: np.ascontiguousarray(vector) for name, vector in vectors.items()},
        path / "e.safetensors",
    )
    return path / "e.safetensors"


def save_dataset(path: Path, vectors: Vectors) -> Path:
    lists = [np.ravel(vector) for vector in vectors.values()]
    data = datasets.Dataset.from_dict(
        {"n": range(len(lists)), "utt": list(vectors), "embedding": lists}
    )
    data.save_to_disk(path / "saved", num_shards=min(2, len(lists)))
    return path / "saved"


WRITERS: list[Callable[[Path, Vectors], Path]] = [
    save_dictionary, save_npz, save_small_npz, save_tensors, save_dataset
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("kind", "axes"), [("f4", 2), ("f8", 1), ("f2", 2)])
def test_a_name_for_each_vector(
    write: Callable[[Path, Vectors], Path], kind: str, axes: int, tmp_path: Path
) -> None:
    embeddings = read_embeddings(write(tmp_path, rows(kind=kind, axes=axes)))
    order = [embeddings.names.index(name) for name in NAMES]
    assert sorted(order) == [0, 1, 2, 3]
    assert embeddings.vectors.dtype == np.float32
    np.testing.assert_array_equal(embeddings.vectors[order], VECTORS.astype(kind).astype("f4"))


@pytest.mark.parametrize("write", WRITERS)
def test_a_single_utterance(write: Callable[[Path, Vectors], Path], tmp_path: Path) -> None:
    embeddings = read_embeddings(write(tmp_path, {"a": VECTORS[0]}))
    assert embeddings.names == ["a"]
    np.testing.assert_array_equal(embeddings.vectors, VECTORS[:1])


@pytest.mark.parametrize("write", WRITERS[:4])
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"a": VECTORS[:2]}, r"(expected one vector|got float32 of shape|one file of names)"),
        ({"a": VECTORS[0], "b": VECTORS[1, :3]}, r"'b' has 3 numbers, but 'a' has 6"),
        ({"a": VECTORS[0] * np.nan}, r"row 0 \('a'\) has a number that is not finite"),
        ({}, r"embd|e\.safetensors: "),
    ],
    ids=["two rows", "lengths", "nan", "empty"],
)
def test_what_is_no_vector_is_named(
    write: Callable[[Path, Vectors], Path], vectors: Vectors, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match=message):
        read_embeddings(write(tmp_path, vectors))


# -- Hostile files ---------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    "content", [{"a": Evil()}, {"a": VECTORS[:1], "b": {"c": Evil()}}, {Evil(): 1}], ids=range(3)
)
def test_a_pickle_behind_the_header_runs_nothing(
    content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_dictionary(tmp_path, content)
    with pytest.raises(ScoringError, match=r"embd.npy: not a pickled dictionary of arrays: "):
        read_embeddings(path)
    assert capsys.readouterr().out == ""


def test_the_words_are_those_of_the_allow_list(tmp_path: Path) -> None:
    path = save_dictionary(tmp_path, {"a": Evil()})
    with pytest.raises(
        ScoringError,
        match=r"it names builtins\.print, which arrays do not need\. Nothing of it was run",
    ):
        read_embeddings(path)


def with_header(path: Path, pickled: bytes) -> Path:
    """Write what NumPy takes for an array of objects."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(file.getvalue() + pickled)
    return path


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"garbage",
        pickle.dumps(1),
        pickle.dumps(np.array([{}, {}], object)),
        pickle.dumps(np.array([[{}]], object)),
        pickle.dumps(rows())[:-9],
        b"\x80\x04\x8a\xff\xff\xff\x7f.",
        b"cos\nsystem\n(S'true'\ntR.",
    ],
    ids=range(8),
)
def test_other_objects_are_refused(pickled: bytes, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"x.npy: not a pickled dictionary of arrays"):
        read_embeddings(with_header(tmp_path / "x.npy", pickled))


def test_a_bare_dictionary_behind_the_header_is_read_too(tmp_path: Path) -> None:
    path = with_header(tmp_path / "x.npy", pickle.dumps(rows()))
    assert read_embeddings(path).names == NAMES


def test_the_dictionary_has_its_own_names(tmp_path: Path) -> None:
    path = save_dictionary(tmp_path, rows())
    with pytest.raises(ScoringError, match=r"has its own names: .* Drop names \(--names\)"):
        read_embeddings(path, names="x.txt")


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def array_bytes(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"a.npy": array_bytes({"x": 1})},
            r"'a\.npy': it holds Python objects, which are not read",
        ),
        ({"a.npy": array_bytes(np.ones(3))[:-1]}, r"'a\.npy': "),
        ({"a.npy": b"text"}, r"'a\.npy': "),
        ({"a.npy": array_bytes(np.ones(3)).replace(b"(3,)", b"(9,)")}, r"'a\.npy': cannot reshape"),
        ({"a.npy": bytes(90 << 20)}, r"it claims 94,371,840 bytes"),
        ({}, r"contains no embeddings"),
    ],
    ids=range(6),
)
def test_hostile_npz(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=message) as caught:
        read_embeddings(write_zip(tmp_path / "x.npz", members))
    assert "x.npz" in str(caught.value)


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(array_bytes(np.ones(3)))
    with pytest.raises(ScoringError, match=r"x.npz: cannot be read as NumPy arrays: File is not a"):
        read_embeddings(tmp_path / "x.npz")


# -- Data sets -------------------------------------------------------------------------------------


def test_several_data_sets_are_refused_by_their_names(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"utt": ["a"], "embedding": [[1.0, 2.0]]})
    datasets.DatasetDict({"test": data, "dev": data}).save_to_disk(tmp_path / "all")
    with pytest.raises(
        ScoringError, match=r"several data sets\. Name the folder of one: dev, test"
    ):
        read_embeddings(tmp_path / "all")
    assert read_embeddings(tmp_path / "all" / "dev").names == ["a"]


def test_broken_data_sets(tmp_path: Path) -> None:
    path = save_dataset(tmp_path, rows())
    state = path / "state.json"
    good = state.read_text()
    for bad in ("{", "[]", json.dumps({"_data_files": [{"filename": "../../x"}]})):
        state.write_text(bad)
        with pytest.raises(ScoringError, match=r"saved(/x)?: cannot be read as"):
            read_embeddings(path)
    state.write_text(good)
    file = sorted(path.glob("*.arrow"))[0]
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ScoringError, match=rf"{file}: cannot be read as Arrow"):
        read_embeddings(path)
    pa.OSFile(str(file), "wb").close()
    with pytest.raises(ScoringError, match=rf"{file}: cannot be read as Arrow"):
        read_embeddings(path)


# -- Labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gallery", "probe", "enrolled", "truth"),
    [
        ("a 00\nb 01\n", "c 0.0\nd 2.\n", ["0", "1"], ["0", "2"]),
        ("a 00\nb 01\n", "c 0\nd x\n", ["00", "01"], ["0", "x"]),
        ("a 1.5\nb 1\n", "c 01\nd 2\n", ["1.5", "1"], ["01", "2"]),
        ("a -1\nb +1\n", "c 1.00\nd -01\n", ["-1", "1"], ["1", "-1"]),
    ],
)
def test_labels_that_are_integers_have_one_spelling(
    gallery: str, probe: str, enrolled: list[str], truth: list[str], tmp_path: Path
) -> None:
    (tmp_path / "gallery").write_text(gallery)
    (tmp_path / "probe").write_text(probe)
    (protocol,) = read_protocols(tmp_path)
    assert (protocol.gallery_labels, protocol.probe_labels) == (enrolled, truth)
