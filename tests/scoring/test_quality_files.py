"""Quality measures are read by utterance or by trial, and found for every trial."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.quality_files import read_quality
from voxblink2_lib.scoring.trials import TrialList

# Trials a-b, a-c, c-a, b-b.
TRIALS = TrialList(
    ["a.wav", "b.wav", "c.wav"], np.array([0, 0, 2, 1]), np.array([1, 2, 0, 1]), None
)


def read(folder: Path, text: str, **options: Any) -> dict[str, list[float]]:
    path = folder / "quality"
    path.write_text(text)
    return {name: each.tolist() for name, each in read_quality(path, TRIALS, **options).items()}


def test_measures_of_utterances_do_not_depend_on_the_side(tmp_path: Path) -> None:
    text = "a 1.5\nb 4\nc 2e1\n"
    least, most = [1.5, 1.5, 1.5, 4.0], [4.0, 20.0, 20.0, 4.0]
    expected = {"min measure": least, "max measure": most}
    assert read(tmp_path, text) == expected
    logs = {
        name.replace(" ", " log "): [math.log(number) for number in numbers]
        for name, numbers in expected.items()
    }
    assert read(tmp_path, text, is_log=True) == {
        name: pytest.approx(numbers, rel=1e-15) for name, numbers in logs.items()
    }


def test_measures_of_trials_are_those_of_their_lines(tmp_path: Path) -> None:
    text = "b b 4\na c 2\nc a 3\na b -1\na x 9\n"
    assert read(tmp_path, text) == {"measure": [-1, 2, 3, 4]}
    header = "enrol,test,snr,label,words\na,b,1,1,x\na,c,2,0,x\nc,a,3,0,x\nb,b,4,1,x\n"
    assert read(tmp_path, header, columns=["snr"]) == {"snr": [1, 2, 3, 4]}


def test_several_columns_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "quality.parquet"
    columns = {"utterance": ["c", "b", "a"], "seconds": [3.0, 2.0, 1.0], "snr": [10, 20, 30]}
    pq.write_table(pa.table(columns), path)
    measures = read_quality(path, TRIALS)
    assert [*measures] == ["min seconds", "max seconds", "min snr", "max snr"]
    assert measures["max snr"].tolist() == [30, 30, 30, 20]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a 1\nb x\n", {}, r"quality, line 2 has the measure 'x'; allowed are finite decimal"),
        ("a 1\nb nan\n", {}, r"line 2 has the measure 'nan'; allowed are finite"),
        ("a 1\n\nb 0\n", {"is_log": True}, r"line 3 has the measure '0'; .* above 0, for logarit"),
        ("a 1\nb 2\n", {}, r"1 of 3 names have no measure in .*quality\. Names without.*'c\.wav'"),
        ("a 1\nb 2\na 3\n", {}, r"line 3: 'a' has \[3\.0\] here, and \[1\.0\] before\. Keep"),
        ("a b 1\na c 1\n", {}, r"2 of 4 trials have no value in .*; the first is trial 3, 'c\.w"),
        (
            "a b 1\na b 2\na c 1\nc a 1\nb b 1\n",
            {},
            r"line 1 and .*, line 2 are the same trial, .* two values",
        ),
        ("utt,snr\na,1\n", {"columns": ["x"]}, r"has no column 'x'; measures in it are snr\."),
        ("a\n", {}, r"'a' is not the measure of an utterance or a trial"),
        ("", {}, r"quality is empty"),
    ],
)
def test_what_is_refused_is_named(
    text: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match=message):
        read(tmp_path, text, **options)
