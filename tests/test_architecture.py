"""Imports point down, never up, and the cheap parts stay cheap."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "voxblink2_lib"

# The ground, lowest first: each file may import those before it, and every package all of them.
GROUND = [
    *("redaction", "foreign_text", "records", "progress", "cores"),
    *("published_results", "outcomes", "errors", "foreign_files", "files"),
]
# What a package may import besides the ground and itself. docs/architecture.md shows this table.
MAY_IMPORT: dict[str, set[str]] = {
    "cli": {"*"},
    "demo": {"recipes", "training", "scoring", "store", "release", "media", "voxblink2"},
    "voxblink2": {"builder", "materialize", "published", "store"},
    "builder": {"materialize", "published", "store", "release", "media"},
    "doctor": {
        "materialize.request",
        "published",
        "archive",
        "store",
        "release",
        "sources",
        "media",
    },
    "recipes": {
        *("embedding", "training", "models", "scoring", "release.speaker_split"),
        *("report.markup", "report.plots"),
    },
    "browse": {"report", "scoring", "store", "release", "media"},
    "report": {"store", "release"},
    "hub": {
        *("export", "published", "archive.urls", "store", "media.options"),
        *("release.index", "release.selection", "release.speaker_index", "release.speaker_split"),
        "release.tombstones",
    },
    "export": {
        *("published.hub", "published.repository", "store", "workers"),
        *("release.index", "release.selection"),
    },
    "repair": {"materialize", "store", "release"},
    "merge": {"purge", "published", "store", "release", "media.options"},
    "cluster": {"materialize", "published", "store", "release", "sources", "media"},
    "purge": {"cut_audio", "published", "store", "release"},
    "embedding": {"store", "models", "workers", "media", "archive.wav"},
    "materialize": {
        *("cut_audio", "published", "archive", "store", "release", "sources", "media", "workers"),
    },
    "training": {
        *("published.training_shards", "published.remote_errors"),
        *("store.catalogue", "store.advice", "store.lock", "media.ogg"),
    },
    "published": {"archive", "store", "release.tombstones"},
    "store": {"release", "workers"},
    "cut_audio": {"archive", "store", "media", "workers"},
    "release": {"archive", "workers"},
    "archive": set(),
    "sources": {"archive", "media"},
    "models": set(),
    "scoring": set(),
    "media": set(),
    "workers": set(),
    "metrics": {"scoring"},
}


def modules() -> dict[str, Path]:
    """Every module of the project by its name, without the library's own."""
    named = {"voxblink2": ROOT / "voxblink2.py"}
    named |= {f"metrics.{path.stem}": path for path in sorted(ROOT.glob("metrics/*/*.py"))}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        named[name.removesuffix(".__init__")] = path
    return named


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "voxblink2":
                yield "voxblink2"
            elif name.split(".")[0] == "voxblink2_lib":
                ours = name.removeprefix("voxblink2_lib").removeprefix(".")
                parent = ours.rpartition(".")[0]
                yield ours if ours in MODULES else parent or "__init__"


def test_imports_point_down() -> None:
    wrong = []
    for name, path in MODULES.items():
        package = name.split(".")[0]
        for target in imports(path):
            if target == "__init__" or target.split(".")[0] == package:
                continue
            if package in GROUND:
                allowed = target in GROUND[: GROUND.index(package)]
            else:
                granted = MAY_IMPORT.get(package, set())
                allowed = target in GROUND or bool(
                    granted & {"*", target, target.split(".")[0]} - {"cli"}
                )
            if not allowed:
                wrong.append(f"{name} must not import {target}")
    assert not wrong, "\n".join(wrong)


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {name: set(imports(path)) - {name, "__init__"} for name, path in MODULES.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_the_house_stays_small_enough_to_find_ones_way() -> None:
    top = [path for path in PACKAGE.iterdir() if path.name not in {"__pycache__", "metrics"}]
    assert len([path for path in top if path.suffix == ".py"]) <= 11
    # A store may be purged, published at a URL, exported, merged, browsed, and filled by a cluster:
    # a room for each. What is published for others, data sets and metrics, is neither a store nor
    # an export.
    assert len([path for path in top if path.is_dir()]) <= 26
    files = [*PACKAGE.rglob("*.py"), ROOT / "voxblink2.py"]
    long = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {path: lines for path, lines in long.items() if lines > 400}


def test_every_package_is_installed() -> None:
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    moved = {"voxblink2_lib.metrics", "voxblink2_lib.examples"}
    expected = {".".join(folder.parts) for folder in folders} | moved
    assert sorted(listed) == sorted(expected)


def test_library_does_not_print_or_configure_logging() -> None:
    for name, path in MODULES.items():
        if name == "cli.terminal":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "logging.basicConfig"}, f"{name} calls {called}"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import voxblink2_lib", {"torch", "datasets", "yt_dlp", "av", "fsspec", "requests"}),
        ("import voxblink2_lib.scoring", {"torch", "datasets", "yt_dlp", "av"}),
        (
            "from voxblink2_lib.cli import _parser; _parser()",
            {"torch", "datasets", "yt_dlp", "av", "fsspec", "requests", "gdown"},
        ),
    ],
)
def test_the_cheap_parts_stay_cheap(code: str, absent: set[str]) -> None:
    code = f"import sys; {code}; print(*({absent!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_every_module_can_be_imported() -> None:
    names = [
        f"voxblink2_lib.{name}"
        for name in MODULES
        if name not in {"voxblink2", "__init__"} and not name.startswith("metrics.")
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    subprocess.run([sys.executable, "-W", "error", "-c", code, *names], check=True)
