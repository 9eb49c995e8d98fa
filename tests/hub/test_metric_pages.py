"""The pages of metrics as Spaces run them: gradio serves them, and computes by its API."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import cli_process
from support.gradio_python import python_with_gradio

from voxblink2_lib import METRICS, metrics_path
from voxblink2_lib.scoring import eer, min_dcf

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCORES, LABELS = [0.1, 0.8, 0.3, 0.9, 0.2, 0.7], [0, 0, 0, 1, 1, 1]
TABLE = {"headers": ["predictions", "references"], "data": [*zip(SCORES, LABELS, strict=True)]}
GALLERY = {"headers": ["gallery", "gallery_labels"], "data": [["[1, 0]", "a"], ["[0, 1]", "b"]]}
PROBES = {"headers": ["predictions", "references"], "data": [["[2, 1]", "a"], ["[-1, 1]", "c"]]}
DATA: dict[str, list[Any]] = {
    "eer": [TABLE, "hull"],
    "min_dcf": [TABLE, 0.5, 1.0, 1.0],
    "ossi": [PROBES, GALLERY, "exact", "mean"],
}
OSSI = {"dir@far=0.1": 1.0, "dir@far=0.01": 1.0, "dir@far=0.001": 1.0, "auc": 1.0, "rank1": 1.0}


@pytest.fixture(scope="module", params=METRICS)
def page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Name of a metric, and the URL of its running page."""
    name, folder = str(request.param), tmp_path_factory.mktemp("page")
    extra = {
        "HF_HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }
    with (
        open(folder / "log", "w+") as log,
        cli_process.Process(
            [python_with_gradio(), str(Path(metrics_path(name), "app.py"))],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=cli_process.environment(extra),
            cwd=folder,
        ) as process,
    ):
        try:
            assert cli_process.wait_for(lambda: url_in(folder), process), url_in(folder)
            yield name, url_in(folder)
        finally:
            process.kill_all()


def url_in(folder: Path) -> str:
    """Return the URL in the log of a page; an empty text before it is there."""
    found = re.search(r"http://127\.0\.0\.1:\d+", (folder / "log").read_text())
    return found[0] if found else ""


def computed(url: str, data: list[Any]) -> tuple[str, Any]:
    """Call the function of a page by its API; return the event that it ends with, and its data."""
    body = json.dumps({"data": data}).encode()
    call = f"{url}/gradio_api/call/compute"
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=60) as answer:
        *_, kind, text = filter(None, answer.read().decode().splitlines())
    return kind.partition(": ")[2], json.loads(text.partition(": ")[2])


def expected(name: str) -> dict[str, Any]:
    if name == "eer":
        return eer(SCORES, LABELS, method="hull")._asdict()
    if name == "min_dcf":
        return min_dcf(SCORES, LABELS, p_target=0.5)._asdict()
    return OSSI


def test_the_api_computes(page: tuple[str, str]) -> None:
    name, url = page
    kind, (result,) = computed(url, DATA[name])
    assert (kind, result) == ("complete", expected(name))


def test_the_page_is_served_with_the_card(page: tuple[str, str]) -> None:
    name, url = page
    with urllib.request.urlopen(f"{url}/config", timeout=60) as answer:
        texts = [part["props"].get("value") for part in json.load(answer)["components"]]
    card = Path(metrics_path(name), "README.md").read_text(encoding="utf-8")
    assert any(isinstance(text, str) and "## Definition" in text for text in texts)
    assert "## Definition" in card


def test_an_error_is_told(page: tuple[str, str]) -> None:
    name, url = page
    first, *others = DATA[name]
    kind, data = computed(url, [{**first, "data": [["", 1]]}, *others])
    assert (kind, data["title"]) == ("error", "Error")
    assert data["error"].startswith("predictions of row 1 is empty.")
