"""The navigation of the site, of which patterns take the pages that are named nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any


def expanded(nav: Sequence[Any], pages: Sequence[str]) -> list[Any]:
    """Return a navigation with the pages that its patterns match in their places.

    A page that is named anywhere, or that a pattern before matches, is left out. A section without
    pages is left out as well.

    Args:
        nav: as MkDocs takes it; an entry with ``*`` is a pattern, in which ``*`` ends at a slash.
        pages: paths of pages on the site.

    >>> expanded(["index.md", {"Guides": ["guides/*.md"]}, "*.md"], ["a.md", "guides/b.md"])
    ['index.md', {'Guides': ['guides/b.md']}, 'a.md']
    """
    named = set(_named(nav))
    return _expanded(nav, [page for page in sorted(pages) if page not in named])


def _named(nav: Sequence[Any]) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            (inner,) = entry.values()
            yield from _named([inner] if isinstance(inner, str) else inner)


def _expanded(nav: Sequence[Any], left: list[str]) -> list[Any]:
    """Return the same, and take what is matched out of the pages that are left."""
    entries: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            matched = [page for page in left if _matches(page, entry)]
            left[:] = [page for page in left if page not in matched]
            entries += matched
        elif isinstance(entry, dict) and isinstance(inner := next(iter(entry.values())), list):
            if pages := _expanded(inner, left):
                entries.append({next(iter(entry)): pages})
        else:
            entries.append(entry)
    return entries


def _matches(page: str, pattern: str) -> bool:
    return page.count("/") == pattern.count("/") and fnmatchcase(page, pattern)
