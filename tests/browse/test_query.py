"""Ids from a page reach a file only in their own form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.browse.browser import named
from voxblink2_lib.browse.query import Query, utterance_of
from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import SPEAKER_ID, UTTERANCE_ID, VIDEO_ID

HOSTILE = [
    "..",
    "../../etc/passwd",
    "id000002/../x",
    "id000002//",
    "a b",
    "id000002/-JUT3czS6OI/..",
]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ("", ("", "", "")),
        (" id000002 ", ("id000002", "", "")),
        ("-JUT3czS6OI", ("", "-JUT3czS6OI", "")),
        ("00001", ("", "", "00001")),
        ("id000002/-JUT3czS6OI/", ("id000002", "-JUT3czS6OI", "")),
        ("id000002/-JUT3czS6OI/00001", ("id000002", "-JUT3czS6OI", "00001")),
        ("-JUT3czS6OI/00001", ("", "-JUT3czS6OI", "00001")),
    ],
)
def test_ids_in_the_forms_that_people_write(ids: str, expected: tuple[str, str, str]) -> None:
    query = Query.of(ids)
    assert (*query.videos[:2], query.utterance_id) == expected


@pytest.mark.parametrize("ids", HOSTILE)
def test_what_is_no_id_is_refused(ids: str) -> None:
    with pytest.raises(SelectionError, match=r"is no id\. Write a speaker"):
        Query.of(ids)
    for read in (utterance_of, named):
        with pytest.raises(SelectionError, match="is no"):
            read(ids)


@given(st.text())
def test_only_ids_come_out(text: str) -> None:
    try:
        query = Query.of(text)
    except SelectionError:
        return
    patterns = (SPEAKER_ID, VIDEO_ID, UTTERANCE_ID)
    for part, pattern in zip((*query.videos[:2], query.utterance_id), patterns, strict=True):
        assert not part or pattern.fullmatch(part)


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"'vanished' is no class of outcome\. Choose among"):
        Query.of(statuses=["done", "vanished"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * 501, r"is too long to search for\. Write at most 500 characters"),
        ("ü" * 100_000, r"\(length 100,000\) is too long"),
        ("half \ud800", r"has what is no character\. Write it again"),
        ("no\0thing", "has what is no character"),
    ],
)
@pytest.mark.parametrize("place", ["ids", "reason", "language", "text"])
def test_what_cannot_be_searched_for_is_refused(place: str, text: str, message: str) -> None:
    with pytest.raises(SelectionError, match=message) as caught:
        Query.of(**{place: text})
    assert len(str(caught.value).encode()) < 1000
