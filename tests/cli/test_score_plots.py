"""``score det`` and ``score bayes``: files of scores become one picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring import eer, plots

COUNT = 200
LABELS = np.arange(COUNT) % 2
SCORES = {
    name: np.random.default_rng(seed).normal(4 * LABELS - 2, 2).round(3)
    for seed, name in enumerate("ab")
}

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Draw; return the object, the message of what fails, or the lines for people."""
    monkeypatch.chdir(tmp_path)
    Path("more").mkdir()
    for name, scores in SCORES.items():
        rows = [f"{n} x{n} {score}" for n, score in enumerate(scores)]
        Path(f"{name}.txt").write_text("\n".join([*rows, ""]))
        rows = [f"{row} {['non', ''][LABELS[n]]}target" for n, row in enumerate(rows)]
        Path(f"more/{name}.txt").write_text("\n".join([*rows, ""]))
    Path("key").write_text("".join(f"{c} {n} x{n}\n" for n, c in enumerate(LABELS)))

    def run(line: str, code: int = 0, is_json: bool = True) -> Any:
        capsys.readouterr()
        assert main(["score", *line.split(), *(["--json"] if is_json else [])]) == code
        output = capsys.readouterr().out
        if not is_json:
            return output.splitlines()
        return json.loads(output)["message"] if code else json.loads(output)

    return run


@pytest.mark.parametrize("command", ["det", "bayes"])
def test_systems_are_on_one_picture_with_labels_of_a_list_or_their_own(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    function = {"det": "plot_systems", "bayes": "plot_bayes_errors"}[command]
    draw = getattr(plots, function)

    def remember(sweeps: dict[str, Any], *words: Any, **options: Any) -> None:
        seen.append({"names": [*sweeps], **options})
        draw(sweeps, *words, **options)

    monkeypatch.setattr(plots, function, remember)
    record = run(f"{command} a.txt b.txt --trials key --p-target 0.05 0.5 --out plot.png")
    assert [system["eer"] for system in record["systems"]] == [
        eer(scores, LABELS).eer for scores in SCORES.values()
    ]
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
    words = f"{command} more/a.txt more/b.txt --labels one two --out plot.svg"
    assert run(words, is_json=False)[-1] == "Plot in plot.svg"
    assert [each["names"] for each in seen] == [["a", "b"], ["one", "two"]]
    assert seen[0]["p_target"] == [0.05, 0.5]
    # Files of one name are told apart by their folders.
    record = run(f"{command} a.txt more/a.txt --trials key --out plot.pdf")
    assert [system["label"] for system in record["systems"]] == ["a.txt", "more/a.txt"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("det a.txt --out plot.png", "a.txt has no labels"),
        ("bayes a.txt more/b.txt --out plot.png", "a.txt has no labels"),
        ("det more/a.txt --out plot.doc", "plot.doc cannot be written as a plot: its extension"),
        ("det more/a.txt --labels x y --out plot.png", "1 files of scores need as many different"),
        ("det more/a.txt more/b.txt --labels x x --out plot.png", "Got x, x."),
        ("det more/a.txt --p-target 0 --out plot.png", "p_target must lie between 0 and 1"),
        ("bayes more/a.txt --p-target 0 --out plot.png", "p_target must lie between 0 and 1"),
        ("det a.txt b.txt --trials more/key --out plot.png", "more/key cannot be read"),
    ],
)
def test_what_cannot_be_drawn_is_refused(line: str, message: str, run: Run) -> None:
    assert message in run(line, code=2)
    assert not Path("plot.png").exists()
