"""Lists of what is suspicious: clips by their sound and their boxes, and what 'purity' has listed.

Nothing of a clip's sound is in an index: clips are decoded one shard after the other, for as long
as is allowed, and the next look goes on from there.
"""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import pyarrow as pa

from voxblink2_lib.browse.query import utterance_of
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.browse.sound import SHORT_SECONDS, SILENT_PEAK_DB, Loudness, decode, loudness
from voxblink2_lib.errors import (
    SelectionError,
    StoreDamagedError,
    StoreError,
    VoxBlink2Error,
    first_line,
)
from voxblink2_lib.records import UtteranceKey, is_speaker_id, is_video_id
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.shard_check import check_columns, shard_batches
from voxblink2_lib.store.shard_names import is_shard_name, shard_order

SuspicionKind = Literal[
    "silent", "clipped", "short", "damaged", "box-outside", "box-assumed", "far", "two-voices"
]
SUSPICIONS: tuple[str, ...] = get_args(SuspicionKind)
DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "silent": f"silent: no sample above {SILENT_PEAK_DB:g} dB",
        "clipped": "clipped: cut off at full scale",
        "short": f"very short: below {SHORT_SECONDS:g} s",
        "damaged": "damaged: does not decode",
        "box-outside": "box outside: a box of the video has its centre outside the frame",
        "box-assumed": "box assumed: the frame size of the boxes is not known",
        "far": "far from its speaker, by voxblink2 purity",
        "two-voices": "second voice of its speaker, by voxblink2 purity",
    }
)
_LOOK_SECONDS = 4.0
ROWS_A_LOOK = 25
_FAR, _MIXED = "far.csv", "two_voices.csv"
_LISTS = {"far": _FAR, "two-voices": _MIXED}


class Suspect(NamedTuple):
    """An utterance to listen to.

    Attributes:
        key: its ids; without that of an utterance, all of the video are meant.
        finding: what was measured.
    """

    key: UtteranceKey
    finding: str


class LookCursor(NamedTuple):
    """Where a look goes on.

    Attributes:
        shard: name of the shard; empty for the first.
        row: in the shard; of a list of 'purity', in the file.
        looked: how many rows were looked at.
    """

    shard: str = ""
    row: int = 0
    looked: int = 0


BEGIN = LookCursor()


class Look(NamedTuple):
    """What a look found.

    Attributes:
        suspects: in the order of the shards, or of the list.
        cursor: where the next look goes on; ``None`` at the end.
        looked: how many utterances were looked at by now.
        notes: what could not be read.
    """

    suspects: tuple[Suspect, ...]
    cursor: LookCursor | None
    looked: int
    notes: tuple[str, ...] = ()


class _Row(NamedTuple):
    """A row of a batch."""

    batch: pa.RecordBatch
    place: int

    def value(self, column: str) -> object:
        """Return a value; ``None`` where there is no such column."""
        names = self.batch.schema.names
        return self.batch[column][self.place].as_py() if column in names else None

    @property
    def key(self) -> UtteranceKey:
        """Its ids."""
        ids = (str(self.value(name)) for name in ("speaker_id", "video_id", "utterance_id"))
        return UtteranceKey(*ids)

    @property
    def audio(self) -> bytes:
        """The encoded audio."""
        return bytes(self.batch["audio"].field("bytes")[self.place].as_buffer())


def _silent(row: _Row) -> str:
    sound = _measured(row)
    return sound.text if sound and sound.is_silent else ""


def _clipped(row: _Row) -> str:
    sound = _measured(row)
    return sound.text if sound and sound.is_clipped else ""


def _measured(row: _Row) -> Loudness | None:
    try:
        return loudness(decode(row.audio))
    except StoreDamagedError:  # in a list of its own
        return None


def _short(row: _Row) -> str:
    start, end = row.value("start_seconds"), row.value("end_seconds")
    if isinstance(start, float) and isinstance(end, float):
        return f"{end - start:.2f} s" if end - start < SHORT_SECONDS else ""
    sound = _measured(row)
    return sound.text if sound and sound.is_short else ""


def _damaged(row: _Row) -> str:
    try:
        decode(row.audio)
    except StoreDamagedError as error:
        return first_line(error)
    return ""


def _box_outside(row: _Row) -> str:
    return "its boxes may be of another rendition" if row.value("boxes_fit") is False else ""


def _box_assumed(row: _Row) -> str:
    return "taken to be of at most 720 lines" if row.value("boxes_evidence") == "assumed" else ""


_CHECKS: Mapping[str, Callable[[_Row], str]] = MappingProxyType(
    {
        "silent": _silent,
        "clipped": _clipped,
        "short": _short,
        "damaged": _damaged,
        "box-outside": _box_outside,
        "box-assumed": _box_assumed,
    }
)


class Suspects:
    """Looks for suspicious utterances.

    Args:
        ledger: the ledger.
        purity: the folder that ``voxblink2 purity`` wrote; ``None`` if there is none.
    """

    def __init__(self, ledger: QuietLedger, purity: Path | None = None) -> None:
        self._ledger = ledger
        self._purity = purity

    def look(
        self,
        kind: SuspicionKind,
        *,
        cursor: LookCursor = BEGIN,
        most: int = ROWS_A_LOOK,
        seconds: float = _LOOK_SECONDS,
    ) -> Look:
        """Look for the next suspicious utterances.

        Args:
            kind: of what kind.
            cursor: where to go on.
            most: how many are returned.
            seconds: after which the look ends with what it has.

        Raises:
            SelectionError: there is no such kind, or no folder of 'purity'.
            StoreError: the ledger, or the list, cannot be read.
        """
        if kind not in SUSPICIONS:
            raise SelectionError(
                f"{str(kind)[:40]!r} is no list. Choose among {', '.join(SUSPICIONS)}."
            )
        if kind in _LISTS:
            return _listed(self._list(_LISTS[kind]), kind == "two-voices", cursor, most)
        return self._looked(_CHECKS[kind], cursor, most, time.monotonic() + seconds)

    def _list(self, name: str) -> Path:
        if self._purity is None:
            raise SelectionError(
                "This list is made by voxblink2 purity, from embeddings. Name its folder with "
                "--purity."
            )
        return self._purity / name

    def _looked(
        self, check: Callable[[_Row], str], cursor: LookCursor, most: int, until: float
    ) -> Look:
        suspects: list[Suspect] = []
        notes: list[str] = []
        looked = cursor.looked
        for shard in self._shards(cursor.shard):
            first = cursor.row if shard.name == cursor.shard else 0
            try:
                for number, row in enumerate(itertools.islice(_rows(shard), first, None), first):
                    if len(suspects) >= most or time.monotonic() >= until:
                        following = LookCursor(shard.name, number, looked)
                        return Look(tuple(suspects), following, looked, tuple(notes))
                    looked += 1
                    if finding := check(row):
                        suspects.append(Suspect(row.key, finding))
            except (StoreError, OSError) as error:
                notes.append(first_line(error))
        return Look(tuple(suspects), None, looked, tuple(notes))

    def _shards(self, first: str) -> Iterator[Path]:
        """Yield the sealed shards from one on; one that is gone by now begins at the next."""
        names = self._ledger.read(lambda ledger: [shard.name for shard in ledger.shards()])
        folder = self._ledger.store.shards(self._ledger.config)
        for name in sorted(filter(is_shard_name, names), key=shard_order):
            if "/" not in name and (not first or shard_order(name) >= shard_order(first)):
                yield folder / name


def _rows(shard: Path) -> Iterator[_Row]:
    stream = open_stream(shard)
    check_columns(shard, stream.schema)
    for batch in shard_batches(stream):
        for place in range(batch.num_rows):
            yield _Row(batch, place)


# -- Lists of purity -------------------------------------------------------------------------------


def _listed(path: Path, is_of_videos: bool, cursor: LookCursor, most: int) -> Look:
    """Return the next entries of a list that ``voxblink2 purity`` wrote."""
    parse = _second_voices if is_of_videos else _far_ones
    suspects: list[Suspect] = []
    wrong = 0
    number = cursor.row
    try:
        with open(path, newline="", encoding="utf-8") as file:
            entries = csv.DictReader(file)
            for entry in itertools.islice(entries, cursor.row, None):
                if len(suspects) >= most:
                    break
                number += 1
                try:
                    suspects += parse(entry)
                except (VoxBlink2Error, KeyError, TypeError, ValueError):
                    wrong += 1
            else:
                return Look(tuple(suspects), None, number, _wrong(path, wrong))
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(
            f"The list {path} cannot be read ({first_line(error)}). Make it with voxblink2 purity."
        ) from error
    return Look(tuple(suspects), LookCursor("", number, number), number, _wrong(path, wrong))


def _wrong(path: Path, count: int) -> tuple[str, ...]:
    return (f"{count} lines of {path} are not as voxblink2 purity writes them.",) * bool(count)


def _far_ones(entry: dict[str, str]) -> list[Suspect]:
    finding = f"cosine {float(entry['cosine']):.3f}, {float(entry['seconds']):.2f} s"
    return [Suspect(utterance_of(entry["name"]), finding)]


def _second_voices(entry: dict[str, str]) -> list[Suspect]:
    speaker_id, videos = entry["speaker_id"], entry["videos"].split()
    if not is_speaker_id(speaker_id) or not all(map(is_video_id, videos)):
        raise ValueError("these are no ids")
    finding = f"cosine of the two voices {float(entry['cosine']):.3f}"
    return [Suspect(UtteranceKey(speaker_id, video, ""), finding) for video in videos]
