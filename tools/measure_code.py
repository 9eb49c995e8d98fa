"""Print the lengths of the library's functions and the share of vague variable names.

    python tools/measure_code.py            the library and the builder
    python tools/measure_code.py --longest 20

A function's length is the number of lines of its body, without its signature and docstring. A
binding is every place where a name is assigned: assignments, parameters, loops, ``with``,
``except``, comprehensions and patterns.
"""

from __future__ import annotations

import argparse
import ast
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Names that do not describe their value.
VAGUE = ("one", "said", "told", "held", "found", "there", "wanted")
MAX_MEDIAN, MAX_95TH, MAX_LONGEST, MAX_VAGUE_SHARE, MAX_FILE_LINES = 7, 24, 48, 0.003, 400
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Return the library's files and the builder."""
    return [*sorted((ROOT / "voxblink2_lib").rglob("*.py")), ROOT / "voxblink2.py"]


def body_lines(function: Function) -> int:
    """Return the number of lines of a function's body, without its docstring."""
    first, *others = function.body
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if is_docstring and isinstance(first.value.value, str):  # type: ignore[attr-defined]  # a Constant, as checked above
        return sum(1 for _ in others) and (function.end_lineno or 0) - others[0].lineno + 1
    return (function.end_lineno or 0) - first.lineno + 1


def bindings(tree: ast.AST) -> Iterator[str]:
    """Yield the name of every binding."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name


def percentile(values: list[int], share: float) -> int:
    """Return the smallest value that a share of all values does not exceed.

    >>> percentile([1, 2, 3, 4], 0.5)
    2
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def main() -> int:
    """Print the figures; return 1 if any is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--longest", type=int, default=5, metavar="N", help="functions to list")
    options = parser.parse_args()
    names: Counter[str] = Counter()
    places: list[tuple[int, str]] = []
    files: dict[str, int] = {}
    for path in sources():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        where = str(path.relative_to(ROOT))
        files[where] = len(text.splitlines())
        names.update(bindings(tree))
        places += [
            (body_lines(node), f"{where}:{node.lineno} {node.name}")
            for node in ast.walk(tree)
            if isinstance(node, Function)
        ]
    lengths = [lines for lines, _ in places]
    vague = {name: names[name] for name in VAGUE if names[name]}
    figures = [
        ("median of function bodies, lines", percentile(lengths, 0.5), MAX_MEDIAN),
        ("95th percentile", percentile(lengths, 0.95), MAX_95TH),
        ("longest", max(lengths), MAX_LONGEST),
        ("longest file, lines", max(files.values()), MAX_FILE_LINES),
        ("share of vague names", sum(vague.values()) / names.total(), MAX_VAGUE_SHARE),
    ]
    print(f"{len(files)} files, {sum(files.values())} lines, {len(lengths)} functions")
    for what, value, limit in figures:
        print(f"{what:34} {value:8.4g}   at most {limit:g}{'' if value <= limit else '   ABOVE'}")
    print(f"vague names: {vague} of {names.total()} bindings")
    for lines, place in sorted(places, reverse=True)[: options.longest]:
        print(f"{lines:4}  {place}")
    return int(any(value > limit for _, value, limit in figures))


if __name__ == "__main__":
    raise SystemExit(main())
