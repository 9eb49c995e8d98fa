"""Files of transcripts, whose format nobody knows, are read where they can be, and never fail."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.release.transcripts import (
    MAX_TRANSCRIPT_CHARACTERS,
    Transcript,
    read_transcripts,
)

SPEAKER = "id000002"
VIDEO = "YJUT3czS6OI"
OTHER = "-aaaaaaaaa_"


def read(text: str) -> list[Transcript]:
    return list(read_transcripts(SPEAKER, text))


NAMES = {
    "utterance": ("00001", None),
    "utterance with extension": ("00001.wav", None),
    "video": (f"{VIDEO}/00001", VIDEO),
    "video with extension": (f"{VIDEO}/00001.txt", VIDEO),
    "speaker": (f"{SPEAKER}/{VIDEO}/00001", VIDEO),
    "prefix": (f"audio/{SPEAKER}/{VIDEO}/00001.flac", VIDEO),
    "absolute": (f"/data/{SPEAKER}/{VIDEO}/00001.wav", VIDEO),
    "dashes": (f"{SPEAKER}-{VIDEO}-00001", VIDEO),
    "dashes with extension": (f"{SPEAKER}-{VIDEO}-00001.wav", VIDEO),
}
FORMATS = {
    "dict of texts": lambda name: json.dumps({name: "so it is"}),
    "dict of objects": lambda name: json.dumps({name: {"text": "so it is", "lang": "en"}}),
    "dict of transcripts": lambda name: json.dumps({name: {"Transcript": "so it is"}}),
    "list": lambda name: json.dumps([{"utt": name, "text": "so it is", "language": "en"}]),
    "list in an object": lambda name: json.dumps(
        {"language": "en", "utterances": [{"file": name, "text": "so it is"}]}
    ),
    "lines of JSON": lambda name: json.dumps({"key": name, "text": "so it is"}) + "\n{broken\n",
    "tabs": lambda name: f"{name}\tso it is\n",
    "tabs, language": lambda name: f"{name}\ten\tso it is\n",
    "tabs, language last": lambda name: f"{name}\tso it is\tEnglish\n",
    "tabs, confidence": lambda name: f"{name}\t0.93\tso it is\n",
    "tabs, titles": lambda name: f"text\tutterance\tlanguage\nso it is\t{name}\ten\n",
    "white space": lambda name: f"{name} so it is\n",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_with_every_name(form: str, name: str) -> None:
    written, video = NAMES[name]
    (entry,) = read(FORMATS[form](written))
    assert (entry.video_id, entry.utterance_id, entry.text) == (video, "00001", "so it is")
    has_language = "lang" in FORMATS[form]("x").lower() or "language" in form
    assert (entry.language or "").lower() in ({"en", "english"} if has_language else {""})


def test_a_video_may_be_a_key_above_or_a_field_beside() -> None:
    nested = {SPEAKER: {VIDEO: {"00001": {"text": "a"}}, OTHER: {"00001": "b"}}}
    assert read(json.dumps(nested)) == [
        Transcript(VIDEO, "00001", "a", None),
        Transcript(OTHER, "00001", "b", None),
    ]
    fields = [{"video": VIDEO, "id": "00002", "text": "a", "language": "de"}]
    # A container that looks like a video id is none.
    assert read(json.dumps({"transcripts": fields})) == [Transcript(VIDEO, "00002", "a", "de")]
    assert read('{"transcripts": {"00001": "a"}}') == [Transcript(None, "00001", "a", None)]


def test_a_language_alone_and_one_for_all() -> None:
    assert read('{"00001": {"language": "de"}}') == [Transcript(None, "00001", None, "de")]
    whole = {"language": "fr", VIDEO: {"00001": "a", "00002": {"text": "b", "lang": "de"}}}
    assert [entry.language for entry in read(json.dumps(whole))] == ["fr", "de"]


def test_columns_are_told_by_all_of_their_cells() -> None:
    # "no" and "so" are languages, but not everything in this column is.
    rows = f"{VIDEO}/00001\tno\ten\n{VIDEO}/00002\tso it goes\tde\n"
    assert [(entry.text, entry.language) for entry in read(rows)] == [
        ("no", "en"),
        ("so it goes", "de"),
    ]
    assert [entry.text for entry in read(f"{VIDEO}/00001\t\n{VIDEO}/00002\tyes\n")] == ["", "yes"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n\n", "one", "{", "[1, 2]", "null", '{"00001": 7}', '{"00001": null}', "[[[]]]"),
        *("[" * 100_000, '{"a":' * 100_000, "\ufeff", "\0\0\0", "\t\t\t", '{"a/b/": "x"}'),
        *('{"00001": ' + "9" * 10_000 + "}", f"id000003-{VIDEO}-00001 of another speaker"),
    ],
    ids=range(17),
)
def test_what_says_nothing_gives_nothing(text: str) -> None:
    assert read(text) == []


def test_what_is_hostile_is_bounded() -> None:
    long = "x" * (MAX_TRANSCRIPT_CHARACTERS + 1)
    assert [len(entry.text or "") for entry in read(f"00001 {long}")] == [MAX_TRANSCRIPT_CHARACTERS]
    # Half a character, which UTF-8 does not have.
    assert read('{"00001": "\\ud800a"}')[0].text == "?a"
    # A long key over many values is no name of any.
    many = {f"{number:05}": "x" for number in range(20_000)}
    assert read(json.dumps({"k" * 1_000_000: many})) == []
    # Tabs without end, over many lines.
    assert read("\t" * 1_000_000 + "\n" + "00001\ta\n" * 100_000)
    # Deeper than any file, and not too deep for the parser.
    deep: object = {"00001": "x"}
    for _ in range(300):
        deep = {"items": [deep]}
    assert read(json.dumps(deep)) == []


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for entry in read(text):
        for value in entry:
            assert value is None or value.encode("utf-8") is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "lang", "utt", "00001", VIDEO, SPEAKER, "data"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_read_without_an_error(value: object) -> None:
    for entry in read(json.dumps(value)):
        assert entry.text is not None or entry.language is not None
