"""Speakers as contiguous whole numbers, with a map that is saved beside a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.training.corpus import Corpus


@dataclass(frozen=True, slots=True)
class SpeakerLabels:
    """The classes of a model: each speaker at each speed is one.

    A voice at another speed sounds like another person, so it is another class (Yamamoto et al.,
    Interspeech 2019). Speaker s at speed number k has label k * len(speakers) + s.

    Attributes:
        speakers: ids, sorted.
        speeds: factors; 1.1 speaks a tenth faster, and higher.

    Example:
        >>> labels = SpeakerLabels(("id000001", "id000002"), speeds=(1.0, 0.9, 1.1))
        >>> labels.classes
        6
    """

    speakers: tuple[str, ...]
    speeds: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.speakers or list(self.speakers) != sorted(set(self.speakers)):
            raise TrainingError("The speakers of labels must be sorted, each once, at least one.")
        if len(set(self.speeds)) != len(self.speeds) or not all(
            0.5 <= one <= 2 for one in self.speeds or [0]
        ):
            raise TrainingError(
                f"speeds are {list(self.speeds)}; expected are different factors from 0.5 to 2."
            )

    @classmethod
    def of(cls, corpus: Corpus, *, speeds: Sequence[float] = (1.0,)) -> SpeakerLabels:
        """Return the labels of all speakers of a corpus."""
        return cls(tuple(corpus.speakers), tuple(map(float, speeds)))

    @classmethod
    def load(cls, path: str | Path) -> SpeakerLabels:
        """Read what :meth:`save` wrote.

        Raises:
            TrainingError: it cannot be read.
        """
        try:
            said = json.loads(Path(path).read_text("utf-8"))
            if not isinstance(said["speakers"], list):
                raise TypeError(f"its speakers are {said['speakers']!r}, not a list")
            return cls(tuple(map(str, said["speakers"])), tuple(map(float, said["speeds"])))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} cannot be read as labels of speakers: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write them as JSON."""
        said = {"speakers": self.speakers, "speeds": self.speeds}
        with atomic_write(Path(path).absolute()) as file:
            file.write(json.dumps(said, indent=1).encode())

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.speakers) * len(self.speeds)

    def of_rows(self, corpus: Corpus) -> npt.NDArray[np.int64]:
        """Return the label of each utterance at the first speed, shape (n,).

        Raises:
            TrainingError: a speaker of the corpus has no label.
        """
        known = {speaker: label for label, speaker in enumerate(self.speakers)}
        unknown = [one for one in corpus.speakers if one not in known]
        if unknown:
            raise TrainingError(
                f"{len(unknown):,} speakers of the corpus have no label, the first is "
                f"{unknown[0]}. Were the labels saved with another corpus?"
            )
        return np.array([known[one] for one in corpus.speakers], np.int64)[corpus.speaker]
