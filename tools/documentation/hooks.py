"""What MkDocs calls while it builds the site; mkdocs.yml names this file."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import ConfigurationError
from mkdocs.structure.files import File, Files

from documentation import links, navigation
from documentation.reference import FOLDER

_META = "---\n"
# Above a column of names, which needs no title; as a header it would be one without a text.
_EMPTY_HEADER = re.compile(r"<th([^>]*)></th>")


def on_config(config: Any) -> Any:
    """Put the pages of patterns into the navigation."""
    if not (reference := sorted(FOLDER.glob("*.md"))):
        raise ConfigurationError(f"There is no reference in {FOLDER}. Run: make docs")
    docs = links.ROOT / "docs"
    pages = [file.relative_to(docs).as_posix() for file in docs.rglob("*.md")]
    made = [*links.pages_at_the_top(), *(f"reference/{file.name}" for file in reference)]
    config.nav = navigation.expanded(config.nav, pages + made)
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are not in ``docs/``, and those of the files that pages link to."""
    for page, file in links.pages_at_the_top().items():
        text = _without_meta(file.read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for file in sorted(FOLDER.glob("*.md")):
        page = f"reference/{file.name}"
        files.append(File.generated(config, page, abs_src_path=str(file)))
    linked = {
        path
        for file in files.documentation_pages()
        if (origin := links.repository_path(file.src_uri))
        for path in links.linked_files(file.content_string, origin)
    }
    for path in sorted(linked):
        if (links.ROOT / path).exists():  # else the build names the link that is broken
            page = links.site_path(path)
            files.append(File.generated(config, page, content=links.file_page(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links and notes of a page into those of the site."""
    origin = links.repository_path(page.file.src_uri)
    return links.on_the_site(markdown, origin) if origin else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Turn headers of tables that have no text into cells."""
    return _EMPTY_HEADER.sub(r"<td\1></td>", html)


def _without_meta(text: str) -> str:
    """Return a page without the YAML at its head, which is for the Hub."""
    return text.split(_META, 2)[2] if text.startswith(_META) else text
