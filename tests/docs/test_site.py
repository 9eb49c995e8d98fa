"""The site: every page is in its navigation, links lead to pages, and nothing is from elsewhere."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from documentation import links
from documentation.navigation import expanded

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads the settings without running the functions that they name."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *node: node[1])


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    with (ROOT / "mkdocs.yml").open(encoding="utf-8") as file:
        return dict(yaml.load(file, Loader))


def leaves(nav: list[Any]) -> list[str]:
    found: list[str] = []
    for entry in nav:
        inner = entry if isinstance(entry, str) else next(iter(entry.values()))
        found += [inner] if isinstance(inner, str) else leaves(inner)
    return found


def test_every_page_is_in_the_navigation_once(settings: dict[str, Any]) -> None:
    pages = [links.site_path(page.relative_to(ROOT).as_posix()) for page in PAGES]
    named = leaves(expanded(settings["nav"], pages))
    assert sorted(page for page in named if not page.startswith("reference/")) == sorted(pages)
    assert len(set(named)) == len(named)


def test_a_page_more_needs_no_entry(settings: dict[str, Any]) -> None:
    more = ["tutorials/9_more.md", "exactness.md", "another.md"]
    pages = [links.site_path(page.relative_to(ROOT).as_posix()) for page in PAGES]
    nav = expanded(settings["nav"], [*pages, *more])
    assert nav[-1] == "another.md"
    sections = {
        title: inner for entry in nav if isinstance(entry, dict) for title, inner in entry.items()
    }
    assert "tutorials/9_more.md" in sections["Tutorials"]
    assert "exactness.md" in sections["Background"]


def test_a_broken_link_or_page_ends_the_build(settings: dict[str, Any]) -> None:
    assert settings["strict"] is True
    kinds = {kind for checks in settings["validation"].values() for kind in checks.values()}
    assert kinds == {"warn"}


def test_nothing_is_loaded_from_elsewhere(settings: dict[str, Any]) -> None:
    assert settings["theme"]["font"] is False
    used = [*settings["extra_css"], *settings["extra_javascript"], settings["theme"]["favicon"]]
    folder = ROOT / settings["theme"]["custom_dir"]
    assert all((folder / name).is_file() for name in used)
    assert "analytics" not in settings["extra"]
    assert not any("://" in file.read_text() for file in folder.rglob("*.[cj]s*"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_pages_of_the_site(page: Path) -> None:
    path = page.relative_to(ROOT).as_posix()
    text = page.read_text(encoding="utf-8")
    there = {links.site_path(other.relative_to(ROOT).as_posix()) for other in PAGES}
    there |= {links.site_path(file) for file in links.linked_files(text, path)}
    there |= {
        file.relative_to(ROOT / "docs").as_posix()
        for file in (ROOT / "docs").rglob("*")
        if file.is_file()
    }
    here = posixpath.dirname(links.site_path(path))
    outside = links.outside_code(links.with_site_links(text, path), str, code="")
    for target in re.findall(r"\]\(([^)\s#]+)", outside):
        if "://" not in target:
            assert posixpath.normpath(posixpath.join(here, target)) in there, target


def test_links_to_files_lead_to_pages_with_their_text() -> None:
    text = "[a](../../examples/train_speaker.py) [b](../../metrics/) [c](../usage.md) [d](#here)"
    page = "docs/tutorials/train.md"
    assert links.with_site_links(text, page) == (
        "[a](../repository/examples/train_speaker.py.md) [b](../repository/metrics.md) "
        "[c](../usage.md) [d](#here)"
    )
    assert list(links.linked_files(text, page)) == ["examples/train_speaker.py", "metrics"]
    script = (ROOT / "examples" / "train_speaker.py").read_text(encoding="utf-8").rstrip()
    assert f"```python\n{script}\n```" in links.file_page("examples/train_speaker.py")
    assert "- `eer`\n" in links.file_page("metrics")


def test_code_has_no_links_and_readme_is_the_first_page() -> None:
    text = "```sh\n[a](docs/usage.md)\n```\n`[b](docs/usage.md)` [c](docs/usage.md#json)"
    changed = links.with_site_links(text, "README.md")
    assert changed == text.replace("[c](docs/", "[c](")
    assert links.with_site_links("[e](../README.md)", "docs/usage.md") == "[e](index.md)"
    assert links.repository_path("index.md") == "README.md"
    assert links.repository_path("usage.md") == "docs/usage.md"
    assert links.repository_path("reference/training.md") is None


def test_the_reader_sees_what_is_not_run() -> None:
    text = "a\n\n<!-- with: scores -->\n<!-- not run: needs a GPU -->\n```sh\nb\n```\n"
    assert links.with_notes(text) == (
        "a\n\n*Not run by the tests: needs a GPU.*\n{ .not-run }\n\n```sh\nb\n```\n"
    )
