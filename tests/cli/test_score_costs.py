"""Priors, costs and named evaluations of ``score``: what counts, and what does not fit together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring import act_dcf, cllr, min_dcf

_RNG = np.random.default_rng(5)
LABELS = np.arange(300) % 3 == 0
RATIOS = np.round(_RNG.normal(np.where(LABELS, 2.0, -2.0), 2), 2)

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Evaluate scores; return the object, the message of what fails, or the lines for people."""
    words = ("target" if label else "nontarget" for label in LABELS)
    rows = zip(RATIOS, words, strict=True)
    path = tmp_path / "scores.txt"
    path.write_text("".join(f"a{n} b{n} {score} {word}\n" for n, (score, word) in enumerate(rows)))

    def run(*options: object, code: int = 0, is_json: bool = True) -> Any:
        capsys.readouterr()
        words = ["score", "file", path, *options, *(["--json"] if is_json else [])]
        assert main([str(word) for word in words]) == code
        output = capsys.readouterr().out
        if not is_json:
            return output.splitlines()
        return json.loads(output)["message"] if code else json.loads(output)

    return run


def test_costs_count_everywhere(run: Run) -> None:
    record = run("--p-target", 0.2, 0.05, "--c-miss", 10, "--c-fa", 2)
    assert (record["c_miss"], record["c_fa"]) == (10, 2)
    for row, prior in enumerate((0.2, 0.05)):
        costs = {"p_target": prior, "c_miss": 10.0, "c_fa": 2.0}
        least, actual = min_dcf(RATIOS, LABELS, **costs), act_dcf(RATIOS, LABELS, **costs)
        assert record["min_dcf"][row]["min_dcf"] == least.min_dcf
        assert record["act_dcf"][row]["act_dcf"] == actual.act_dcf
        assert record["act_dcf"][row]["threshold"] == actual.threshold
    assert record["cllr"] == cllr(RATIOS, LABELS)
    assert "primary" not in record
    first = run("--p-target", 0.2, "--c-miss", 10, "--interval", "trials")["intervals"]["min_dcf"]
    assert first != run("--p-target", 0.2, "--interval", "trials")["intervals"]["min_dcf"]


@pytest.mark.parametrize(
    ("preset", "priors", "ranks_by"),
    [("vox", [0.01], "minimum"), ("sre21", [0.01, 0.05], "actual"), ("voxsrc", [0.05], "minimum")],
)
def test_a_preset_is_its_priors_and_the_mean_over_them(
    preset: str, priors: list[float], ranks_by: str, run: Run
) -> None:
    record, plain = run("--preset", preset), run("--p-target", *priors)
    primary = record.pop("primary")
    proofs = record.pop("proof"), plain.pop("proof")
    assert [proof["options"].get("preset") for proof in proofs] == [preset, None]
    assert record == plain
    actual = [act_dcf(RATIOS, LABELS, p_target=prior).act_dcf for prior in priors]
    assert primary["actual"] == pytest.approx(math.fsum(actual) / len(actual), rel=1e-15)
    assert primary["minimum"] == min_dcf(RATIOS, LABELS, p_target=priors).min_dcf
    assert (primary["evaluation"], primary["ranks_by"]) == (preset, ranks_by)
    lines = run("--preset", preset, is_json=False)
    kinds = ("actual", "minimum") if ranks_by == "actual" else ("minimum", "actual")
    text = f"C_primary {primary[kinds[0]]:.4f} {kinds[0]} ({primary[kinds[1]]:.4f} {kinds[1]})"
    assert f"{text}   {preset}: {primary['source']}" in lines


def test_the_output_says_what_scores_are_taken_as(run: Run) -> None:
    lines = run(is_json=False)
    (line,) = [line for line in lines if line.startswith("actDCF and Cllr")]
    assert line.startswith("actDCF and Cllr take scores as log-likelihood ratios")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "sre21", "--p-target", 0.1], "--p-target is part of --preset sre21; give"),
        (["--preset", "vox", "--c-fa", 2], "--c-fa is part of --preset vox; give one of both"),
        (["--c-miss", 0], "c_miss must be a positive number, got 0.0"),
        (["--c-fa", "nan"], "c_fa must be"),
        (["--p-target", 0.1, 1], "p_target must lie between 0 and 1, got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(options: list[object], message: str, run: Run) -> None:
    assert message in run(*options, code=2)
