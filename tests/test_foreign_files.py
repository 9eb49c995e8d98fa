"""What foreign files ask for is refused before it is granted, and what they say stays short."""

from __future__ import annotations

import contextlib
import json
import pickle
import pickletools
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import hostile_files

from voxblink2_lib.errors import ReleaseError, ScoringError
from voxblink2_lib.foreign_files import as_own_error, scan_pickle, shortened

TESTS = Path(__file__).parent

# -- Messages --------------------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=500), st.binary(max_size=500), st.integers(), st.floats()))
def test_a_short_value_is_shown_whole_and_a_long_one_in_part(value: Any) -> None:
    shown = shortened(value)
    if not isinstance(value, str | bytes) or len(value) <= 200:
        assert shown == repr(value)
    else:
        assert shown == f"{value[:200]!r}... (length {len(value)})"


def test_a_value_that_would_be_huge_is_named_by_its_type() -> None:
    nested: list[Any] = []
    for _ in range(40):  # a trillion elements in its repr
        nested = [nested, nested]
    assert shortened(nested) == "a value of type list"
    assert shortened(1 << 10_000_000) == "a number that is huge"
    assert len(shortened("x" * 10_000_000, quoted=False)) < 300


def test_errors_of_ours_pass_and_others_get_a_place() -> None:
    with pytest.raises(ReleaseError, match="ours"), as_own_error(ScoringError, "x.npy"):
        raise ReleaseError("ours")
    for error in (
        MemoryError(),
        KeyError("a" * 9_000),
        RecursionError("deep.\nmore"),
        OSError("?"),
    ):
        match = r"^x\.npy, row 3: .*\. Again\.$"
        with (
            pytest.raises(ScoringError, match=match) as caught,
            as_own_error(ScoringError, "x.npy, row 3", "Again."),
        ):
            raise error
        assert len(str(caught.value)) < 300
    with pytest.raises(KeyboardInterrupt), as_own_error(ScoringError, "x.npy"):
        raise KeyboardInterrupt


# -- Pickles ---------------------------------------------------------------------------------------

ARRAYS = st.builds(
    np.ones,
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["f2", "f4", ">f8", "i8", "U3"]),
)
CONTENTS = st.dictionaries(st.text(max_size=9) | st.just("x" * 70_000), ARRAYS, max_size=4)


@given(content=CONTENTS, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL), ordered=st.booleans())
def test_what_picklers_write_passes(content: dict[str, Any], protocol: int, ordered: bool) -> None:
    data = pickle.dumps(OrderedDict(content) if ordered else content, protocol)
    assert scan_pickle(data) == len(data)
    shorter = pickletools.optimize(data)
    assert scan_pickle(b"before" + shorter + b"after", len(b"before")) == len(b"before" + shorter)


@given(CONTENTS, st.data())
def test_a_pickle_cut_off_or_changed_is_scanned_or_an_error(
    content: dict[str, Any], data: st.DataObject
) -> None:
    whole = bytearray(pickle.dumps(content, data.draw(st.integers(0, 5))))
    with pytest.raises(ValueError, match=r"at byte"):
        scan_pickle(bytes(whole[: data.draw(st.integers(0, len(whole) - 1))]))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        scan_pickle(bytes(whole))


def nested_list(depth: int) -> list[Any]:
    content: list[Any] = []
    for _ in range(depth):
        content = [content]
    return content


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({1: None}, "a key that is no text"),
        ({None: None}, "a key that is no text"),
        ({("a",): None}, "a key that is no text"),
        ({"a": {b"a": None}}, "a key that is no text"),
        ({"a": {"a", "b"}}, "the instruction EMPTY_SET, which arrays do not need"),
        (nested_list(33), "more than 32 values in each other"),
    ],
)
def test_what_arrays_do_not_need_is_refused(content: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        scan_pickle(pickle.dumps(content, 4))


def test_numbers_are_keys_where_the_caller_allows_them() -> None:
    data = pickle.dumps({1: None})
    assert scan_pickle(data, text_keys=False) == len(data)
    with pytest.raises(ValueError, match="a key that is no text"):
        scan_pickle(pickle.dumps({(1,): None}), text_keys=False)


# -- All of them -----------------------------------------------------------------------------------

EXPECTED = {
    "pkl": r"not a pickled dictionary|expected a name and an array",
    "npy": "cannot be read as a NumPy array: .",
    "safetensors": "cannot be read as safetensors: .",
    "parquet": r"cannot be read as Parquet: it claims 1,000,000 rows in [0-9,]+ bytes",
    "arrow": r"is damaged \(it has a compressed batch|claims 1,099,511,627,776 rows",
}


def test_hostile_files_end_in_words_with_little_memory(tmp_path: Path) -> None:
    hostile_files.write_all(tmp_path)
    command = [sys.executable, "-W", "error", "-m", "support.hostile_files", str(tmp_path)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    messages = json.loads(done.stdout)
    files = {path.name for path in tmp_path.iterdir() if path.suffix != ".txt"}
    assert messages.keys() == files
    for name, message in messages.items():
        assert str(tmp_path / name) in message
        assert len(message) < 700, message
        assert re.search(EXPECTED[name.rpartition(".")[2]], message), message
