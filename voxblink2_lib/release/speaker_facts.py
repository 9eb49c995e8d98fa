"""Read what is known of speakers: lists of VoxBlink1, and files whose inner format is unknown.

A list has a line for each speaker, ``id00012 value``. A file of ``spk_info`` or ``video_tags`` is
of one speaker; where it is a JSON object, or lines ``name: value``, facts are taken by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from voxblink2_lib.records import is_speaker_id, is_video_id
from voxblink2_lib.release.transcripts import clean_text, parse_json

_MAX_CHARACTERS = 200
_MAX_LINE_CHARACTERS = 1024
_MAX_TAGS = 256
_SEPARATOR = re.compile(r"\s*,\s*|\s+")
_NAMES = {
    "gender": ("gender", "sex"),
    "language": ("language", "languages", "lang", "spoken_language"),
    "location": ("location", "country", "nationality", "region"),
    "tags": ("tags", "video_tags", "keywords", "labels", "categories"),
}
_GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female"}


class SpeakerFacts(NamedTuple):
    """What is known of a speaker; ``None`` where it is not.

    Attributes:
        gender: ``male`` or ``female``, or as the release has it.
        language: as the release has it; several are separated by commas.
        location: country or place, as the release has it.
        tags: of the speaker's videos, each once.
    """

    gender: str | None = None
    language: str | None = None
    location: str | None = None
    tags: tuple[str, ...] | None = None

    def or_else(self, other: SpeakerFacts) -> SpeakerFacts:
        """Return these facts, and those of another source where these lack one."""
        theirs = other._asdict().items()
        lacking = {name: value for name, value in theirs if getattr(self, name) is None}
        return self._replace(**lacking)


def read_facts(text: str) -> SpeakerFacts:
    """Return what a speaker's file says, as far as it can be recognized.

    >>> read_facts('{"Gender": "f", "languages": ["en", "de"], "country": "AT"}')
    SpeakerFacts(gender='female', language='en, de', location='AT', tags=None)
    """
    text = text.strip()
    value = parse_json(text) if text.startswith("{") else dict(_named_lines(text))
    if not isinstance(value, dict):
        return SpeakerFacts()
    if value and all(map(is_video_id, value)):  # the tags of each video
        value = {"tags": value}
    values = {key.strip().lower(): part for key, part in value.items()}

    def first(fact: str) -> Any:
        return next((values[name] for name in _NAMES[fact] if name in values), None)

    return SpeakerFacts(
        gender=gender_of(_joined(first("gender"))),
        language=_joined(first("language")),
        location=_joined(first("location")),
        tags=tuple(_tags(first("tags"))) or None,
    )


def read_list(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield speakers and their values from the lines of a list, ``id00012 value``."""
    for line in lines:
        speaker_id, *values = _SEPARATOR.split(line.strip()[:_MAX_LINE_CHARACTERS], maxsplit=1)
        if is_speaker_id(speaker_id) and values and values[0]:
            yield speaker_id, clean_text(" ".join(values[0].split())[:_MAX_CHARACTERS])


def gender_of(text: str | None) -> str | None:
    """Return ``male`` or ``female`` for the usual words; anything else as it is."""
    return None if text is None else _GENDERS.get(text.lower(), text)


def _named_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and value.strip():
            yield name, value


def _joined(value: Any) -> str | None:
    parts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    texts = [part.strip()[:_MAX_CHARACTERS] for part in parts[:16] if isinstance(part, str)]
    return clean_text(", ".join(filter(None, texts))[:_MAX_CHARACTERS]) or None


def _tags(value: Any) -> list[str]:
    """Return the different texts of a list, of lists by video, or between commas."""
    if isinstance(value, str):
        value = value.split(",", _MAX_TAGS)
    if isinstance(value, Mapping):
        parts = [part for inner in value.values() for part in _as_list(inner)]
    else:
        parts = _as_list(value)
    texts = (part.strip()[:_MAX_CHARACTERS] for part in parts if isinstance(part, str))
    return list(dict.fromkeys(clean_text(text) for text in texts if text))[:_MAX_TAGS]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
