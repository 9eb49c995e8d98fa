"""Which speakers are for validation: a rule of a seed and a threshold, the same whatever comes.

    speakers by their hash    |--c--a-------e--b------d----|    0 to 2^64
    threshold                              ^
    validation                   c  a       and whoever comes later with a hash below

A speaker is on one side for good, whichever of its videos have come. The file of a split begins
with its rule; the ids after it are those of today, for people and for tools that read lists.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import SelectionError, next_command
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import as_own_error

SplitFact = Literal["gender", "language"]
SPLIT_FACTS: tuple[str, ...] = get_args(SplitFact)
_RULE = "# voxblink2 split: "
_HASH_BYTES = 8
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SpeakerSplit:
    """A split of speakers into training and validation.

    Attributes:
        seed: decides which speakers.
        threshold: speakers with a hash below it are for validation.
        within: the fact whose values have thresholds of their own.
        thresholds: those, by the value; ``""`` of speakers of whom it is not known. A value that
            came later has ``threshold``.

    Raises:
        ValueError: a value is none of a split.
    """

    seed: int
    threshold: int
    within: SplitFact | None = None
    thresholds: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.within not in {None, *SPLIT_FACTS}:
            raise ValueError(f"{self.within!r} is none of {', '.join(SPLIT_FACTS)}")
        for number in (self.seed, self.threshold, *self.thresholds.values()):
            if type(number) is not int:
                raise ValueError(f"{number!r} is no whole number")

    def is_validation(
        self, speakers: Sequence[str], facts: Sequence[str | None] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return which speakers are for validation, shape (n,).

        Args:
            speakers: their ids.
            facts: the value of the fact ``within`` of each; ``None`` where it is not known.
        """
        values = facts if facts is not None else [None] * len(speakers)
        sides = (
            _hash(self.seed, speaker) < self.thresholds.get(value or "", self.threshold)
            for speaker, value in zip(speakers, values, strict=True)
        )
        return np.fromiter(sides, np.bool_, len(speakers))

    @property
    def signature(self) -> bytes:
        """Bytes that are the same for the same rule, and for nothing else."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def write(self, path: Path, speakers: Sequence[str]) -> None:
        """Write the rule, and the ids of the speakers that it has for validation today."""
        lines = [_RULE + self.signature.decode(), *sorted(speakers)]
        with atomic_write(path) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    @classmethod
    def read(cls, path: Path) -> SpeakerSplit:
        """Read the rule of a file.

        Raises:
            SelectionError: there is no such file, or it is not of a split.
        """
        make = next_command("split", store="STORE", validation_speakers=500, out=path)
        advice = f"Make one with {make}."
        with as_own_error(SelectionError, f"validation: {path} is no file of a split", advice):
            with open(path, encoding="utf-8") as file:
                line = file.readline(_MOST_BYTES)
            if not line.startswith(_RULE):
                raise ValueError("it does not begin with the rule of one")
            return cls(**json.loads(line.removeprefix(_RULE)))


def make_split(
    speakers: Sequence[str],
    *,
    count: int,
    seed: int,
    within: SplitFact | None = None,
    facts: Sequence[str | None] | None = None,
) -> SpeakerSplit:
    """Return a split that has so many of some speakers for validation.

    Args:
        speakers: ids of those that have clips today.
        count: how many of them are for validation.
        seed: decides which.
        within: the share is the same among the speakers of each value of this fact.
        facts: its value of each speaker.

    Raises:
        SelectionError: none would be left for training, or none is asked for.

    >>> split = make_split(["id000001", "id000002", "id000003"], count=1, seed=1)
    >>> split.is_validation(["id000001", "id000002", "id000003"]).tolist()
    [False, False, True]
    """
    if not 0 < count < len(speakers):
        raise SelectionError(
            f"validation_speakers is {count:,}, and the store has clips of {len(speakers):,} "
            f"speakers: it must be 1 to {max(1, len(speakers) - 1):,}, so that both sides have any."
        )
    hashes = [_hash(seed, speaker) for speaker in speakers]
    groups: dict[str, list[int]] = defaultdict(list)
    for number, value in zip(hashes, facts or [None] * len(hashes), strict=True):
        groups[value or ""].append(number)
    thresholds = {}
    if within is not None:
        counts = _shares({value: len(group) for value, group in groups.items()}, count)
        thresholds = {value: _threshold(groups[value], counts[value]) for value in sorted(groups)}
    return SpeakerSplit(seed, _threshold(hashes, count), within, thresholds)


def _hash(seed: int, speaker_id: str) -> int:
    digest = hashlib.blake2b(f"{seed} {speaker_id}".encode(), digest_size=_HASH_BYTES)
    return int.from_bytes(digest.digest(), "big")


def _threshold(hashes: Sequence[int], count: int) -> int:
    """Return the number below which so many hashes are."""
    return sorted(hashes)[count - 1] + 1 if count else 0


def _shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divide a number in proportion to sizes; what is left goes to the largest remainders."""
    total = sum(sizes.values())
    shares = {value: count * size // total for value, size in sizes.items()}
    order = sorted(sizes, key=lambda value: (-(count * sizes[value] % total), value))
    for value in order[: count - sum(shares.values())]:
        shares[value] += 1
    return shares
