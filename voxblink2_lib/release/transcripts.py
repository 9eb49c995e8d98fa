"""Read what a file of ``asr_res`` may say: the transcript and the language of utterances.

The inner format of these files is published nowhere. What is read, wherever it can be recognized:

    JSON          {"<utterance>": "text"}, {"<utterance>": {"text": "...", "language": "en"}},
                  these below other keys ({"<video>": {"<utterance>": ...}}), or a list of
                  objects that name their utterance
    JSON lines    such an object a line
    tabs          utterance, text and language as columns, with or without a line of titles
    white space   utterance, then the text

Anything else gives nothing, and is never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from voxblink2_lib.records import UTTERANCE_ID, is_speaker_id, is_video_id

MAX_TRANSCRIPT_CHARACTERS = 16_384
_MAX_LANGUAGE_CHARACTERS = 64
# Of values in each other, of a key, and of a line: no such file needs more.
_MAX_DEPTH = 8
_MAX_KEY_CHARACTERS = 256
_MAX_COLUMNS = 16

_TEXT_KEYS = ("text", "transcript", "transcription", "sentence")
_LANGUAGE_KEYS = ("language", "lang")
_UTTERANCE_KEYS = (
    *("utterance_id", "utterance", "utt_id", "utt", "key", "id", "name"),
    *("audio", "wav", "file", "path"),
)
_VIDEO_KEYS = ("video_id", "video")
_ABOUT_KEYS = {*_LANGUAGE_KEYS, *_VIDEO_KEYS, *_UTTERANCE_KEYS}
# Names of containers, which are no part of an utterance's name; some look like a video id.
_CONTAINERS = {"utterances", "transcripts", "results", "items", "data"}

# With dashes a name may be taken apart in one way only: a video id has 11 characters.
_DASHED_NAME = re.compile(
    r"(id[0-9]{5,6})[-_]([A-Za-z0-9_-]{11})[-_]([A-Za-z0-9_-]{1,64})", re.ASCII
)
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$", re.ASCII)
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})?", re.ASCII)
_WORD = re.compile(r"[^\W\d_]{2,20}")
_NUMBER = re.compile(r"[-+0-9.,:eE%]+", re.ASCII)


class Transcript(NamedTuple):
    """What was said in an utterance.

    Attributes:
        video_id: its video; ``None`` if the file does not say it.
        utterance_id: its id.
        text: the words, cut at :data:`MAX_TRANSCRIPT_CHARACTERS`; ``None`` if unknown.
        language: as the file has it; ``None`` if unknown.
    """

    video_id: str | None
    utterance_id: str
    text: str | None
    language: str | None


def read_transcripts(speaker_id: str, text: str) -> Iterator[Transcript]:
    """Yield what a speaker's file says of utterances, in its order.

    Args:
        speaker_id: the speaker; what a file says of another one is left out.
        text: content of the file.

    >>> next(read_transcripts("id000002", "YJUT3czS6OI/00001.wav good morning"))
    Transcript(video_id='YJUT3czS6OI', utterance_id='00001', text='good morning', language=None)
    """
    for name, words, language in _entries(text.strip()):
        if (place := _utterance(speaker_id, name)) is None:
            continue
        entry = Transcript(*place, _clean(words), _clean(language, _MAX_LANGUAGE_CHARACTERS))
        if entry.text is not None or entry.language is not None:
            yield entry


def clean_text(text: str) -> str:
    """Return a text without what cannot be written as UTF-8: JSON may have half characters."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _clean(value: object, most: int = MAX_TRANSCRIPT_CHARACTERS) -> str | None:
    return clean_text(value.strip()[:most]) if isinstance(value, str) else None


def _utterance(speaker_id: str, name: str) -> tuple[str | None, str] | None:
    """Return the video, if it is named, and the utterance that a name means."""
    *folders, last = name.strip().split("/")
    last = _EXTENSION.sub("", last)
    if match := _DASHED_NAME.fullmatch(last):
        folders, last = [match[1], match[2]], match[3]
    if any(is_speaker_id(folder) and folder != speaker_id for folder in folders[-2:]):
        return None
    if UTTERANCE_ID.fullmatch(last) is None:
        return None
    return (folders[-1] if folders and is_video_id(folders[-1]) else None), last


# Name of an utterance, its text, its language; the last two may be anything.
_Entry = tuple[str, object, object]


def _entries(text: str) -> Iterator[_Entry]:
    if text[:1] in {"{", "["}:
        value = parse_json(text)
        values = [value] if value is not None else map(parse_json, text.splitlines())
        for part in values:
            yield from _json_entries(part, (), None, depth=0)
        return
    lines = [line for line in text.splitlines() if line.strip()]
    tabbed = [line.split("\t", _MAX_COLUMNS) for line in lines if "\t" in line]
    yield from _tabbed_entries(tabbed)
    for line in lines:
        name, _, words = line.partition("\t" if "\t" in line else " ")
        if "\t" not in line and words:
            yield name, words, None


# -- JSON ------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; ``None`` if it is none, whatever is wrong with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_entries(
    value: Any, path: tuple[str, ...], language: object, *, depth: int
) -> Iterator[_Entry]:
    """Yield the entries of a value that is found under some keys."""
    if isinstance(value, str):
        yield "/".join(path), value, language
    elif depth >= _MAX_DEPTH:
        return
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, dict):
                yield from _json_entries(part, path, language, depth=depth + 1)
    elif isinstance(value, dict):
        yield from _object_entries(value, path, language, depth=depth)


def _object_entries(
    value: dict[str, Any], path: tuple[str, ...], language: object, *, depth: int
) -> Iterator[_Entry]:
    keys = {key.lower(): key for key in value}
    text = _first(value, keys, _TEXT_KEYS)
    own_language = _first(value, keys, _LANGUAGE_KEYS)
    language = language if own_language is None else own_language
    if text is not None or (
        own_language is not None and not any(map(_is_container, value.values()))
    ):
        names = (_first(value, keys, kind) for kind in (_VIDEO_KEYS, _UTTERANCE_KEYS))
        yield "/".join([*path, *filter(None, names)]), text, language
        return
    for key, part in value.items():
        if key.lower() in _CONTAINERS:
            yield from _json_entries(part, path, language, depth=depth + 1)
        elif key.lower() not in _ABOUT_KEYS and len(key) <= _MAX_KEY_CHARACTERS:
            yield from _json_entries(part, (*path, key), language, depth=depth + 1)


def _is_container(value: object) -> bool:
    return isinstance(value, (dict, list))


def _first(value: dict[str, Any], keys: dict[str, str], names: Sequence[str]) -> str | None:
    """Return the first text that an object has under some names."""
    texts = (value[keys[name]] for name in names if name in keys)
    return next((text for text in texts if isinstance(text, str)), None)


# -- Columns ---------------------------------------------------------------------------------------


def _tabbed_entries(rows: list[list[str]]) -> Iterator[_Entry]:
    if not rows:
        return
    titles = [title.strip().lower() for title in rows[0]]
    if any(title in _UTTERANCE_KEYS for title in titles):
        name, text, language = (
            next((titles.index(key) for key in kind if key in titles), None)
            for kind in (_UTTERANCE_KEYS, _TEXT_KEYS, _LANGUAGE_KEYS)
        )
        rows = rows[1:]
    else:
        name, (text, language) = 0, _columns(rows)
    for row in rows:
        yield _cell(row, name) or "", _cell(row, text), _cell(row, language)


def _cell(row: list[str], column: int | None) -> str | None:
    return row[column] if column is not None and column < len(row) else None


def _columns(rows: list[list[str]]) -> tuple[int | None, int | None]:
    """Return which columns are the text and the language, by what all of their cells look like."""
    places = range(1, max(map(len, rows)))
    cells = {place: [row[place].strip() for row in rows if place < len(row)] for place in places}

    def fits(place: int, pattern: re.Pattern[str]) -> bool:
        return all(map(pattern.fullmatch, filter(None, cells[place])))

    others = [place for place in places if any(cells[place]) and not fits(place, _NUMBER)]
    language = None
    if len(others) > 1:
        matches = (p for pattern in (_LANGUAGE_CODE, _WORD) for p in others if fits(p, pattern))
        language = next(matches, None)
    texts = [place for place in others if place != language]
    lengths = {place: sum(map(len, cells[place])) for place in texts}
    return max(texts, key=lengths.__getitem__, default=None), language
