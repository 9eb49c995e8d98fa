"""Docstrings as Griffe parses them for the site; mkdocs.yml names this file."""

from __future__ import annotations

from typing import Any

import griffe

from documentation.docstrings import as_markdown


class DocstringMarkup(griffe.Extension):  # type: ignore[misc]  # no types in .venv
    """Changes every docstring to Markdown before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
