"""The documents name what exists: paths, links, options, outcomes, imports.

Their blocks of code are run, or checked, in docs/test_pages.py.
"""

from __future__ import annotations

import argparse
import configparser
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_architecture import MAY_IMPORT

from voxblink2_lib import cli, errors
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.recipes import stage_options

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "voxblink2_lib|tests|docs|benchmarks|tools|examples|metrics"
PATH = re.compile(rf"(?<![\w./<])((?:{FOLDERS})/[\w./-]*)(?![\w<*])")
FILE = re.compile(r"`(\.?[\w-]+\.(?:py|md|cfg|toml|txt)|Makefile|LICENSE)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
# Options of other programs: of accelerate and torchrun, of the example scripts, of yt-dlp,
# of Docker and of Slurm.
OF_OTHERS = {
    *("--num_processes", "--nproc-per-node", "--logdir"),
    *stage_options.parser("")._option_string_actions,
    *("--add-headers", "--impersonate"),
    "--gpus",
    *("--array", "--cpus-per-task", "--job-name", "--mem", "--requeue", "--signal", "--time"),
}

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def missing_paths(document: Path, root: Path) -> list[str]:
    """Return every path below a root that a document names and that does not exist."""
    text = document.read_text(encoding="utf-8")
    names = {path.rstrip(".") for path in PATH.findall(text)}
    # A bare name is a file at the root or directly in a folder.
    names |= set(FILE.findall(text))
    return sorted(name for name in names if not _exists(root, name))


def _exists(root: Path, name: str) -> bool:
    return (root / name).exists() or ("/" not in name and any(root.glob(f"*/{name}")))


def broken_links(document: Path) -> list[str]:
    """Return every link of a document whose file or heading does not exist."""
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    return sorted({target for target in targets if not _resolves(document, target)})


def _resolves(document: Path, target: str) -> bool:
    if target.startswith(("http://", "https://")):
        return True
    name, _, anchor = target.partition("#")
    path = document.parent / name if name else document
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in plain}


def blocks(document: Path, language: str) -> Iterator[str]:
    """Yield the fenced blocks of a language; ``""`` for those without one."""
    for name, text in FENCE.findall(document.read_text(encoding="utf-8")):
        if name == language:
            yield text


def table(document: Path, first_heading: str) -> list[list[str]]:
    """Return the cells of a table's rows, without its head."""
    lines = document.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


# -- Paths and links -------------------------------------------------------------------------------


@documents
def test_every_path_exists(document: Path) -> None:
    assert missing_paths(document, ROOT) == []


@documents
def test_every_link_resolves(document: Path) -> None:
    assert broken_links(document) == []


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "real.py").touch()
    (tmp_path / "docs" / "other.md").write_text("# Two words\n```\n# no heading\n```\n")
    document = tmp_path / "docs" / "broken.md"
    document.write_text(
        "`tools/real.py`, `tools/`, `real.py` and `tests/<room>/`, but `tools/gone.py`, "
        "`gone.toml` and python tests/gone.py.\n"
        "[a](other.md) [b](other.md#two-words) [c](https://example.org/docs/x), but "
        "[d](gone.md) [e](other.md#no-heading) [f](#nowhere)\n"
    )
    assert missing_paths(document, tmp_path) == ["gone.toml", "tests/gone.py", "tools/gone.py"]
    assert broken_links(document) == ["#nowhere", "gone.md", "other.md#no-heading"]


# -- Options ---------------------------------------------------------------------------------------


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)


@documents
def test_every_option_exists(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    named = {option for span in SPAN.findall(text) for option in re.findall(r"--[a-z][\w-]+", span)}
    assert named - OF_OTHERS <= set(_options(cli._parser()))


@documents
def test_targets_and_extras_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE)) <= set(targets)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = set(re.findall(r"(?:\.|voxblink2)\[(\w+)\]", text))
    assert extras <= set(config["options.extras_require"])


# -- Tables ----------------------------------------------------------------------------------------


def test_the_table_of_imports_is_the_one_that_is_tested() -> None:
    shown = {
        package.strip("`"): {"*"} if "everything" in allowed else set(SPAN.findall(allowed))
        for package, allowed in table(ROOT / "docs" / "architecture.md", "package")
    }
    assert shown == MAY_IMPORT


def test_the_tree_has_every_package_and_module() -> None:
    tree = next(blocks(ROOT / "docs" / "architecture.md", "text"))
    shown = set(re.findall(r"^  ([\w.]+)/? ", tree, re.MULTILINE))
    library = ROOT / "voxblink2_lib"
    present = {path.parent.name for path in library.glob("*/__init__.py")}
    present |= {path.name for path in library.glob("*.py")} - {"__init__.py"}
    assert shown == present


def test_the_table_of_classes_has_every_class() -> None:
    rows = table(ROOT / "docs" / "fetching.md", "class")
    assert {name for row in rows for name in SPAN.findall(row[0])} == {"planned", *STATUSES}


def test_the_table_of_extras_has_every_extra() -> None:
    rows = table(ROOT / "docs" / "install.md", "extra")
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    shown = {name for row in rows for name in SPAN.findall(row[0])}
    assert shown == set(config["options.extras_require"])


def test_the_table_of_exit_codes_has_every_code() -> None:
    rows = table(ROOT / "docs" / "usage.md", "code")
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {value.exit_code for value in classes if issubclass(value, errors.VoxBlink2Error)}
    assert {int(row[0]) for row in rows} == {0, *codes}


def test_the_expected_days_are_those_that_the_script_computes() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "expected_days.py"))
    text = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
    table = "\n".join(script["table"](script["VIDEOS"]))
    assert f"<!-- expected days -->\n{table}\n<!-- end of expected days -->" in text
    # Each line is one of two bounds, and more machines never make it slower.
    days = [script["expected_days"](each, 1_000, "audio") for each in script["SETTINGS"]]
    assert days[0] == pytest.approx(1_000 / (300 * 24))
    assert days[1] == pytest.approx(days[0] / 8)
    assert days[4] == days[0]
    seconds = script["CROP_CPU_SECONDS"]["audio"]
    assert days[-1] == pytest.approx(1_000 * seconds / 128 / 86_400)
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for config, cpu_seconds in script["CROP_CPU_SECONDS"].items():
        assert f"| `{config}`: CPU time of all work on a video | {cpu_seconds:.2f} s" in measured
