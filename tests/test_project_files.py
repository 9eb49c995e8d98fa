"""Files about the project that nothing runs: their forms, and that they name what exists."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxblink2_lib.published_results import CITATION

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORMS = [path for path in TEMPLATES if path.stem != "config"]
# What GitHub's forms of issues have: the attributes of each kind of element.
ATTRIBUTES = {
    "markdown": {"value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
    "input": {"label", "description", "placeholder", "value"},
    "dropdown": {"label", "description", "multiple", "options", "default"},
    "checkboxes": {"label", "description", "options"},
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# -- Citation --------------------------------------------------------------------------------------


def test_the_citation_has_what_its_format_requires() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors"}
    assert citation["type"] == "software"
    assert citation["license"] == "Apache-2.0"
    # The version is in one place, and not here.
    assert not citation.keys() & {"version", "date-released"}


def test_the_paper_is_the_one_that_the_builder_names() -> None:
    paper = read(ROOT / "CITATION.cff")["preferred-citation"]
    assert paper["type"] == "conference-paper"
    entry = " ".join(CITATION.split())
    assert f"title = {{{paper['title']}}}" in entry
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert f"author = {{{' and '.join(authors)}}}" in entry
    assert f"booktitle = {{{paper['collection-title']}}}" in entry
    assert f"year = {{{paper['year']}}}" in entry


# -- Issues ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_the_form_of_forms(path: Path) -> None:
    form = read(path)
    assert form.keys() <= {"name", "description", "title", "labels", "body"}
    assert form.keys() >= {"name", "description", "body"}
    names = [element["id"] for element in form["body"] if "id" in element]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)
    assert any(element["type"] != "markdown" for element in form["body"])
    for element in form["body"]:
        assert element.keys() <= {"type", "id", "attributes", "validations"}
        assert element["attributes"].keys() <= ATTRIBUTES[element["type"]]
        assert element["type"] == "markdown" or element["attributes"]["label"]
        assert element.get("validations", {}).keys() <= {"required"}


def test_a_report_of_a_bug_asks_for_the_machine() -> None:
    body = read(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml")["body"]
    (machine,) = (element for element in body if element.get("id") == "environment")
    assert "voxblink2 env" in machine["attributes"]["description"]
    assert machine["validations"]["required"]
    assert machine["attributes"]["render"] == "text"


# -- Image -----------------------------------------------------------------------------------------


def test_the_image_is_made_of_what_is_sent_to_it() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    copies = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    sources = [word for copy in copies for word in copy.split() if not word.startswith("--")]
    assert {"setup.cfg", "voxblink2_lib", "metrics", "examples"} <= set(sources)
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    # All is left out but what is named.
    assert lines[0] == "*"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert set(sources) == sent
    assert all((ROOT / name).exists() for name in sent)
    assert any(fnmatch.fnmatch("voxblink2_lib/__pycache__", line) for line in lines[1:])


def test_the_image_runs_as_a_user_and_the_program() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}
    assert 'ENTRYPOINT ["voxblink2"]' in lines
