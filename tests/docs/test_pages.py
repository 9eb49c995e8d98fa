"""The code blocks of the documentation run as they are written, and print what the pages show.

Pages whose blocks take long are run in the slow tier, in which every script has processes of its
own. CONTRIBUTING.md has the convention.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.page_blocks import (
    LANGUAGES,
    ROOT,
    Block,
    blocks_of,
    command_lines,
    is_slow,
    plain_commands,
)
from support.page_preparations import PREPARATIONS
from support.page_session import PageSession

from voxblink2_lib import cli, errors

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages(*, slow: bool) -> list[Path]:
    run = [page for page in PAGES if any(block.is_run for block in blocks_of(page))]
    return [page for page in run if slow or not is_slow(page)]


def run_page(page: Path, session: PageSession) -> None:
    with session:
        for block in blocks_of(page):
            session.run(block)


# -- Pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(slow=False), ids=name_of)
def test_the_blocks_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run_page(page, session_in(tmp_path, monkeypatch, request))


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(slow=True), ids=name_of)
def test_the_blocks_of_a_page_run_in_processes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run_page(page, session_in(tmp_path, monkeypatch, request, in_processes=True))


def session_in(
    folder: Path,
    patched: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    *,
    in_processes: bool = False,
) -> PageSession:
    return PageSession(
        folder,
        patched,
        demo_store=lambda: request.getfixturevalue("undisturbed"),
        preparations=PREPARATIONS,
        in_processes=in_processes,
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_imports_and_command_lines_of_a_page_are_right(page: Path) -> None:
    for block in blocks_of(page):
        assert set(block.preparations) <= PREPARATIONS.keys(), block.place
        check(block)


def test_outputs_that_are_only_shown_are_those_of_a_newcomer() -> None:
    """What the first commands of README.md print is compared by `make tutorials`."""
    shown = []
    for page in PAGES:
        above = None
        for block in blocks_of(page):
            if "output" in block.markers and above and not above.is_run:
                shown.append(page.name)
            above = block if block.language in LANGUAGES else above
    assert shown == ["README.md"]


def check(block: Block) -> None:
    """Check a block as far as that goes without running it."""
    if block.language == "python":
        for module, name in imports(block.text):
            assert not name or hasattr(importlib.import_module(module), name), block.place
    elif block.language in {"sh", "bash"}:
        for words in command_lines(block.text):
            assert cli._parser().parse_args(words).command, block.place
    else:
        assert not command_lines(block.text), f"{block.place}: commands are in blocks of sh"


def imports(code: str) -> Iterator[tuple[str, str]]:
    """Yield the modules that code imports, with each name that it takes from one."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield str(node.module), alias.name


# -- The convention --------------------------------------------------------------------------------

_PAGE = """\
# Title

Text with `<!-- not run: in a line of text -->`.

<!-- with: numbers -->
```python
print(numbers)
```

<!-- output -->
```text
[1, ...]
```

1. In a list:

   <!-- exit: 3 -->
   ```sh
   echo "rate 0.51" && pwd > here.txt && exit 3
   ```

   <!-- output: numbers within 5 % -->
   ```text
   rate 0.50
   ```

<!-- not run: needs the Hub -->
```sh
voxblink2 publish hf://datasets/USER/NAME --store corpus
```

```toml
a = 1
```
"""


def write_page(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def named_numbers(session: PageSession) -> None:
    session.names["numbers"] = [1, 2, 3]


def session_of(folder: Path, patched: pytest.MonkeyPatch) -> PageSession:
    prepared = {"numbers": named_numbers}
    return PageSession(folder / "s", patched, demo_store=Path, preparations=prepared)


def test_a_page_is_run_as_its_markers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_page(tmp_path, _PAGE)
    kinds = [(block.language, block.is_run, block.line) for block in blocks_of(page)]
    assert kinds == [
        ("python", True, 7),
        ("text", False, 12),
        ("sh", True, 19),
        ("text", False, 24),
        ("sh", False, 29),
        ("toml", False, 33),
    ]
    run_page(page, session_of(tmp_path, monkeypatch))
    here = tmp_path / "s" / "page"
    assert (here / "here.txt").read_text().strip() == str(here)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[1, ...]", "[2, ...]", r"page.md:12: the output differs.\n.*\n\[2, \.\.\.\]"),
        ("rate 0.50", "rate 0.40", "page.md:24: the output differs"),
        ("exit 3\n", "exit 4\n", "page.md:19: exit code 4"),
        ("print(numbers)", "print(number)", "name 'number' is not defined"),
    ],
)
def test_what_a_page_says_wrongly_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, message: str
) -> None:
    page = write_page(tmp_path, _PAGE.replace(before, after))
    with pytest.raises((AssertionError, NameError), match=message):
        run_page(page, session_of(tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- no run: x y -->\n```sh\n```\n", "no marker is named 'no run'"),
        ("<!-- exit: one -->\n```sh\n```\n", "'one' is no value of the marker 'exit'"),
        ("<!-- output: about -->\n```text\n```\n", "'about' is no value"),
        ("<!-- exit: 1 -->\n\n```sh\n```\n", "no block follows the marker <!-- exit: 1 -->"),
    ],
)
def test_a_marker_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(blocks_of(write_page(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- not run: x -->\n```sh\nvoxblink2 status --stores x\n```\n", errors.UsageError),
        ("<!-- not run: x -->\n```python\nfrom json import loadz\n```\n", AssertionError),
        ("<!-- not run: x -->\n```python\nimport jsonn\n```\n", ModuleNotFoundError),
        ("```\nvoxblink2 status --store x\n```\n", AssertionError),
    ],
)
def test_a_mistake_in_what_is_not_run_is_found(
    tmp_path: Path, text: str, error: type[Exception]
) -> None:
    (block,) = blocks_of(write_page(tmp_path, text))
    with pytest.raises(error):
        check(block)


def test_data_is_in_the_folder_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "```sh\nmkdir -p /data/a && touch /data/a/b ./data/c\n```\n"
    run_page(write_page(tmp_path, text), session_of(tmp_path, monkeypatch))
    data = tmp_path / "s" / "page" / "data"
    assert sorted(path.name for path in data.rglob("*")) == ["a", "b", "c"]


def test_only_plain_command_lines_run_without_a_shell() -> None:
    assert plain_commands("voxblink2 status --store 'a b' # x | y\n") == [
        ["status", "--store", "a b"]
    ]
    for script in ("voxblink2 status > file", "voxblink2 status; pwd", "python x.py", "cd a"):
        assert plain_commands(script) is None
    assert LANGUAGES == ("python", "sh")
