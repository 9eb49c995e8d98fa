"""Make texts of foreign servers and files harmless for a terminal, a log and a spreadsheet.

Whatever is in such a text, it is shown as text: it moves no cursor, sets no title of a window,
hides nothing, forges no line and begins no formula. JSON has escapes of its own.
"""

from __future__ import annotations

import re
import unicodedata

# Also after a semicolon, which separates cells where the comma is in numbers. The wide forms of
# the four signs begin a formula too.
_FORMULA = re.compile(r"(^\s*|;\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
_ID = re.compile(r"[A-Za-z0-9_-]*")


def visible(text: str) -> str:
    r"""Return a text on one line, in which nothing acts and nothing is hidden.

    Control characters (also line ends and tabs), what changes the direction of writing, what has
    no width, and halves of characters become escapes as in Python. Other text is unchanged.

    >>> print(visible("two\nlines, \x1b[31mred"))
    two\nlines, \x1b[31mred
    """
    return text if text.isprintable() else "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":  # a space
        return character
    return ascii(character)[1:-1]


def visible_lines(text: str) -> str:
    """Return a text of several lines, each of them :func:`visible`."""
    return "\n".join(map(visible, text.split("\n")))


def csv_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet evaluates as a formula.

    Ids are returned as they are, also those that begin with ``-``, since programs read them: they
    hold no character that a formula with any effect needs.

    >>> csv_cell("=1+1"), csv_cell("- not found"), csv_cell("-demoSailor")
    ("'=1+1", "'- not found", '-demoSailor')
    """
    if _ID.fullmatch(text):
        return text
    return _FORMULA.sub(r"\1'", visible(text))
