"""Facts about speakers, from lists and from files whose format nobody knows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.release.speaker_facts import SpeakerFacts, read_facts, read_list

VIDEO = "YJUT3czS6OI"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ('{"gender": "M", "country": "AT"}', SpeakerFacts("male", None, "AT", None)),
        ('{"Sex": "Female", "languages": ["en", "de"]}', SpeakerFacts("female", "en, de")),
        ("Gender : f\nLanguage: German\n", SpeakerFacts("female", "German")),
        ('{"tags": "vlog, music,vlog"}', SpeakerFacts(tags=("vlog", "music"))),
        (
            json.dumps({VIDEO: ["vlog", "music"], "-aaaaaaaaa_": ["vlog", "art"]}),
            SpeakerFacts(tags=("vlog", "music", "art")),
        ),
        ('{"tags": {"a": ["vlog"], "b": "art"}}', SpeakerFacts(tags=("vlog", "art"))),
        ('{"gender": "other"}', SpeakerFacts("other")),
        ('{"gender": 3, "tags": [1, null], "country": ""}', SpeakerFacts()),
        *(
            (text, SpeakerFacts())
            for text in ("", "{", "[]", "{}", "some words", "7", "{" * 100_000)
        ),
    ],
)
def test_what_can_be_recognized_is_a_fact(text: str, facts: SpeakerFacts) -> None:
    assert read_facts(text) == facts


def test_facts_are_bounded() -> None:
    facts = read_facts(json.dumps({"gender": "x" * 10_000, "tags": [str(i) for i in range(9999)]}))
    assert len(facts.gender or "") == 200
    assert len(facts.tags or ()) == 256
    assert read_facts('{"location": "\\udfff"}').location == "?"


def test_a_list_has_a_line_for_each_speaker() -> None:
    lines = [
        "id00012 m\n",
        "id00013\tMandarin  Chinese\n",
        "id00014,en\n",
        "nobody x\n",
        "id00015\n",
    ]
    assert dict(read_list([*lines, "", "id00016 " + "x" * 10_000])) == {
        "id00012": "m",
        "id00013": "Mandarin Chinese",
        "id00014": "en",
        "id00016": "x" * 200,
    }


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert isinstance(read_facts(text), SpeakerFacts)
    assert isinstance(list(read_list(text.splitlines())), list)
