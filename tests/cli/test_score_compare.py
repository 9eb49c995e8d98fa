"""``score compare``: two files of scores of the same trials, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring.costs import Costs
from voxblink2_lib.scoring.paired import compare_systems

COUNT, SPEAKERS = 1500, 50
_RNG = np.random.default_rng(3)
LABELS = np.arange(COUNT) % 2 == 0
ENROLMENT = np.arange(COUNT) // 2 % SPEAKERS
TEST = np.where(LABELS, ENROLMENT, (ENROLMENT + _RNG.integers(1, SPEAKERS, COUNT)) % SPEAKERS)
BOTH = _RNG.normal(2.0 * LABELS)
SCORES = {name: BOTH + _RNG.normal(0, sigma, COUNT) for name, sigma in (("a", 0.3), ("b", 0.9))}
NAMES = [
    (f"id{10000 + e}/aaaaaaaaaaa/{n:05}.wav", f"id{10000 + t}/bbbbbbbbbbb/{n:05}.wav")
    for n, (e, t) in enumerate(zip(ENROLMENT, TEST, strict=True))
]

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Compare; return the object, the message of what fails, or the lines for people."""
    monkeypatch.chdir(tmp_path)
    for name, scores in SCORES.items():
        order = np.random.default_rng(len(name)).permutation(COUNT) if name == "b" else range(COUNT)
        rows = (f"{' '.join(NAMES[n])} {scores[n]}" for n in order)
        Path(f"{name}.txt").write_text("\n".join([*rows, ""]))
    rows = (f"{int(c)} {' '.join(pair)}\n" for c, pair in zip(LABELS, NAMES, strict=True))
    Path("key").write_text("".join(rows))

    def run(line: str, code: int = 0, is_json: bool = True) -> Any:
        capsys.readouterr()
        assert main(["score", "compare", *line.split(), *(["--json"] if is_json else [])]) == code
        output = capsys.readouterr().out
        if not is_json:
            return output.splitlines()
        return json.loads(output)["message"] if code else json.loads(output)

    return run


def test_it_is_the_library_s_comparison_by_speaker(run: Run) -> None:
    record = run("a.txt b.txt --trials key --p-target 0.5 0.1 --c-miss 2")
    expected = compare_systems(
        SCORES["a"],
        SCORES["b"],
        LABELS,
        speakers=(ENROLMENT, TEST),
        p_target=(0.5, 0.1),
        costs=Costs(c_miss=2),
    )
    assert record.items() >= expected.as_dict().items()
    assert (record["trials"], record["targets"], record["systems"]) == (
        1500,
        750,
        ["a.txt", "b.txt"],
    )
    assert (record["c_miss"], record["c_fa"], record["other_scores"]) == (2, 1, [0, 0])
    assert record["eer"]["interval"][0] > 0


def test_people_see_a_table(run: Run) -> None:
    lines = run("a.txt b.txt --trials key --p-target 0.5 --interval trials", is_json=False)
    difference = compare_systems(SCORES["a"], SCORES["b"], LABELS, p_target=[0.5]).eer
    assert lines[:3] == [
        "Trials    1,500: 750 target, 750 non-target",
        "A         a.txt",
        "B         b.txt",
    ]
    (head,) = [line for line in lines if "B - A" in line]
    assert head.split("  ")[-1] == "B better"
    (row,) = [line for line in lines if line.startswith("EER (%)")]
    values = [difference.first, difference.second, difference.difference]
    assert [float(word) for word in row.split()[2:5]] == [round(100 * v, 3) for v in values]
    assert row.endswith("  < 0.1 %")
    assert lines[-1].endswith("by 1,000 resamples of trials")
    marked = run("a.txt b.txt --trials key --interval trials", is_json=False)
    assert marked[-1] == "* these may not hold: fewer than 30 errors of a kind"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.txt b.txt", "a.txt has no labels"),
        ("a.txt part.txt --trials key", "1,000 of 1,500 trials of key have no score in part.txt"),
        ("a.txt b.txt --trials key --preset vox --c-fa 2", "--c-fa is part of --preset vox"),
        ("a.txt none.txt --trials key", "none.txt cannot be read: No such file"),
        ("noname.txt noname.txt", "does not contain its speaker"),
    ],
)
def test_what_cannot_be_compared_is_refused(line: str, message: str, run: Run) -> None:
    lines = Path("b.txt").read_text().splitlines(keepends=True)
    Path("part.txt").write_text("".join(lines[:500]))
    Path("noname.txt").write_text("a b 1 target\na c 0 nontarget\n")
    assert message in run(line, code=2)
