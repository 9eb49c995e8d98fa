"""The report of a run is one well-formed page that shows what its folder has."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from voxblink2_lib.recipes.checkpoints import RunFolder
from voxblink2_lib.recipes.evaluation import TrialScores
from voxblink2_lib.recipes.run_log import RunLog
from voxblink2_lib.recipes.run_report import HELD_OUT, LOG, TRIALS, thinned, write_run_report
from voxblink2_lib.training import SpeakerLabels

VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """Elements, their ids and the text of a page; fails where an end tag does not fit."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        links = [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        self.outside += [link for link in links if not link.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def scores(seed: int, *, speakers: bool) -> TrialScores:
    random = np.random.default_rng(seed)
    target = np.arange(400) % 4 == 0
    values = (random.normal(size=400) + 2 * target).astype(np.float32)
    ids = [f"id00000{number}" for number in range(4)] if speakers else []
    count = 400 if speakers else 0
    sides = (random.integers(4, size=count).astype(np.int32) for _ in range(2))
    return TrialScores(values, target, np.array(ids, np.str_), *sides)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    out = tmp_path / "run <1>"
    settings = {"stage": "finetune", "rate": 0.005, "noise": "<script>alert(1)</script>"}
    RunFolder(out).begin(settings, SpeakerLabels(("id000001",)))
    return out


def write_log(out: Path, steps: int) -> None:
    log = RunLog(out / LOG)
    for step in range(1, steps + 1):
        log.append(
            "train",
            step,
            epoch=step / 100,
            loss=10 / step,
            rate=0.005,
            margin=0.1,
            utterances_per_second=812.0,
            waiting=0.25,
        )
    for step in (0, steps):
        log.append("score", step, epoch=step / 100, eer=0.3, min_dcf=0.9)


def test_the_page_shows_curves_rates_and_who_is_confused(run: Path) -> None:
    write_log(run, 1200)
    held_out, trials = scores(1, speakers=True), scores(2, speakers=False)
    crossed = 3 - held_out.enrolment
    held_out = TrialScores(
        held_out.scores, held_out.target, held_out.speakers, held_out.enrolment, crossed
    )
    held_out.save(run / HELD_OUT)
    trials.save(run / TRIALS)
    text = write_run_report(run).read_text("utf-8")
    page = Page(text)
    assert len(text) < 400_000  # curves are thinned
    assert page.tags.count("svg") == 4
    assert len(page.ids) == len(set(page.ids))
    assert page.outside == []
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "Training: finetune, run <1>" in page.text
    assert "Step 1,200, 12.00 epochs; not finished." in page.text
    for each in (held_out, trials):
        assert f"{100 * each.sweep.crossing().rate:.2f} %" in page.text
    for label in ("time waiting for data (%)", "utterances per second", "learning rate", "loss"):
        assert label in page.text
    assert re.search(r"id00000\d", page.text)


def test_a_run_that_has_only_begun_has_a_page(run: Path) -> None:
    page = Page(write_run_report(run).read_text("utf-8"))
    assert "Step 0; not finished." in page.text
    assert "svg" not in page.tags


def test_thinned_curves_have_the_mean_of_the_whole() -> None:
    records = [{"step": step, "loss": math.sin(step)} for step in range(1000)]
    thin = thinned(records, 100)
    assert len(thin) == 100
    means = np.mean([record["loss"] for record in thin]), np.mean([*map(math.sin, range(1000))])
    assert means[0] == pytest.approx(means[1])
    assert thinned([], 100) == []
