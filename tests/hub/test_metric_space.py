"""A metric as a Space: loaded from it by its name, or as a folder, and computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import pyarrow as pa
import pytest
from huggingface_hub import metadata_load
from support.cli_process import run_inline, run_inline_json
from support.hub_server import Hub, Repo

from voxblink2_lib import METRICS, __version__, metrics_path
from voxblink2_lib.scoring import eer
from voxblink2_lib.scoring.metric_page import metric_page

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


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of evaluate's
def test_its_page_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is gradio's; its function gets the tables that somebody has filled in."""
    monkeypatch.setitem(sys.modules, "gradio", _gradio())
    compute = _page_of("eer").fn
    assert compute(_table({"predictions": SCORES, "references": LABELS})) == EXPECTED
    compute = _page_of("ossi", second_table=("gallery", "gallery_labels")).fn
    probes = {"predictions": ["[2.0, 1.0]", "[-1.0, 1.0]"], "references": ["anna", "nobody"]}
    gallery = {"gallery": ["[1.0, 0.0]", "[0.0, 1.0]"], "gallery_labels": ["anna", "bert"]}
    assert compute(_table(probes), _table(gallery))["rank1"] == 1.0


def _table(columns: dict[str, list[Any]]) -> Any:
    return pa.table(columns).to_pandas()


def _page_of(name: str, **options: Any) -> Any:
    return metric_page(Path(metrics_path(name)), **options)


def _gradio() -> Any:
    """What a page needs of gradio, which is not installed for tests."""
    make: Callable[..., Any] = SimpleNamespace
    return SimpleNamespace(Dataframe=make, JSON=make, Interface=make)


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
