"""What is counted in an archive of cut audio."""

from __future__ import annotations

import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxblink2_lib.files import short_digest
from voxblink2_lib.records import UtteranceKey

_EXAMPLES = 3  # of each kind of stranger
_HASHES = ("speaker_hashes", "video_hashes")


@dataclass(slots=True)
class Contents:
    """What was counted in an archive.

    Attributes:
        utterances: files that are utterances.
        wav_seconds: length of those that are WAV files.
        kinds: number of utterances by what their header says, as ``wav 16000 Hz, 1 x 16 bit``.
        strangers: number of other files by the reason, with examples.
        packed_bytes: how far the parts were read.
        speaker_hashes: of each speaker, whenever another begins; likewise those of videos.
    """

    utterances: int = 0
    wav_seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    strangers: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    packed_bytes: int = 0
    speaker_hashes: array.array[int] = field(default_factory=lambda: array.array("Q"))
    video_hashes: array.array[int] = field(default_factory=lambda: array.array("Q"))

    @property
    def speakers(self) -> int:
        """Number of speakers."""
        return len(np.unique(np.asarray(self.speaker_hashes)))

    @property
    def videos(self) -> int:
        """Number of videos."""
        return len(np.unique(np.asarray(self.video_hashes)))

    def add(self, key: UtteranceKey, kind: str, wav_seconds: float) -> None:
        """Count an utterance."""
        self.utterances += 1
        self.kinds[kind] += 1
        self.wav_seconds += wav_seconds
        for hashes, name in (
            (self.speaker_hashes, key.speaker_id),
            (self.video_hashes, f"{key.speaker_id}/{key.video_id}"),
        ):
            number = int(short_digest(name.encode()), 16)
            if not hashes or hashes[-1] != number:
                hashes.append(number)

    def add_stranger(self, reason: str, name: str) -> None:
        """Count a file that is no utterance."""
        count, examples = self.strangers.get(reason, (0, []))
        self.strangers[reason] = (count + 1, [*examples, name][:_EXAMPLES])

    def as_dict(self) -> dict[str, Any]:
        """Return all of this as a JSON object."""
        hashes = {name: getattr(self, name).tobytes().hex() for name in _HASHES}
        plain = ("utterances", "wav_seconds", "kinds", "strangers", "packed_bytes")
        return {**{name: getattr(self, name) for name in plain}, **hashes}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Contents:
        """Return the contents of a JSON object."""
        arrays = {name: array.array("Q", bytes.fromhex(record[name])) for name in _HASHES}
        strangers = {name: (count, names) for name, (count, names) in record["strangers"].items()}
        values = {**record, **arrays, "kinds": Counter(record["kinds"]), "strangers": strangers}
        return cls(**values)
