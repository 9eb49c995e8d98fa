"""Code blocks of the pages of the documentation, with the markers before them.

CONTRIBUTING.md has the convention.
"""

from __future__ import annotations

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the tests run; blocks of other languages are only shown.
LANGUAGES = ("python", "sh")
PROGRAMS = ("voxblink2", ".venv/bin/voxblink2")
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)[^\n`]*\n(?P<text>.*?)^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_MARKER = re.compile(r" *<!-- (?P<name>[a-z ]+?)(?:: (?P<value>.+?))? -->")
# Each marker, and what its value looks like.
_VALUES = {
    "not run": re.compile(r"\S(.*[^.\s])?"),
    "with": re.compile(r"[a-z]+( [a-z]+)*(, [a-z]+( [a-z]+)*)*"),
    "exit": re.compile(r"[1-9]\d*"),
    "output": re.compile(r"(numbers within \d+(\.\d+)? %)?"),
}
_SLOW = "<!-- page: slow -->"
# What ends the words of a command.
_ENDS = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>"})
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}\n]*\})")
# What only a shell can do; a command line without it is words and nothing else.
_NEEDS_SHELL = re.compile(r"[|&;<>$`*?(){}~!]")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path of the page.
        line: number of the line after the fence.
        language: as the fence names it; empty if it names none.
        text: what is between the fences, without their indentation.
        markers: values of the markers before the fence, by their names.

    Raises:
        ValueError: a marker is unknown, or its value is not allowed.
    """

    page: Path
    line: int
    language: str
    text: str
    markers: Mapping[str, str]

    def __post_init__(self) -> None:
        for name, value in self.markers.items():
            if name not in _VALUES:
                raise ValueError(
                    f"{self.place}: no marker is named {name!r}; allowed are {', '.join(_VALUES)}"
                )
            if not _VALUES[name].fullmatch(value):
                raise ValueError(f"{self.place}: {value!r} is no value of the marker {name!r}")

    @property
    def place(self) -> str:
        """Where it is, for messages: the page and the line."""
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return self.language in LANGUAGES and "not run" not in self.markers

    @property
    def preparations(self) -> list[str]:
        """Names of what is prepared before it."""
        return self.markers["with"].split(", ") if "with" in self.markers else []

    @property
    def exit_code(self) -> int:
        """The code that a script ends with."""
        return int(self.markers.get("exit", 0))

    @property
    def tolerance(self) -> float:
        """The share by which numbers of an output may differ."""
        numbers = re.findall(r"[\d.]+", self.markers.get("output", ""))
        return float(numbers[0]) / 100 if numbers else 0.0


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page.

    Raises:
        ValueError: a marker is unknown or stands before no block.
    """
    text = page.read_text(encoding="utf-8")
    if stray := _stray_marker(text):
        raise ValueError(f"{page}: no block follows the marker {stray}")
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        yield Block(
            page=page,
            line=before.count("\n") + 2,
            language=fence["language"],
            text=textwrap.dedent(fence["text"]) if fence["indent"] else fence["text"],
            markers=_markers(before),
        )


def _markers(before: str) -> dict[str, str]:
    """Return the markers in the lines that end a text."""
    markers = {}
    for line in reversed(before.splitlines()):
        if not (marker := _MARKER.fullmatch(line.rstrip())):
            break
        markers[marker["name"]] = marker["value"] or ""
    return markers


def _stray_marker(text: str) -> str:
    """Return a marker that stands before no block; empty if there is none."""
    lines = [*_FENCE.sub("```", text).splitlines(), ""]
    for line, below in itertools.pairwise(lines):
        marker = _MARKER.fullmatch(line.rstrip())
        is_marker = marker is not None and marker["name"] in _VALUES
        if is_marker and not (below.strip() == "```" or _MARKER.fullmatch(below.rstrip())):
            return line.strip()
    return ""


def is_slow(page: Path) -> bool:
    """Return whether the blocks of a page take long."""
    return _SLOW in page.read_text(encoding="utf-8").splitlines()


def title_of(page: Path) -> str:
    """Return the title that a page begins with."""
    titles = re.findall(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return str(titles[0])


def command_lines(script: str) -> list[list[str]]:
    """Return the words of each command line of ours in a script, without the program.

    A variable of the shell counts as 1.

    >>> command_lines("cd corpus\\nvoxblink2 status --store \\\\\\n  .  # what there is\\n")
    [['status', '--store', '.']]
    """
    lines = map(str.strip, _VARIABLE.sub("1", script).replace("\\\n", " ").splitlines())
    starts = tuple(f"{program} " for program in PROGRAMS)
    every = (shlex.split(line, comments=True)[1:] for line in lines if line.startswith(starts))
    return [list(itertools.takewhile(lambda word: word not in _ENDS, words)) for words in every]


def plain_commands(script: str) -> list[list[str]] | None:
    """Return the same if the script is made of such lines alone; ``None`` if it needs a shell.

    >>> plain_commands("voxblink2 status --store .\\n\\n# A comment.\\n")
    [['status', '--store', '.']]
    >>> plain_commands("voxblink2 status | head") is None
    True
    """
    lines = script.replace("\\\n", " ").splitlines()
    rest = [words for line in lines if (words := shlex.split(line, comments=True))]
    if any(words[0] not in PROGRAMS for words in rest):
        return None
    if any(_NEEDS_SHELL.search(word) for words in rest for word in words):
        return None
    return [words[1:] for words in rest]
