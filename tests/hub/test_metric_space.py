"""A metric as a Space: loaded from it by its name, or as a folder, and computed."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import pytest
from huggingface_hub import metadata_load
from support.cli_process import run_inline, run_inline_json
from support.hub_server import Hub, Repo

from voxblink2_lib import METRICS, __version__, metrics_path
from voxblink2_lib.scoring import eer

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

SCORES, LABELS = [0.2, 0.7, 0.4, 0.9, 0.6, 0.5], [0, 0, 0, 1, 1, 1]
EXPECTED = eer(SCORES, LABELS)._asdict()


@pytest.fixture(autouse=True)
def _caches_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr(sys, "path", [*sys.path])  # evaluate appends the folder of scripts
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


def pushed(hub: Hub, space: str, folder: Path) -> Path:
    """Write the files of a Space to a folder of its name, as a clone of it."""
    clone = folder / space.rpartition("/")[2]
    clone.mkdir()
    for path, content in hub.repos[space].files.items():
        (clone / path).write_bytes(content)
    return clone


def test_a_pushed_metric_computes(hub: Hub, tmp_path: Path) -> None:
    record = run_inline_json("publish", "hf://spaces/me/eer", "--metric", "eer")
    assert record["files"] == ["README.md", "app.py", "requirements.txt", "eer.py"]
    assert hub.repos["me/eer"].is_private
    metric = evaluate.load(str(pushed(hub, "me/eer", tmp_path)))
    assert metric.compute(predictions=SCORES, references=LABELS) == EXPECTED


def test_it_is_loaded_by_its_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under whatever name: the script has that of the Space."""
    run_inline("publish", "hf://spaces/me/vb2-eer", "--metric", "eer")
    template = f"{hub.url}/spaces/{{path}}/resolve/{{revision}}/{{name}}"
    monkeypatch.setattr(evaluate.config, "HUB_EVALUATE_URL", template)
    monkeypatch.setattr("evaluate.utils.file_utils.config.HUB_EVALUATE_URL", template)
    metric = evaluate.load("me/vb2-eer", revision="main")
    assert metric.compute(predictions=SCORES, references=LABELS) == EXPECTED
    assert b'evaluate.load("me/vb2-eer")' in hub.repos["me/vb2-eer"].files["README.md"]


@pytest.mark.parametrize("name", METRICS)
def test_each_has_what_a_space_needs(name: str) -> None:
    folder = Path(metrics_path(name))
    head = metadata_load(folder / "README.md") or {}
    assert {"title", "emoji", "colorFrom", "colorTo", "sdk_version"} <= head.keys()
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert {"evaluate", "metric"} <= set(head["tags"])
    assert len(head["short_description"]) <= 60  # the Hub refuses more
    *_, requirement = (folder / "requirements.txt").read_text().split()
    package, least = requirement.split(">=")
    assert package == "voxblink2"
    assert __version__.startswith(least)


APPLICATIONS = {name: Path(metrics_path(name), "app.py") for name in METRICS}


class PageError(Exception):
    """What gradio shows on the page."""

    def __init__(self, text: str, *, print_exception: bool) -> None:
        assert not print_exception
        super().__init__(text)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Runs the application of a metric; returns its page.

    gradio is not installed for these tests: what it is given is recorded. `test_metric_pages.py`
    has the real one.
    """
    launched: list[Any] = []

    def interface(**options: Any) -> Any:
        page = SimpleNamespace(**options)
        page.launch = lambda: launched.append(page)
        return page

    make: Callable[..., Any] = SimpleNamespace
    kinds = dict.fromkeys(("Dataframe", "JSON", "Number", "Radio"), make)
    gradio = SimpleNamespace(Interface=interface, Error=PageError, **kinds)
    monkeypatch.setitem(sys.modules, "gradio", gradio)

    def run(name: str) -> Any:
        runpy.run_path(str(APPLICATIONS[name]), run_name="__main__")
        return launched.pop()

    return run


def filled(page: Any) -> list[Any]:
    """Return what a page begins with."""
    return [component.value for component in page.inputs]


@pytest.mark.parametrize("name", METRICS)
def test_its_page_begins_with_the_example_of_its_card(
    name: str, pages: Callable[[str], Any]
) -> None:
    page = pages(name)
    result = page.fn(*filled(page))
    card = Path(metrics_path(name), "README.md").read_text(encoding="utf-8")
    assert page.article in card
    if name != "min_dcf":  # whose card has another prior
        assert repr(result) in card
        return
    names = [component.label for component in page.inputs]
    values = dict(zip(names, filled(page), strict=True)) | {"p_target": 0.5}
    assert repr(page.fn(*values.values())) in card


def test_its_page_says_what_is_wrong_with_a_cell(pages: Callable[[str], Any]) -> None:
    page = pages("eer")
    with pytest.raises(PageError, match=r"^references of row 2 is empty\."):
        page.fn([[0.2, 1], [0.3, ""]], "hull")
    with pytest.raises(PageError, match=r"^predictions of row 1 must be a number, such as 0\.5;"):
        page.fn([["high", 1]], "hull")
    with pytest.raises(PageError, match=r"^labels are all 0;"):
        page.fn([["0.2", "0"], ["", None], ["0.4", 0]], "hull")
    page = pages("ossi")
    tables = filled(page)
    tables[0] = [["anna", "anna"]]
    with pytest.raises(PageError, match=r"must be a list, such as \[0\.1, 0\.2\]; it is 'anna'"):
        page.fn(*tables)


def test_an_option_that_is_cleared_has_its_default(pages: Callable[[str], Any]) -> None:
    page = pages("min_dcf")
    table, *numbers = filled(page)
    assert page.fn(table, *[None] * len(numbers)) == page.fn(table, *numbers)


def test_another_space_is_refused(hub: Hub) -> None:
    hub.repos["me/game"] = Repo({"app.py": b"import game"}, "1" * 40)
    done = run_inline("publish", "hf://spaces/me/game", "--metric", "eer", code=2)
    assert "has files of something else, such as app.py" in done.stderr
    assert hub.repos["me/game"].files == {"app.py": b"import game"}


def test_a_new_version_replaces_it(hub: Hub) -> None:
    words = ("publish", "hf://spaces/me/eer", "--metric", "eer")
    run_inline(*words)
    files = dict(hub.repos["me/eer"].files)
    hub.repos["me/eer"] = hub.repos["me/eer"]._replace(files={**files, "eer.py": b"old"})
    assert "will be seen by everybody" in run_inline(*words, "--public", "--yes").stderr
    assert hub.repos["me/eer"].files == files
    assert not hub.repos["me/eer"].is_private
