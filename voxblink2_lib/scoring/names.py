"""Match names of utterances: equal ones, and different spellings of the same."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.records import SPEAKER_ID, VIDEO_ID
from voxblink2_lib.scoring.validation import Rows

_AUDIO = re.compile(r"\.(wav|flac|m4a|mp3|opus|ogg|sph)$", re.IGNORECASE)

# id10270/x6uYqmx31kE/00001 or id10270-x6uYqmx31kE-00001, below any folders.
_UTTERANCE = re.compile(
    rf"(?:.*/)?({SPEAKER_ID.pattern})([/-])({VIDEO_ID.pattern})\2([0-9]{{5}})", re.DOTALL
)

# What may end a prefix that all names have.
_PREFIX_END = re.compile(r"[/_.:-]")

# For the nearest name: how many are compared with care, and how much of each.
_COMPARED_NAMES, _COMPARED_CHARACTERS = 200, 100


def utterance_key(name: str) -> str:
    """Return one spelling for all spellings of an utterance's name.

    Audio extensions are left out; ``@`` separates folders in NeMo's names.

    >>> utterance_key("wav/id10270-x6uYqmx31kE-00001.wav") == utterance_key(
    ...     "id10270@x6uYqmx31kE@00001"
    ... )
    True
    """
    name = _AUDIO.sub("", name).replace("@", "/")
    utterance = _UTTERANCE.fullmatch(name)
    return "/".join(utterance.group(1, 3, 4)) if utterance else name


@dataclass(frozen=True, eq=False)
class NameIndex:
    """Names to be looked for, each once.

    Attributes:
        names: the names. Shape: [names].
        source: where they were read from, for messages.
    """

    names: Sequence[str]
    source: str

    @cached_property
    def row_by_name(self) -> dict[str, int]:
        """The last row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def _rows_by_key(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            rows.setdefault(utterance_key(name), []).append(row)
        return rows

    def rows_of(self, names: Sequence[str]) -> Rows:
        """Return the row of each name, -1 where none matches.

        An exact match comes first. Then all spellings of a VoxCeleb or VoxBlink utterance are
        equivalent: ``id10270/x6uYqmx31kE/00001``, ``id10270-x6uYqmx31kE-00001``, with or without
        audio extension, below any folders. Other names may differ in that extension, in folders
        that only one of them has, or in a prefix that all names on one side have.

        Args:
            names: names that are looked for. Shape: [names].

        Raises:
            ScoringError: a name without exact match fits two, or two such names fit one.

        >>> index = NameIndex(["id10270/x6uYqmx31kE/00001.wav", "test/noise.wav"], "memory")
        >>> index.rows_of(["noise", "id10270-x6uYqmx31kE-00001", "music"]).tolist()
        [1, 0, -1]
        """
        rows = np.array([self.row_by_name.get(name, -1) for name in names], dtype=np.int64)
        if (rows < 0).any():
            self._match_spellings(names, rows)
        return rows

    def _match_spellings(self, names: Sequence[str], rows: Rows) -> None:
        """Fill in the rows of names that have no exact match."""
        unmatched = np.flatnonzero(rows < 0).tolist()
        keys = {names[index]: utterance_key(names[index]) for index in unmatched}
        matches = self._matches(dict.fromkeys(keys.values()))
        name_by_row = {row: names[index] for index, row in enumerate(rows.tolist()) if row >= 0}
        row_by_name = {}
        for name, key in keys.items():
            if not matches[key]:
                continue
            row, *others = dict.fromkeys(matches[key])
            self._refuse_others(name, [row, *others])
            other = name_by_row.setdefault(row, name)
            if other != name and not _UTTERANCE.fullmatch(key):
                raise ScoringError(
                    f"{self.source}: {shortened(other)} and {shortened(name)} may both be "
                    f"{shortened(self.names[row])}. Use its exact name for one of them."
                )
            row_by_name[name] = row
        for index in unmatched:
            rows[index] = row_by_name.get(names[index], -1)

    def _refuse_others(self, name: str, rows: Sequence[int]) -> None:
        if len(rows) > 1:
            first, second = (shortened(self.names[row]) for row in rows[:2])
            raise ScoringError(
                f"{self.source}: {shortened(name)} may be {first} or {second}. "
                "Keep one of them, or use its exact name."
            )

    def _matches(self, keys: Iterable[str]) -> dict[str, list[int]]:
        """Return the rows that fit each key; the first rule by which any fits decides."""
        matches = {key: self._rows_by_key.get(key, []) for key in keys}
        for fold in (self._by_folders, self._by_prefix):
            unmatched = [
                key for key, rows in matches.items() if not rows and not _UTTERANCE.fullmatch(key)
            ]
            if unmatched:
                matches |= fold(unmatched)
        return matches

    def _by_folders(self, keys: Sequence[str]) -> dict[str, list[int]]:
        """Return the rows whose key is the end of such a key, or has it as its end."""
        matches = {
            key: [row for end in _path_ends(key) for row in self._rows_by_key.get(end, ())]
            for key in keys
        }
        for key, rows in self._rows_by_key.items():
            for end in _path_ends(key):
                if end in matches:
                    matches[end] += rows
        return matches

    def _by_prefix(self, keys: Sequence[str]) -> dict[str, list[int]]:
        """Return the rows whose key is such a key without or with a prefix that all have."""
        ours, theirs = _common_prefixes(self._rows_by_key), _common_prefixes(keys)
        return {
            key: [
                row
                for other in (
                    *(prefix + key for prefix in ours),
                    *(key.removeprefix(prefix) for prefix in theirs),
                )
                for row in self._rows_by_key.get(other, ())
            ]
            for key in keys
        }

    def unmatched_text(self, names: Sequence[str]) -> str:
        """Return the first three of some names, each with the nearest of this index."""
        return ", ".join(
            f"{shortened(name)} (nearest: {shortened(self.nearest(name))})" for name in names[:3]
        )

    def nearest(self, name: str) -> str:
        """Return the name that is most like one; few are compared, those with the same words.

        >>> NameIndex(["a/noise.wav", "a/music.wav"], "memory").nearest("b/nosie.wav")
        'a/noise.wav'
        """
        candidates = self.names
        for word in sorted(set(re.findall(r"\w+", name)), key=lambda word: (-len(word), word))[:8]:
            candidates = [other for other in candidates if word in other] or candidates
        candidates = candidates[:: len(candidates) // _COMPARED_NAMES + 1]
        by_start = {other[:_COMPARED_CHARACTERS]: other for other in reversed(candidates)}
        start = name[:_COMPARED_CHARACTERS]
        return by_start[difflib.get_close_matches(start, by_start, n=1, cutoff=0)[0]]


def name_filter(names: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says of a name whether it may match one of these.

    >>> may_match = name_filter(["test/a.wav", "b"])
    >>> may_match("a"), may_match("x/b.flac"), may_match("dev/a.wav")
    (True, True, False)
    """
    keys = {utterance_key(name) for name in names}
    ends = {end for key in keys for end in _path_ends(key)}

    def may_match(name: str) -> bool:
        key = utterance_key(name)
        return key in keys or key in ends or any(end in keys for end in _path_ends(key))

    return may_match


def _path_ends(key: str) -> Iterator[str]:
    """Yield a path without its first folder, without its first two, and so on."""
    _, mark, end = key.partition("/")
    while mark and end:
        yield end
        _, mark, end = end.partition("/")


def _common_prefixes(keys: Iterable[str]) -> list[str]:
    """Return the prefixes of several keys that all of them have and that end with punctuation."""
    keys = list(keys)
    # What the first and the last in order share, all share.
    first, last = (min(keys), max(keys)) if len(keys) > 1 else ("", "")
    pairs = enumerate(zip(first, last, strict=False))
    length = next((place for place, (a, b) in pairs if a != b), min(len(first), len(last)))
    return [first[: end.end()] for end in _PREFIX_END.finditer(first[:length])]
