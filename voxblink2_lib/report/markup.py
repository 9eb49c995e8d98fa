"""HTML of the report: everything that is not :class:`Markup` is escaped.

Reasons are texts of foreign servers: whatever is in them, they are text on the page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from voxblink2_lib.foreign_text import visible
from voxblink2_lib.redaction import redact

_FOLDER = Path(__file__).parent


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: text above it.
        style: CSS class of its cells; empty for none.
        is_header: its cells name their rows.
    """

    title: str
    style: str = ""
    is_header: bool = False


class Section(NamedTuple):
    """A part of the page below its own heading, whose level is that of HTML."""

    title: str
    content: Markup
    level: str = "3"


def escape(text: str) -> Markup:
    """Return a text as HTML, without secrets and invisible characters.

    >>> escape("a < b"), escape(Markup("<br>"))
    ('a &lt; b', '<br>')
    """
    return text if isinstance(text, Markup) else Markup(html.escape(visible(redact(text.strip()))))


def fill(template: str, **values: str) -> Markup:
    """Return an HTML template with values in it.

    >>> fill('<p class="$style">$text</p>', style="note", text="1 < 2")
    '<p class="note">1 &lt; 2</p>'
    """
    return Markup(Template(template).substitute({k: escape(v) for k, v in values.items()}))


def join(parts: Sequence[Markup]) -> Markup:
    """Return parts one after the other."""
    return Markup("".join(parts))


def note(text: str) -> Markup:
    """Return a remark."""
    return fill('<p class="note">$text</p>', text=text)


def table(
    rows: Sequence[Sequence[str]],
    columns: Sequence[Column],
    *,
    style: str = "",
    titles: bool = True,
) -> Markup:
    """Return a table.

    Args:
        rows: a text or markup for each column.
        columns: how each column looks.
        style: CSS class of the table; empty for none.
        titles: begin with a row of the columns' titles.
    """
    lines = [[_cell(*pair) for pair in zip(row, columns, strict=True)] for row in rows]
    if titles:
        lines.insert(0, [_title(column) for column in columns])
    body = [fill("<tr>$cells</tr>", cells=join(cells)) for cells in lines]
    return fill("<table$style>$body</table>", style=_class(style), body=join(body))


def _title(column: Column) -> Markup:
    """Return the cell above a column; one without a title names nothing."""
    template = '<th scope="col"$style>$text</th>' if column.title else "<td$style></td>"
    return fill(template, style=_class(column.style), text=column.title)


def _cell(text: str, column: Column) -> Markup:
    template = '<th scope="row"$style>$text</th>' if column.is_header else "<td$style>$text</td>"
    return fill(template, style=_class(column.style), text=text)


def _class(name: str) -> Markup:
    return fill(' class="$name"', name=name) if name else Markup()


def page(title: str, head: Markup, sections: Sequence[Section]) -> str:
    """Return the whole page: one file that needs no other file and runs nothing.

    Args:
        title: of the window.
        head: what is above the sections.
        sections: in order.
    """
    body = [head]
    for section in sections:
        body.append(fill("<h$level>$title</h$level>$content", **section._asdict()))
    style = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    template = (_FOLDER / "page.html").read_text(encoding="utf-8")
    return fill(template, title=title, style=style, body=Markup("\n".join(body)))
