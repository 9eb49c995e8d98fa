"""``score calibrate``: fitted on some trials, applied to others, never to the same in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring import act_dcf, cllr, min_cllr
from voxblink2_lib.scoring.score_files import read_scores

COUNT = 900


def write_system(path: Path, seed: int, corpus: str, noise: float, *, labels: bool = True) -> None:
    """Write the scores of a system in an order of its own; durations are the same for all."""
    generator = np.random.default_rng(seed)
    lines = []
    for row in generator.permutation(COUNT):
        is_target = row % 3 == 0
        score = 0.2 + 0.3 * is_target + noise * generator.normal() + 0.05 * np.log(1 + row % 7)
        label = ("target" if is_target else "nontarget") if labels else ""
        lines.append(f"{corpus}e{row} {corpus}t{row} {score} {label}".rstrip())
    path.write_text("\n".join([*lines, ""]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two systems on a corpus to fit on and another to apply to, and durations."""
    for corpus in ("dev", "eval"):
        write_system(tmp_path / f"{corpus}_a.txt", 1 + len(corpus), corpus, 0.12)
        write_system(tmp_path / f"{corpus}_b.txt", 5 + len(corpus), corpus, 0.15)
        rows = [
            f"{corpus}e{row} {1 + row % 7}\n{corpus}t{row} {9 - row % 4}\n" for row in range(COUNT)
        ]
        (tmp_path / f"{corpus}_utt2dur").write_text("".join(rows))
    write_system(tmp_path / "bare.txt", 5, "eval", 0.12, labels=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., Any]


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of ``score calibrate``; return its object, message, or lines for people."""

    def run(line: str, code: int = 0, is_json: bool = True) -> Any:
        capsys.readouterr()
        words = ["score", "calibrate", *line.split(), *(["--json"] if is_json else [])]
        assert main(words) == code
        output = capsys.readouterr().out
        if not is_json:
            return output.splitlines()
        return json.loads(output)["message"] if code else json.loads(output)

    return run


FUSION = "fit dev_a.txt dev_b.txt --quality dev_utt2dur --log --out cal.json"


def test_calibrated_scores_of_other_trials_are_ratios(run: Run) -> None:
    run("fit dev_a.txt --out cal.json")
    run("apply cal.json eval_a.txt --out llr.txt")
    raw, ratios = read_scores("eval_a.txt"), read_scores("llr.txt")
    assert (ratios.trials.names, ratios.trials.labels is not None) == (raw.trials.names, True)
    labels = ratios.trials.labels
    assert cllr(raw.scores, labels) > 0.8
    assert cllr(ratios.scores, labels) < min_cllr(ratios.scores, labels) + 0.05
    assert act_dcf(ratios.scores, labels, p_target=0.3).act_dcf < 0.5


def test_systems_and_measures_are_fused_in_the_order_of_the_fit(run: Run) -> None:
    record = run(FUSION)
    assert [system["scores"] for system in record["systems"]] == ["dev_a.txt", "dev_b.txt"]
    assert [*record["quality"]] == ["min log measure", "max log measure"]
    applied = run("apply cal.json eval_a.txt eval_b.txt --quality eval_utt2dur --out llr.csv")
    assert applied["calibration"] == {
        k: v for k, v in record.items() if k in applied["calibration"]
    }
    fused = read_scores("llr.csv")
    alone = [read_scores(f"eval_{name}.txt") for name in "ab"]
    least = [min_cllr(each.scores, each.trials.labels) for each in alone]
    assert cllr(fused.scores, fused.trials.labels) < min(least)
    lines = run(
        "apply cal.json eval_a.txt eval_b.txt --quality eval_utt2dur --out llr.csv", is_json=False
    )
    weight = record["systems"][1]["weight"]
    assert f"Weight    {weight:.6g}   eval_b.txt, as dev_b.txt in the fit" in lines
    assert lines[-1] == "Log-likelihood ratios in llr.csv"


def test_scores_without_labels_stay_without(run: Run) -> None:
    run("fit dev_a.txt --out cal.json")
    assert run("apply cal.json bare.txt --out llr.parquet")["trials"] == COUNT
    assert read_scores("llr.parquet").trials.labels is None


def test_labels_may_be_of_a_list_which_may_be_a_part(run: Run, folder: Path) -> None:
    rows = range(0, COUNT, 2)
    (folder / "key").write_text("".join(f"{int(r % 3 == 0)} deve{r} devt{r}\n" for r in rows))
    record = run("fit dev_a.txt --trials key --out cal.json")
    assert (record["trials"], record["targets"], record["other_scores"]) == (450, 150, [450])
    (folder / "part").write_text("evale3 evalt3\nevale8 evalt8\n")
    assert run("apply cal.json bare.txt --trials part --out llr.txt")["other_scores"] == [COUNT - 2]
    assert len(read_scores("llr.txt").scores) == 2


def test_what_was_fitted_on_is_refused_by_file_and_by_trials(run: Run) -> None:
    record = run("fit dev_a.txt --out cal.json")
    message = run("apply cal.json dev_a.txt --out llr.txt", code=2)
    assert message.startswith("cal.json: score file 1 is a file that it was fitted on. Rates of")
    # The same trials by another system.
    message = run("apply cal.json dev_b.txt --out llr.txt", code=2)
    assert message.startswith("cal.json: the 900 trials are those that it was fitted on.")
    assert not Path("llr.txt").exists()
    line = "apply cal.json dev_a.txt --allow-overlap --out llr.txt"
    assert run(line)["overlap"] == {"fitted_on": True}
    assert "Overlap   score file 1 is a file that it was fitted on" in run(line, is_json=False)
    assert record["trials_sha256"] == run("fit dev_b.txt --out other.json")["trials_sha256"]
    assert run("apply cal.json eval_a.txt --out llr.txt")["overlap"] == {"fitted_on": False}


def test_contaminated_trials_are_refused_or_in_the_output(run: Run, folder: Path) -> None:
    with open(folder / "dev_a.txt", "a", encoding="utf-8") as file:
        file.write("deve1 deve1 1.0 target\n")
    assert "1 trial is of an utterance with itself" in run("fit dev_a.txt --out cal.json", code=2)
    line = "fit dev_a.txt --allow-overlap --out cal.json"
    assert run(line)["overlap"]["self_trials"] == 1
    assert any(text.startswith("Overlap   1 ") for text in run(line, is_json=False))


def test_a_weight_below_0_is_pointed_out(run: Run, folder: Path) -> None:
    words = (line.split() for line in (folder / "dev_a.txt").read_text().splitlines())
    lines = (f"{e} {t} {-float(score)} {label}\n" for e, t, score, label in words)
    (folder / "distances.txt").write_text("".join(lines))
    lines = run("fit distances.txt --out cal.json", is_json=False)
    assert any("negative: the higher a score, the less likely" in line for line in lines)
    assert not any("negative" in line for line in run(FUSION, is_json=False) if "Weight" in line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit dev_a.txt --log --out cal.json", "--log goes with --quality, which is missing"),
        ("fit bare.txt --out cal.json", "bare.txt has no labels"),
        ("fit dev_a.txt --p-target 1 --out cal.json", "p_target must lie between 0 and 1, got 1"),
        ("fit dev_a.txt --ridge -1 --out cal.json", "ridge must be 0 or more, got -1"),
        ("fit dev_a.txt --out nowhere/cal.json", "nowhere/cal.json cannot be written: it is a"),
        ("fit dev_a.txt eval_b.txt --out cal.json", "900 of 900 trials have no score in eval_b"),
        ("fit dev_a.txt dev_a.txt --out cal.json", "one follows from the others; leave it out"),
        ("apply cal.json eval_a.txt --out llr.txt", "fitted on, 2, in this order: dev_a.txt, dev"),
        ("apply cal.json eval_a.txt eval_b.txt --out llr.txt", "name a file of them: --quality"),
        ("apply cal.json eval_a.txt eval_b.txt --out llr.doc", "its extension is '.doc'; allowed"),
        ("apply none.json eval_a.txt --out llr.txt", "none.json cannot be read: No such file"),
        ("apply dev_a.txt eval_a.txt --out llr.txt", "dev_a.txt cannot be read as a calibration"),
    ],
)
def test_what_does_not_fit_is_refused(line: str, message: str, run: Run) -> None:
    run(FUSION)
    assert message in run(line, code=2)
