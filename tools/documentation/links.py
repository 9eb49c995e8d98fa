"""Links that hold in the repository and on the site.

A page links to files as they lie in the repository, such as ``../examples/train_speaker.py``. On
the site, the pages of ``docs/`` and those at the top of the repository are pages at the top; any
other file that a page links to has a page of its own, in ``repository/``, with its text.

    in the repository              on the site
    docs/usage.md                  usage.md
    docs/tutorials/cluster.md      tutorials/cluster.md
    README.md                      index.md
    CONTRIBUTING.md                contributing.md
    examples/train_speaker.py      repository/examples/train_speaker.py.md
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "repository/"
# Fenced blocks and code in a line, in which nothing is a link.
_CODE = re.compile(r"(?ms)^ *(?P<fence>`{3,})[^\n]*\n.*?^ *(?P=fence) *$|(?<!`)`[^`\n]+`(?!`)")
_LINK = re.compile(
    r'(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^\s)"#]+)(?P<anchor>#[^\s)"]*)?(?=[\s)"])'
)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|/")
_MARKER = re.compile(
    r"^(?P<indent> *)<!-- (?P<name>not run|with|exit|output|page)(?:: (?P<value>.+?))? -->\n",
    re.MULTILINE,
)
# A bar in the code of a table needs a backslash on GitHub, and must not have one on the site.
_ROW = re.compile(r"^ *\|.*\|$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".cff": "yaml", ".ipynb": "json"}


# -- Places ----------------------------------------------------------------------------------------


def site_path(path: str) -> str:
    """Return where a file of the repository is on the site, as the source of a page.

    Args:
        path: its path in the repository.

    >>> site_path("docs/usage.md"), site_path("README.md"), site_path("tools/setup.sh")
    ('usage.md', 'index.md', 'repository/tools/setup.sh.md')
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    if path.endswith(".md") and "/" not in path:
        return path.lower()
    return f"{REPOSITORY}{path}.md"


def pages_at_the_top() -> dict[str, Path]:
    """Return the pages at the top of the repository, by their paths on the site."""
    return {site_path(file.name): file for file in sorted(ROOT.glob("*.md"))}


def repository_path(page: str) -> str | None:
    """Return the path in the repository of a page of the site; ``None`` if it is made by a build.

    Args:
        page: the path of its source on the site.
    """
    if page in (top := pages_at_the_top()):
        return top[page].name
    return f"docs/{page}" if (ROOT / "docs" / page).is_file() else None


# -- Links -----------------------------------------------------------------------------------------


def with_site_links(text: str, page: str) -> str:
    """Return a page with its links as they are on the site.

    Args:
        text: the page in Markdown.
        page: its path in the repository.

    >>> with_site_links("[a](../README.md#use) [b](usage.md) `[c](../d)`", "docs/models.md")
    '[a](index.md#use) [b](usage.md) `[c](../d)`'
    """
    here = posixpath.dirname(site_path(page)) or "."

    def replaced(link: re.Match[str]) -> str:
        if _ELSEWHERE.match(link["target"]):
            return link[0]
        place = posixpath.relpath(site_path(_target(page, link)), here)
        return f"{link['before']}{place}{link['anchor'] or ''}"

    return outside_code(text, lambda part: _LINK.sub(replaced, part))


def linked_files(text: str, page: str) -> Iterator[str]:
    """Yield the files and folders that a page links to and that are no pages of the site.

    Args:
        text: the page in Markdown.
        page: its path in the repository.

    Yields:
        Paths in the repository.
    """
    for link in _LINK.finditer(outside_code(text, str, code="")):
        if not _ELSEWHERE.match(link["target"]):
            path = _target(page, link)
            if site_path(path).startswith(REPOSITORY):
                yield path


def _target(page: str, link: re.Match[str]) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link["target"]))


def outside_code(text: str, change: Callable[[str], str], *, code: str | None = None) -> str:
    """Return a page of which everything but its code is changed.

    Args:
        text: the page in Markdown.
        change: returns a part in place of another.
        code: what takes the place of code; by default the code itself.
    """
    parts, end = [], 0
    for block in _CODE.finditer(text):
        parts += [change(text[end : block.start()]), block[0] if code is None else code]
        end = block.end()
    return "".join([*parts, change(text[end:])])


# -- Pages -----------------------------------------------------------------------------------------


def on_the_site(text: str, page: str) -> str:
    """Return a page as it is on the site.

    Args:
        text: the page in Markdown.
        page: its path in the repository.
    """
    return with_plain_bars(with_notes(with_site_links(text, page)))


def with_plain_bars(text: str) -> str:
    r"""Return a page whose tables have bars in code without the backslash that GitHub needs.

    >>> print(with_plain_bars(r"| `ID\|FILE` | a \| b |"))
    | `ID|FILE` | a \| b |
    """
    return _ROW.sub(lambda row: re.sub(r"`[^`\n]+`", _plain, row[0]), text)


def _plain(code: re.Match[str]) -> str:
    return code[0].replace(r"\|", "|")


def with_notes(text: str) -> str:
    r"""Return a page that says of a block that no test runs it, and why.

    >>> with_notes("<!-- not run: needs YouTube -->\n")
    '*Not run by the tests: needs YouTube.*\n{ .not-run }\n\n'
    """
    return outside_code(text, lambda part: _MARKER.sub(_note, part))


def _note(marker: re.Match[str]) -> str:
    if marker["name"] != "not run":
        return ""
    indent = marker["indent"]
    note = f"*Not run by the tests: {marker['value']}.*"
    return f"{indent}{note}\n{indent}{{ .not-run }}\n\n"


def file_page(path: str) -> str:
    """Return the page of a file or folder that pages link to, in Markdown.

    Args:
        path: its path in the repository.
    """
    file = ROOT / path
    head = f"---\nsearch:\n  exclude: true\n---\n# `{path}`\n\n"
    if file.is_dir():
        return head + "".join(_lines(child.name for child in file.iterdir()))
    text = file.read_text(encoding="utf-8").rstrip("\n")
    fence = "`" * (1 + max(map(len, re.findall(r"`{3,}", text)), default=2))
    return f"{head}{fence}{_LANGUAGES.get(file.suffix, 'text')}\n{text}\n{fence}\n"


def _lines(names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        if not name.startswith((".", "__")):
            yield f"- `{name}`\n"
