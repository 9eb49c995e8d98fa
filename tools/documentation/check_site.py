"""Check that a built site loads nothing from elsewhere, and that its own files are there.

    python tools/documentation/check_site.py build/site

Links that a reader may follow are not checked: MkDocs does so for those within the site.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes of elements that a browser loads as it shows a page.
_LOADED = {
    "script": "src",
    "img": "src",
    "source": "src",
    "iframe": "src",
    "audio": "src",
    "video": "src",
    "link": "href",
}
# Links in the head that say something of a page, and load nothing.
_NOT_LOADED = {"canonical", "next", "prev", "alternate"}
_IN_STYLES = re.compile(r"(?:url\(|@import\s+)['\"]?([^'\")\s]+)")


class _Loads(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        place = values.get(_LOADED.get(tag, ""))
        if place and not _NOT_LOADED & set((values.get("rel") or "").split()):
            self.places.append(place)


def loads(file: Path) -> list[str]:
    """Return what a page or a style sheet loads, as it is written there."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".css":
        return [place for place in _IN_STYLES.findall(text) if not place.startswith(("data:", "#"))]
    page = _Loads()
    page.feed(text)
    return page.places


def faults(site: Path) -> Iterator[str]:
    """Yield what a site loads from elsewhere, and what it loads that is not there."""
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for place in loads(file):
            url = urlsplit(place)
            if url.scheme == "data":
                continue
            if url.scheme or url.netloc:
                yield f"{file.relative_to(site)} loads {place}"
            elif not _target(site, file, unquote(url.path)).exists():
                yield f"{file.relative_to(site)} loads {place}, which is not there"


def _target(site: Path, file: Path, path: str) -> Path:
    return site / path.lstrip("/") if path.startswith("/") else file.parent / path


def main() -> int:
    """Print the faults of a site; return 1 if it has any."""
    site = Path(sys.argv[1])
    lines = list(faults(site))
    print("\n".join(lines) or f"{site}: nothing is loaded from elsewhere")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
