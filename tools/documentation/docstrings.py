"""The public names of the library, what their docstrings lack, and docstrings in Markdown."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Pages of the reference, and the modules that each shows. What README, docs and examples import is
# public; a package exports it, and of a module it is what has no underscore.
PAGES: dict[str, tuple[str, ...]] = {
    "voxblink2_lib": ("voxblink2_lib", "voxblink2_lib.errors", "voxblink2_lib.progress"),
    "training": ("voxblink2_lib.training",),
    "scoring": ("voxblink2_lib.scoring",),
    "models": ("voxblink2_lib.models",),
    "recipes": tuple(
        f"voxblink2_lib.recipes.{name}"
        for name in (
            *("stages", "stage_options", "stage_data", "transfer", "training", "device_inputs"),
            *("holdout", "validation", "evaluation", "checkpoints", "stopping", "run_log"),
            *("run_report", "trainer", "lightning"),
        )
    ),
}
# What only the library itself uses of modules that have no list of what they export.
_INTERNAL = {
    "voxblink2_lib.errors": {"first_line", "next_command"},
    "voxblink2_lib.progress": {
        *("counted", "size_text", "interval_text", "duration_text", "clock_text"),
    },
}
_OURS = "voxblink2_lib"
_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`~?([^`]+)`")
_DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n *\S.*)*", re.MULTILINE)
_SECTION = re.compile(r"^(?:Args|Attributes):\n(?P<entries>(?:    .*\n|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*): ", re.MULTILINE)
_OWN_CONSTRUCTOR = re.compile(r"\bMade by\b")


# -- Names -----------------------------------------------------------------------------------------


def public_names(module: ModuleType) -> dict[str, Any]:
    """Return what a module offers to its users, by name and in its order."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__ if name[0] != "_"}
    own = {
        name: value
        for name, value in vars(module).items()
        if _is_code(value) and value.__module__ == module.__name__
    }
    internal = _INTERNAL.get(module.__name__, set())
    return {name: own[name] for name in own if name[0] != "_" and name not in internal}


def is_old_name(name: str, value: Any) -> bool:
    """Return whether a name is one of an earlier version, for what has another name now."""
    return _is_code(value) and value.__name__ != name


def _is_code(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


# -- Gaps ------------------------------------------------------------------------------------------


def gaps(module: ModuleType) -> Iterator[str]:
    """Yield what the docstrings of a module's public names lack, a line for each gap."""
    for name, value in public_names(module).items():
        full = f"{module.__name__}.{name}"
        if inspect.isclass(value):
            yield from _gaps_of_class(full, value)
        elif inspect.isroutine(value):
            yield from _gaps_of_function(full, value)
        elif not _is_described(module, name):
            yield f"{full}: no docstring below it"


def _gaps_of_class(name: str, kind: type) -> Iterator[str]:
    ours = [base for base in kind.__mro__ if base.__module__.startswith(_OURS)]
    text = "\n\n".join(inspect.cleandoc(_docstring(base)) for base in ours)
    if not _docstring(kind):
        yield f"{name}: no docstring"
    elif _has_own_constructor(kind) and not _OWN_CONSTRUCTOR.search(_docstring(kind)):
        yield from _undescribed(name, inspect.signature(kind), text)
    for base in ours:
        for member_name, member in vars(base).items():
            if not member_name.startswith("_"):
                yield from _gaps_of_member(f"{name}.{member_name}", member)


def _docstring(kind: type) -> str:
    """Return the docstring that is written at a class; dataclasses make one where there is none."""
    text = vars(kind).get("__doc__") or ""
    return "" if text.startswith(f"{kind.__name__}(") else text


def _has_own_constructor(kind: type) -> bool:
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return True
    made = next(base for base in kind.__mro__ if {"__init__", "__new__"} & vars(base).keys())
    constructor = vars(made).get("__init__", vars(made).get("__new__"))
    is_ours = str(getattr(constructor, "__module__", "")).startswith(_OURS)
    return is_ours and not getattr(kind, "_is_protocol", False)


def _gaps_of_member(name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property | functools.cached_property):
        if not member.__doc__:
            yield f"{name}: no docstring"
        return
    is_static = isinstance(member, staticmethod)
    function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
    if inspect.isfunction(function):
        yield from _gaps_of_function(name, function, first=0 if is_static else 1)


def _gaps_of_function(name: str, function: Any, *, first: int = 0) -> Iterator[str]:
    if not function.__doc__:
        yield f"{name}: no docstring"
        return
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[first:]
    text = inspect.cleandoc(function.__doc__)
    yield from _undescribed(name, signature.replace(parameters=parameters), text)


def _undescribed(name: str, signature: inspect.Signature, docstring: str) -> Iterator[str]:
    described = described_arguments(docstring)
    for parameter in signature.parameters:
        if not parameter.startswith("_") and parameter not in described:
            yield f"{name}: argument {parameter} is not described"


def described_arguments(docstring: str) -> set[str]:
    """Return the arguments and attributes that a docstring in Google's style describes."""
    return {
        name.lstrip("*")
        for section in _SECTION.finditer(docstring + "\n")
        for entry in _ENTRY.finditer(section["entries"])
        for name in entry["names"].split(", ")
    }


def _is_described(module: ModuleType, name: str) -> bool:
    """Return whether a text stands below the assignment of a constant."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for statement, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.ImportFrom):
            if name in {alias.name for alias in statement.names}:
                return _is_described(importlib.import_module(str(statement.module)), name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if name in map(ast.unparse, targets):
                return isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    return False


# -- Markdown --------------------------------------------------------------------------------------


def as_markdown(docstring: str) -> str:
    """Return a docstring in Markdown: roles of Sphinx become code, and doctests become blocks.

    >>> as_markdown("See :func:`f`.")
    'See `f`.'
    """
    return _DOCTEST.sub(_fenced, _ROLE.sub(r"`\1`", docstring))


def _fenced(doctest: re.Match[str]) -> str:
    return f"{doctest['indent']}```pycon\n{doctest[0]}\n{doctest['indent']}```"
