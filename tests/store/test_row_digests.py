"""The digest of a row is over all of its values, and over nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from voxblink2_lib.records import ConfigName
from voxblink2_lib.store.row_digests import DIGEST_BYTES, row_digests, row_names
from voxblink2_lib.store.schema import arrow_schema


def row(number: int) -> dict[str, Any]:
    boxes = np.arange(4 * number, dtype=np.int16).reshape(number, 4).tolist()
    return {
        "audio": {"bytes": bytes([number]) * 50, "path": f"{number}.flac"},
        "video": {"bytes": bytes([number]) * 70, "path": f"{number}.mp4"},
        "speaker_id": "id000001",
        "video_id": "abcdefghijk",
        "utterance_id": f"{number:05}",
        "start_seconds": number / 25,
        "end_seconds": number + 0.5,
        "source": "files",
        "boxes": boxes,
        "boxes_fit": True,
        "boxes_evidence": "header",
    }


def batch(rows: list[dict[str, Any]], config: ConfigName = "audio-visual") -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=arrow_schema(config))


OTHERS: dict[str, Any] = {
    "audio": [{"bytes": b"", "path": "3.flac"}, {"bytes": b"\3" * 50, "path": None}],
    "video": [{"bytes": b"\3" * 69 + b"\4", "path": "3.mp4"}],
    "speaker_id": ["id000002"],
    "video_id": ["abcdefghijK"],
    "utterance_id": ["00004"],
    "start_seconds": [0.12000000000000001, -0.0],
    "end_seconds": [3.25],
    "source": ["", "file"],
    "boxes": [[], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 12]], [[0, 1, 2, 3]]],
    "boxes_fit": [False],
    "boxes_evidence": ["assumed"],
}


@pytest.mark.parametrize("config", ["audio", "audio-visual"])
def test_they_do_not_depend_on_the_batch(config: ConfigName) -> None:
    whole = batch([row(number) for number in range(9)], config)
    digests = row_digests(whole)
    assert len(set(digests)) == 9
    assert {len(digest) for digest in digests} == {DIGEST_BYTES}
    assert [row_digests(whole.slice(n, 1))[0] for n in range(9)] == digests
    assert row_digests(whole.slice(4)) == digests[4:]
    assert row_digests(whole.take(pa.array([5, 2]))) == [digests[5], digests[2]]
    assert row_names(whole)[3] == "id000001/abcdefghijk/00003"


@pytest.mark.parametrize("column", OTHERS)
def test_each_value_is_in_it(column: str) -> None:
    (digest,) = row_digests(batch([row(3)]))
    for value in OTHERS[column]:
        if value == row(3)[column]:
            continue
        assert row_digests(batch([{**row(3), column: value}])) != [digest], value


def test_bytes_do_not_pass_from_one_value_to_the_next() -> None:
    first = {**row(1), "video_id": "ab", "utterance_id": "c"}
    second = {**row(1), "video_id": "a", "utterance_id": "bc"}
    assert row_digests(batch([first])) != row_digests(batch([second]))
