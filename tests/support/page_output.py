"""What a page shows of an output, compared with what was printed."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NUMBER = r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)\.\d+"
_PART = re.compile(rf"(?P<any>\.\.\.)|(?P<number>{_NUMBER})")
_ANY = "..."
_ABSOLUTE = 0.05  # beside the relative tolerance, for numbers that are nearly zero


def differences(shown: str, printed: str, relative_tolerance: float = 0.0) -> str:
    """Return in what an output differs from what a page shows of it; empty if in nothing.

    The lines that are shown are lines of the output that follow each other. A line of ``...`` alone
    stands for any number of them, and within a line it stands for anything. White space counts
    once, and not at the ends of a line; empty lines do not count.

    Args:
        shown: what the page shows.
        printed: what was printed.
        relative_tolerance: a number with a decimal point may differ by this share, or by 0.05.
            Without it, numbers are compared as texts.

    >>> differences("EER ... %\\n...\\ndone", "a\\nEER 1.5 %\\nb\\nc\\ndone\\n")
    ''
    >>> differences("EER 1.5 %", "EER 1.6 %", 0.2)
    ''
    """
    expected, lines = _lines(shown), _lines(printed)
    if any(_begin(expected, lines[first:], relative_tolerance) for first in range(len(lines) + 1)):
        return ""
    missing = [
        line
        for line in expected
        if line != _ANY and not any(_equal(line, other, relative_tolerance) for other in lines)
    ]
    reason = ["These lines are not printed:", *missing] if missing else ["The order differs."]
    return "\n".join([*reason, "Printed was:", *lines])


def _lines(text: str) -> list[str]:
    """Return the lines of an output, as a terminal would show them at the end."""
    lines = (line.rpartition("\r")[2] for line in _CONTROL.sub("", text).split("\n"))
    return [" ".join(line.split()) for line in lines if line.strip()]


def _begin(expected: Sequence[str], lines: Sequence[str], tolerance: float) -> bool:
    """Return whether some lines begin with those that are expected."""
    if not expected:
        return True
    first, *rest = expected
    if first == _ANY:
        return any(_begin(rest, lines[skipped:], tolerance) for skipped in range(len(lines) + 1))
    return bool(lines) and _equal(first, lines[0], tolerance) and _begin(rest, lines[1:], tolerance)


def _equal(expected: str, line: str, tolerance: float) -> bool:
    printed = re.fullmatch(_pattern(expected, has_numbers=tolerance > 0), line)
    if printed is None:
        return False
    shown = [part["number"] for part in _PART.finditer(expected) if part["number"]]
    pairs = zip(map(_value, shown), map(_value, printed.groups()), strict=tolerance > 0)
    return all(abs(a - b) <= max(tolerance * abs(a), _ABSOLUTE) for a, b in pairs)


def _pattern(expected: str, *, has_numbers: bool) -> str:
    """Return the pattern of a line that is shown, with a group for each number if it has them."""
    parts, end = [], 0
    for part in _PART.finditer(expected):
        number = f"({_NUMBER})" if has_numbers else re.escape(part[0])
        parts += [re.escape(expected[end : part.start()]), ".*" if part["any"] else number]
        end = part.end()
    return "".join([*parts, re.escape(expected[end:])])


def _value(number: str) -> float:
    return float(number.replace(",", ""))
