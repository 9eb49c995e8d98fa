"""Imports point down, never up, and the cheap parts stay cheap."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "voxblink2_lib"

# Ground imports ground only; a stage imports ground; then each what stands before it.
GROUND = {
    *("__init__", "errors", "records", "schema", "config", "files", "progress", "timeline"),
    *("outcomes", "fetch_options", "live"),
    *(
        "annotation",
        "tracks",
        "picture_times",
        "face_video",
        "demo",
        "demo.pictures",
        "demo.contact_sheet",
        "demo.site",
    ),
}
STAGES = {
    *("resources", "index", "index_writer", "plan", "ledger", "store", "crop", "shards"),
    *("pictures", "face_video", "faces", "sources", "sources.media", "sources.youtube"),
    *("addresses", "kept", "ledger_schema", "ledger_views"),
}
REMOTE = ["reasons", "options", "failures", "remote", "mp4", "prefix", "youtube"]
# Beside the flow: scoring imports errors and what stands before it in scoring.
SCORING = [
    *("inputs", "det", "verification", "intervals", "products", "normalization", "calibration"),
    *("open_set", "pickles", "embeddings", "trials", "evaluation", "plots", "metric"),
]
MODELS = [
    *("configuration", "layers", "features", "xvector", "ecapa", "resnet", "released", "card"),
    "export",
]
# Beside the flow: what reads sealed shards for training; each imports what stands before it here.
TRAINING = [
    *("remote", "corpus", "reader", "epochs", "samplers", "labels", "augment"),
    *("dataset", "loader"),
]
ALLOWED: dict[str, set[str]] = {
    "catalogue": GROUND,
    "training": {f"training.{name}" for name in TRAINING},
    **{
        f"training.{name}": {
            *("errors", "files", "records", "catalogue"),
            *(f"training.{one}" for one in TRAINING[:place]),
        }
        for place, name in enumerate(TRAINING)
    },
    "scoring": {f"scoring.{name}" for name in SCORING} - {"scoring.plots", "scoring.metric"},
    **{
        f"scoring.{name}": {"errors", *(f"scoring.{one}" for one in SCORING[:place])}
        for place, name in enumerate(SCORING)
    },
    **dict.fromkeys(GROUND | STAGES, GROUND),
    # Stages that read what the one before them in the flow wrote.
    "index": GROUND | {"resources", "index_writer"},
    "index_writer": GROUND | {"resources"},
    "faces": GROUND | {"pictures", "face_video"},
    "plan": GROUND | {"index"},
    "store": GROUND | {"resources"},
    "ledger": GROUND | {"ledger_schema", "ledger_views"},
    "ledger_schema": {"errors", "files"},
    "kept": GROUND | {"sources"},
    "sources": GROUND | {"sources.media", "sources.youtube"},
    "sources.media": GROUND | {"sources"},
    # What asks over the network: each imports what stands before it here.
    **{
        f"sources.{name}": GROUND
        | {"runtime", "sources", *(f"sources.{one}" for one in REMOTE[:place])}
        for place, name in enumerate(REMOTE)
    },
    "pipeline": GROUND | STAGES,
    "engines": GROUND,
    "engines.worker": GROUND,
    "engines.pool": GROUND,
    "engines.planning": GROUND | STAGES,
    "engines.feed": GROUND | STAGES | {"pipeline"},
    "engines.lanes": GROUND | STAGES | {"pipeline", "reach"},
    "engines.run": GROUND | STAGES | {"pipeline", "engines.feed", "engines.lanes", "engines.pool"},
    "engines.local": GROUND
    | STAGES
    | {
        "catalogue",
        "runtime",
        "sources.options",
        "engines.feed",
        "engines.planning",
        "engines.run",
    },
    # What a machine needs, looked at before a run.
    "runtime": set(),
    "cookies": set(),
    "reach": {"errors"},
    "file_system": {"errors", "files"},
    "sizes": GROUND | STAGES,
    "doctor": GROUND | STAGES | {"cookies", "file_system", "reach", "runtime", "sizes"},
    "report": GROUND | STAGES,
    "report_plots": {"ledger_views"},
    "report_csv": GROUND | {"ledger_views"},
    "report_page": GROUND | {"ledger_views", "report_csv", "report_plots"},
    # Beside the flow: models import errors and what stands before them here.
    **{
        f"models.{name}": {"errors", "published", *(f"models.{one}" for one in MODELS[:place])}
        for place, name in enumerate(MODELS)
    },
    "published": set(),
    "models": {f"models.{name}" for name in MODELS},
    "models.export": {"errors", "files", "models.features", "models.xvector"},
    # Where training, models and scoring meet: a recipe, and a demonstration of it.
    "recipe": {
        *("errors", "progress", "records", "models", "models.released", "scoring", "training"),
    },
    "lesson": {"progress", "recipe", "scoring", "scoring.plots", "training", "training.augment"},
    # Where both meet: shards in, embeddings out.
    "embedding": set(),
    "embedding.inputs": GROUND | {"ledger", "shards", "store"},
    "embedding.hub": {"errors"},
    "embedding.model": {"errors", "records", "models", "embedding.hub"},
    "embedding.block": GROUND | {"crop", "models.features", "embedding.inputs", "embedding.model"},
    "embedding.run": GROUND
    | {"engines.pool", *(f"embedding.{name}" for name in ("hub", "inputs", "block"))},
    "cli": GROUND
    | {f"cli.{one}" for one in ("terminal", "corpus", "doctor", "models", "report", "score")},
    "cli.__main__": {"cli"},
    "cli.terminal": set(),
    "cli.arguments": {"config"},
    "cli.corpus": GROUND
    | STAGES
    | {"cli.arguments", "cli.terminal", "engines.local", "lesson", "report", "tour"},
    "cli.doctor": GROUND | {"cli.arguments", "cli.terminal", "doctor"},
    "cli.report": GROUND | {"cli.arguments", "cli.terminal", "report", "report_page", "store"},
    "cli.models": {
        *("cli.terminal", "published", "embedding.block", "embedding.run"),
        *("models.card", "models.export", "models.released"),
    },
    "cli.embeddings": {
        *("errors", "cli.terminal", "cli.models", "embedding.run", "scoring.embeddings"),
    },
    "cli.score": {
        *("errors", "progress", "cli.terminal", "cli.embeddings", "published"),
        "embedding.hub",
        *(f"scoring.{name}" for name in SCORING),
    },
    "tour": GROUND | STAGES | {"report", "voxblink2"},  # a guided use of everything below
    "voxblink2": GROUND | STAGES | {"engines.local", "report"},
}


def modules() -> Iterator[tuple[str, Path]]:
    yield "voxblink2", ROOT / "voxblink2.py"
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            if module in {"voxblink2_lib", "voxblink2_lib.demo"}:
                candidates = [f"{module}.{alias.name}" for alias in node.names]
                known = {f"voxblink2_lib.{name}" for name, _ in modules()}
                yield from (one if one in known else module for one in candidates)
            else:
                yield module


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda one: str(one).split("/")[-1])
def test_imports_point_down(name: str, path: Path) -> None:
    assert name in ALLOWED, f"{name} has no place yet: say in this test what it may import"
    for imported in imports(path):
        if imported.split(".")[0] in {"voxblink2", "voxblink2_lib"}:
            target = imported.removeprefix("voxblink2_lib.")
            target = "__init__" if target == "voxblink2_lib" else target
            assert target in ALLOWED[name], f"{name} must not import {target}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("metrics/*/*.py")), ids=lambda path: path.stem)
def test_metrics_are_thin_over_scoring(path: Path) -> None:
    ours = {one for one in imports(path) if one.startswith("voxblink2")}
    assert ours
    for imported in ours:
        allowed = {"voxblink2_lib.errors"} | {f"voxblink2_lib.scoring.{name}" for name in SCORING}
        assert imported in allowed


def test_every_package_is_installed() -> None:
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    expected = {".".join(folder.parts) for folder in folders} | {"voxblink2_lib.metrics"}
    assert sorted(listed) == sorted(expected)


def test_scoring_loads_no_torch() -> None:
    code = "import sys, voxblink2_lib.scoring; print(*({'torch', 'datasets'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_allowed_imports_form_no_cycle_between_rooms() -> None:
    graph = {name: set[str]() for name, _ in modules()}
    for name, path in modules():
        for imported in imports(path):
            target = imported.removeprefix("voxblink2_lib.")
            # A package's own modules are one room with it.
            if target in graph and target.split(".")[0] != name.split(".")[0]:
                graph[name].add(target)

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        for target in graph[name]:
            visit(target, (*above, name))

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", [name for name, _ in modules() if name != "voxblink2"])
def test_library_does_not_print_or_configure_logging(name: str) -> None:
    if name == "cli.terminal":
        return
    path = dict(modules())[name]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "logging.basicConfig"}, f"{name} calls {called}"


def test_files_stay_short() -> None:
    for name, path in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{name} has {lines} lines"


def test_every_module_can_be_imported_alone() -> None:
    names = [name for name, _ in modules() if name not in {"voxblink2", "__init__"}]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    words = [f"voxblink2_lib.{name}" for name in names]
    subprocess.run([sys.executable, "-W", "error", "-c", code, *words], check=True)
