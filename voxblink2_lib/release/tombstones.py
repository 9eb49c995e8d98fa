"""What was purged from a store and never comes back: salted hashes of ids, in a file of the store.

STORE/tombstones.json    a salt; of each id kind, hash, date and reason. The ledger has a copy

No id is in it: it only answers, to whoever has an id, whether that was purged.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import StoreDamagedError, next_command
from voxblink2_lib.files import atomic_write, short_digest
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.records import UTTERANCE_ID, UtteranceKey, is_speaker_id, is_video_id

TombstoneKind = Literal["speaker", "video", "utterance"]
_KINDS: tuple[TombstoneKind, ...] = get_args(TombstoneKind)
FILE = "tombstones.json"
# The second has tombstones of other stores; without those, the first is written.
_FORMAT, _FORMAT_OF_SEVERAL = 1, 2
_SALT_BYTES, _HASH_BYTES = 16, 16
_CACHED_ANSWERS = 1 << 16
# In a text an id may follow another without a break, as in id000002-YJUT3czS6OI-00001.
_WORD = re.compile(rb"[A-Za-z0-9_-]{7,}")
_SPEAKER = re.compile(rb"id[0-9]{5,6}")
_VIDEO_CHARACTERS = 11
_UTTERANCE = re.compile(
    rb"(id[0-9]{5,6})[/-]([A-Za-z0-9_-]{11})[/-]([A-Za-z0-9_-]{1,64}?)"
    # In arrays, the next name may follow without a break.
    rb"(?=[^A-Za-z0-9_-]|id[0-9]{5}|$)"
)

_Rows = TypeVar("_Rows", pa.RecordBatch, pa.Table)


class PurgedIds(NamedTuple):
    """Ids that are to be purged; utterances by their names, ``speaker/video/utterance``."""

    speakers: frozenset[str] = frozenset()
    videos: frozenset[str] = frozenset()
    utterances: frozenset[str] = frozenset()


class Tombstone(NamedTuple):
    """An id that was purged.

    Attributes:
        kind: of the id.
        digest: its salted hash, in hexadecimal digits.
        date: of the purge, ``YYYY-MM-DD``.
        reason: in the user's words.
        salt: of the hash, in hexadecimal digits, if it was set in another store; else empty.
    """

    kind: TombstoneKind
    digest: str
    date: str
    reason: str
    salt: str = ""


class Tombstones:
    """All tombstones of a store.

    Args:
        salt: of the hashes, another in each store.
        stones: in the order in which they were set.
        is_finished: nothing of what they are of is left in the store.
        shards: SHA-256 of the shards that were rewritten: a copy that was made from one of them may
            still have what was purged.
    """

    def __init__(
        self,
        salt: bytes,
        stones: Iterable[Tombstone] = (),
        *,
        is_finished: bool = True,
        shards: Iterable[str] = (),
    ) -> None:
        self._salt = salt
        self.stones = tuple(stones)
        self.is_finished = is_finished
        self.shards = frozenset(shards)
        self._digests: dict[TombstoneKind, dict[bytes, set[str]]] = {kind: {} for kind in _KINDS}
        for stone in self.stones:
            own_salt = bytes.fromhex(stone.salt) or salt
            self._digests[stone.kind].setdefault(own_salt, set()).add(stone.digest)
        # A table has the same speaker in many rows.
        self._has = lru_cache(_CACHED_ANSWERS)(self._look_up)

    @classmethod
    def of(cls, store: Path) -> Tombstones:
        """Read those of a store; none if nothing was purged from it.

        Args:
            store: its folder.

        Raises:
            StoreDamagedError: the file is damaged.
        """
        path = store / FILE
        advice = f"Mend it with {next_command('repair', store=store)}."
        with as_own_error(StoreDamagedError, f"The file {path} is damaged", advice):
            try:
                return cls.from_json(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                return cls(secrets.token_bytes(_SALT_BYTES))

    @classmethod
    def from_json(cls, text: str) -> Tombstones:
        """Return those that :meth:`as_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the text is damaged.
        """
        file = json.loads(text)
        if file["digest"] != short_digest(file["tombstones"].encode()):
            raise ValueError("its checksum differs")
        record = json.loads(file["tombstones"])
        if record["format"] not in {_FORMAT, _FORMAT_OF_SEVERAL}:
            raise ValueError(f"it has format {record['format']!r}, not {_FORMAT_OF_SEVERAL}")
        stones = [Tombstone(*values) for values in record["stones"]]
        return cls(
            bytes.fromhex(record["salt"]),
            stones,
            is_finished=bool(record["is_finished"]),
            shards=map(str, record.get("shards", ())),
        )

    def as_json(self) -> str:
        """Return them as a text, with its checksum."""
        is_of_several = any(stone.salt for stone in self.stones)
        record = {
            "format": _FORMAT_OF_SEVERAL if is_of_several else _FORMAT,
            "salt": self._salt.hex(),
            "is_finished": self.is_finished,
            "stones": [stone[: 4 + bool(stone.salt)] for stone in self.stones],
            "shards": sorted(self.shards),
        }
        text = json.dumps(record)
        return json.dumps({"tombstones": text, "digest": short_digest(text.encode())})

    def write(self, store: Path) -> None:
        """Write them to a store."""
        with atomic_write(store / FILE) as file:
            file.write(self.as_json().encode())

    def added(self, ids: PurgedIds, *, reason: str) -> Tombstones:
        """Return these and those of other ids."""
        date = time.strftime("%Y-%m-%d", time.gmtime())
        stones = [
            Tombstone(kind, _digest(self._salt, kind, name), date, reason)
            for kind, names in zip(_KINDS, ids, strict=True)
            for name in sorted(names)
            if not self._has(kind, name)
        ]
        return Tombstones(
            self._salt,
            [*self.stones, *stones],
            is_finished=self.is_finished,
            shards=self.shards,
        )

    def united(self, others: Tombstones) -> Tombstones:
        """Return these and those of another store, whose hashes keep their own salt."""
        stones = dict.fromkeys(self.stones)
        for stone in others.stones:
            salt = stone.salt or others._salt.hex()
            stones[stone._replace(salt="" if salt == self._salt.hex() else salt)] = None
        return Tombstones(
            self._salt,
            stones,
            is_finished=self.is_finished and others.is_finished,
            shards=self.shards | others.shards,
        )

    def begun(self, shards: Iterable[str] = ()) -> Tombstones:
        """Return these, of which something may be left in the store.

        Args:
            shards: SHA-256 of the shards that will be rewritten.
        """
        shards = {*self.shards, *shards}
        return Tombstones(self._salt, self.stones, is_finished=False, shards=shards)

    def finished(self) -> Tombstones:
        """Return these, of which nothing is left in the store."""
        return Tombstones(self._salt, self.stones, shards=self.shards)

    def __bool__(self) -> bool:
        return bool(self.stones)

    def _look_up(self, kind: TombstoneKind, name: str) -> bool:
        return any(
            _digest(salt, kind, name) in digests for salt, digests in self._digests[kind].items()
        )

    # -- What they cover ---------------------------------------------------------------------------

    def covers(
        self, speaker_id: str, video_id: str | None = None, utterance_id: str | None = None
    ) -> bool:
        """Return whether a speaker was purged, or a video, or an utterance."""
        if self._has("speaker", speaker_id):
            return True
        if video_id is None:
            return False
        if self._has("video", video_id):
            return True
        if utterance_id is None or not self._digests["utterance"]:
            return False
        return self._has("utterance", UtteranceKey(speaker_id, video_id, utterance_id).name)

    def purged(self, rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows are of what was purged, shape (n,).

        Args:
            rows: with the columns ``speaker_id`` and ``video_id``, and perhaps ``utterance_id``.
        """
        is_purged = np.zeros(len(rows), np.bool_)
        if not self.stones:
            return is_purged
        kinds: tuple[TombstoneKind, ...] = ("speaker", "video")
        for kind in kinds:
            ids = rows[f"{kind}_id"]
            names = [name for name in pc.unique(ids).to_pylist() if self._has(kind, name)]
            if names:
                is_purged |= np.asarray(pc.is_in(ids, pa.array(names)))
        if self._digests["utterance"] and "utterance_id" in rows.schema.names:
            keys = zip(*(rows[name].to_pylist() for name in UtteranceKey._fields), strict=True)
            is_purged |= [self._has("utterance", "/".join(key)) for key in keys]
        return is_purged

    def without(self, rows: _Rows) -> _Rows:
        """Return rows without those of what was purged, see :meth:`purged`."""
        is_purged = self.purged(rows)
        return rows.filter(pa.array(~is_purged)) if is_purged.any() else rows

    def names_in(self, data: bytes) -> Iterator[str]:
        """Yield the ids of what was purged that are in a text of any form, as often as they are."""
        if not self.stones:
            return
        for word in _WORD.findall(data):
            yield from self._matching("speaker", _SPEAKER.findall(word))
            if self._digests["video"]:
                starts = range(len(word) - _VIDEO_CHARACTERS + 1)
                windows = (word[start : start + _VIDEO_CHARACTERS] for start in starts)
                yield from self._matching("video", windows)
        if self._digests["utterance"]:
            names = (b"/".join(ids) for ids in _UTTERANCE.findall(data))
            yield from self._matching("utterance", names)

    def _matching(self, kind: TombstoneKind, names: Iterable[bytes]) -> Iterator[str]:
        yield from (name for name in map(bytes.decode, names) if self._has(kind, name))

    def mentioned_in(self, text: Any) -> bool:
        """Return whether a text, or what JSON makes of a value, has an id that was purged."""
        data = text if isinstance(text, str) else json.dumps(text)
        # A name of a file may be no text.
        return any(self.names_in(data.encode(errors="surrogateescape")))


def _digest(salt: bytes, kind: TombstoneKind, name: str) -> str:
    text = f"{kind}:{name}".encode()
    return hashlib.blake2b(text, key=salt, digest_size=_HASH_BYTES).hexdigest()


def utterance_name(text: str) -> str | None:
    """Return the name of an utterance, which may have a file extension; ``None`` if it is no name.

    >>> utterance_name("id000002/-JUT3czS6OI/00001.wav"), utterance_name("id000002")
    ('id000002/-JUT3czS6OI/00001', None)
    """
    speaker_id, video_id, last = [*text.split("/", 2), "", ""][:3]
    utterance_id = last.partition(".")[0]
    is_name = is_speaker_id(speaker_id) and is_video_id(video_id)
    if not (is_name and UTTERANCE_ID.fullmatch(utterance_id)):
        return None
    return UtteranceKey(speaker_id, video_id, utterance_id).name
