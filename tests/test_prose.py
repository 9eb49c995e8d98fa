"""Single pages keep what they promise: the card in README.md, drawings, classes, sources."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.published_results import CITATION

ROOT = Path(__file__).resolve().parents[1]
DOCS, IMAGES = ROOT / "docs", ROOT / "docs" / "images"
README = (ROOT / "README.md").read_text("utf-8")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
SVG = "{http://www.w3.org/2000/svg}"
# Values that the Hub lists: a misspelt one is refused there.
SIZES = ("100K<n<1M", "1M<n<10M", "10M<n<100M")
TASKS = {"audio-classification", "automatic-speech-recognition", "video-classification"}
_LARGEST_IMAGE_BYTES = 300_000


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def images_of(page: Path) -> list[tuple[str, Path]]:
    """Return text and file of each picture of a page."""
    found = IMAGE.findall(page.read_text("utf-8"))
    return [(text, (page.parent / target).resolve()) for text, target in found]


# -- The card --------------------------------------------------------------------------------------


def test_the_readme_is_a_card_of_a_data_set() -> None:
    data = DatasetCard(README).data.to_dict()
    assert data["pretty_name"] == "VoxBlink2"
    assert data["license"] == "cc-by-nc-sa-4.0"
    assert data["language"] == ["multilingual"]
    assert set(data["task_categories"]) == TASKS
    assert data["viewer"] is False  # it has no rows of its own
    (size,) = data["size_categories"]
    utterances = float(re.search(r"([\d.]+) million utterances", README)[1])  # type: ignore[index]
    assert size == SIZES[0 if utterances < 1 else 1 if utterances < 10 else 2]


def test_the_card_is_written_again_as_it_is() -> None:
    card = DatasetCard(README)
    assert DatasetCard(str(card)).data.to_dict() == card.data.to_dict()
    assert card.text.lstrip().startswith("# voxblink2\n")


def test_the_description_of_the_package_has_no_head() -> None:
    description = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["description"]
    text = description(README)
    assert text.startswith("# voxblink2\n")
    assert README.endswith(text)
    assert description(text) == text


def test_the_citation_is_that_of_published_cards() -> None:
    assert f"```bibtex\n{CITATION}```" in README


# -- Drawings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_picture_is_there_and_described(page: Path) -> None:
    for text, file in images_of(page):
        assert file.is_relative_to(IMAGES)
        assert file.stat().st_size < _LARGEST_IMAGE_BYTES
        assert len(text) > 20, file.name


def test_every_picture_is_used() -> None:
    used = {file.name for page in pages() for _, file in images_of(page)}
    assert {file.name for file in IMAGES.iterdir()} == used


@pytest.mark.parametrize("drawing", sorted(IMAGES.glob("*.svg")), ids=lambda drawing: drawing.stem)
def test_a_drawing_says_what_it_shows_and_is_readable_in_both_schemes(drawing: Path) -> None:
    root = ET.parse(drawing).getroot()
    labels = str(root.get("aria-labelledby")).split()
    described = [root.find(f"{SVG}title"), root.find(f"{SVG}desc")]
    assert [element.get("id") for element in described if element is not None] == labels
    assert all(element is not None and element.text for element in described)
    style = str(root.findtext(f"{SVG}style"))
    assert "prefers-color-scheme: dark" in style
    # Colours are of classes alone, so that both schemes have them.
    painted = [
        element.tag for element in root.iter() if element.get("fill") or element.get("stroke")
    ]
    assert painted == []
    classes = {name for element in root.iter() for name in str(element.get("class", "")).split()}
    assert classes <= set(re.findall(r"\.([\w-]+)", style))


# -- Pages -----------------------------------------------------------------------------------------


def test_the_page_about_failures_has_a_section_of_every_class() -> None:
    text = (DOCS / "failures.md").read_text("utf-8")
    headings = {name for line in re.findall(r"^### (.+)$", text, re.MULTILINE) for name in
                re.findall(r"`([\w-]+)`", line)}  # fmt: skip
    assert headings == {"planned", *STATUSES}


def test_the_comparison_names_what_was_read_and_when() -> None:
    text = (DOCS / "comparison.md").read_text("utf-8")
    assert re.search(r"Read on \d+ \w+ 20\d\d", text)
    sources = text.partition("\n## Sources\n")[2]
    links = re.findall(r"\]\((https://[^)]+)\)", sources)
    assert all(re.search(r"/blob/[0-9a-f]{40}/|/\d+\.\d+\.\d+/$", link) for link in links)
    tables = [line for line in text.splitlines() if line.startswith("| | here |")]
    compared = {cell.strip() for line in tables for cell in line.strip("| ").split("|")} - {"here"}
    named = set(re.findall(r"^- \*\*(.+?)\*\*:", sources, re.MULTILINE))
    assert {name.lower() for name in named} == {name.lower() for name in compared}


@pytest.mark.parametrize(
    "page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem
)
def test_a_tutorial_is_read_in_one_sitting(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    assert 60 <= len(lines) <= 260
    assert sum(line.startswith("## ") for line in lines) >= 4
    assert "<!-- output" in page.read_text("utf-8")
