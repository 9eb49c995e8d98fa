"""Foreign text does nothing in a terminal, a log or a spreadsheet."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voxblink2_lib.foreign_text import csv_cell, visible, visible_lines

ANY = st.text(st.characters(), max_size=60)  # lone surrogates too


@given(ANY)
@example("\x1b]0;title\x07\x1b[2J\x9b31m\x00\r\u202e\u200b\ufeff\u2066\u061c\ud800\U000e0041")
def test_nothing_acts_and_nothing_hides(text: str) -> None:
    shown = visible(text)
    kinds = {unicodedata.category(character) for character in shown}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    shown.encode("utf-8")
    assert visible(shown) == shown


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_plain_text_is_unchanged(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("over\rwritten", r"over\rwritten"),
        ("two\nlines", r"two\nlines"),
        ("null\x00", r"null\x00"),
        ("\x9b2J", r"\x9b2J"),
        ("right \u202e left", r"right \u202e left"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("half \udc80", r"half \udc80"),
        ("音声 é \u00a0", "音声 é \u00a0"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_stay_lines() -> None:
    assert visible_lines("a\x07\nb\r\n") == "a\\x07\nb\\r\n"


@given(ANY)
def test_no_cell_is_a_formula(text: str) -> None:
    cell = csv_cell(text)
    assert csv_cell(cell) == cell
    if not text.replace("-", "").replace("_", "").isalnum():
        assert not cell.lstrip().startswith(tuple("=+@\t\r\uff1d\uff0b\uff0d\uff20"))


@pytest.mark.parametrize("video_id", ["-demoSailor", "-JUT3czS6OI", "__________A", "-----------"])
def test_ids_stay_as_they_are(video_id: str) -> None:
    assert csv_cell(video_id) == video_id
