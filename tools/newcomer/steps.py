"""What each step of the hour took, and what was not as the pages say."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as a page says.

    Attributes:
        place: the page and the line.
        command: what was run, as the page has it.
        shown: what the page shows; empty if only the exit code is wrong, or there was an exception.
        seen: what was seen instead.
    """

    place: str
    command: str
    shown: str
    seen: str

    def text(self) -> str:
        """Return it for a person."""
        parts = {"The command": self.command, "The page shows": self.shown, "Seen": self.seen}
        shown = [
            f"{title}:\n{textwrap.indent(text, '  ')}" for title, text in parts.items() if text
        ]
        return "\n".join([self.place, *(part.rstrip() for part in shown)])


@dataclass(frozen=True, slots=True)
class Step:
    """A command of README.md, or a page.

    Attributes:
        title: the command, or the page's title.
        seconds: how long it took.
        compared: how many outputs were compared.
        faults: what is not as the page says.
    """

    title: str
    seconds: float
    compared: int
    faults: tuple[Fault, ...] = ()


def summary(steps: Sequence[Step]) -> Iterator[str]:
    """Yield the lines of a table of durations, below what is wrong."""
    for step in steps:
        for fault in step.faults:
            yield from ("", fault.text())
    width = max(len(step.title) for step in steps)
    yield ""
    yield f"{'':{width}}  seconds  outputs  faults"
    total = Step(
        "together",
        sum(step.seconds for step in steps),
        sum(step.compared for step in steps),
        tuple(fault for step in steps for fault in step.faults),
    )
    for step in (*steps, total):
        numbers = f"{step.seconds:7.0f}  {step.compared:7}  {len(step.faults):6}"
        yield f"{step.title:{width}}  {numbers}"


def progress(text: str) -> str:
    """Return a line that fits into a terminal."""
    return textwrap.shorten(text, shutil.get_terminal_size().columns, placeholder=" ...")
