"""The modules that a saved model has beside it, so that it loads where this library is not.

They are the library's own modules, with the imports of one another made relative: transformers
finds the class of a configuration, a model or a feature extractor in them by ``auto_map``, if
``trust_remote_code=True`` allows it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path

_LIBRARY = "voxblink2_lib"
_PREFIX = "voxblink2_"
_IMPORT = re.compile(rf"^(\s*from ){_LIBRARY}\.([\w.]+)( import )", re.MULTILINE)
_HEAD = (
    "# Part of voxblink2, written when this model was saved: its modules, with relative imports.\n"
)


def is_of_library(cls: type) -> bool:
    """Return whether a class is one of the library, and not what a saved model has of it."""
    return cls.__module__.partition(".")[0] == _LIBRARY


def place_in_map(cls: type) -> str:
    """Return where ``auto_map`` finds a class of the library.

    >>> from voxblink2_lib.models.resnet import SpeakerResNet
    >>> place_in_map(SpeakerResNet)
    'voxblink2_resnet.SpeakerResNet'
    """
    return f"{_name(cls.__module__)}.{cls.__name__}"


def write_modules(folder: str | Path, classes: Iterable[type]) -> None:
    """Write the modules of some classes, and all of the library that they import.

    Args:
        folder: of the saved model.
        classes: of the library.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    left = {cls.__module__ for cls in classes}
    written: dict[str, str] = {}
    while left:
        module = left.pop()
        source = inspect.getsource(importlib.import_module(module))
        imported = {f"{_LIBRARY}.{match[2]}" for match in _IMPORT.finditer(source)}
        written[module] = _IMPORT.sub(lambda match: _relative(*match.groups()), source)
        left |= imported - written.keys()
    for module, source in written.items():
        (folder / f"{_name(module)}.py").write_text(_HEAD + source, encoding="utf-8")


def _relative(before: str, module: str, after: str) -> str:
    return f"{before}.{_name(module)}{after}"


def _name(module: str) -> str:
    return _PREFIX + module.rpartition(".")[2]
