"""Class labels of speakers, with a file to save beside a model."""

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
    """The classes of a model: one for each speaker at each speed.

    A voice at another speed sounds like another person, so it is another class (Yamamoto et al.,
    Interspeech 2019). Speaker s at speed k has label k * len(speakers) + s.

    Attributes:
        speakers: ids, sorted.
        speeds: factors; 1.1 is a tenth faster, and higher.
        corpus: whose people the ids are, such as ``"VoxCeleb2"``; ``None`` if that is not known.

    Example:
        >>> labels = SpeakerLabels(("id000001", "id000002"), speeds=(1.0, 0.9, 1.1))
        >>> labels.classes
        6
    """

    speakers: tuple[str, ...]
    speeds: tuple[float, ...] = (1.0,)
    corpus: str | None = None

    def __post_init__(self) -> None:
        if not self.speakers or list(self.speakers) != sorted(set(self.speakers)):
            raise TrainingError("The speakers of labels must be sorted, each once, at least one.")
        in_range = all(0.5 <= speed <= 2 for speed in self.speeds)
        if not self.speeds or not in_range or len(set(self.speeds)) != len(self.speeds):
            raise TrainingError(
                f"speeds are {list(self.speeds)}; expected are different factors from 0.5 to 2."
            )

    @classmethod
    def of(
        cls, corpus: Corpus, *, speeds: Sequence[float] = (1.0,), name: str | None = None
    ) -> SpeakerLabels:
        """Return the labels of all speakers of a corpus, which may have a name.

        Args:
            corpus: whose speakers are the classes.
            speeds: factors; each speed of a speaker is a class.
            name: whose people its ids are, such as ``"VoxCeleb2"``.
        """
        return cls(tuple(corpus.speakers), tuple(map(float, speeds)), name)

    @classmethod
    def load(cls, path: str | Path) -> SpeakerLabels:
        """Read a file that :meth:`save` wrote.

        Args:
            path: of the file.

        Raises:
            TrainingError: it cannot be read.
        """
        try:
            saved = json.loads(Path(path).read_text("utf-8"))
            if not isinstance(saved["speakers"], list):
                raise TypeError(f"its speakers are {saved['speakers']!r}, not a list")
            corpus = saved.get("corpus")
            if not isinstance(corpus, str | None):
                raise TypeError(f"its corpus is {corpus!r}, not a name")
            speeds = tuple(map(float, saved["speeds"]))
            return cls(tuple(map(str, saved["speakers"])), speeds, corpus)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} cannot be read as labels of speakers: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write a JSON file.

        Args:
            path: of the file, which is replaced if it exists.
        """
        record: dict[str, object] = {"speakers": self.speakers, "speeds": self.speeds}
        if self.corpus is not None:
            record["corpus"] = self.corpus
        with atomic_write(Path(path).absolute()) as file:
            file.write(json.dumps(record, indent=1).encode())

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.speakers) * len(self.speeds)

    def of_rows(self, corpus: Corpus) -> npt.NDArray[np.int64]:
        """Return the label of each utterance at the first speed, shape (n,).

        Args:
            corpus: the utterances.

        Raises:
            TrainingError: a speaker of the corpus has no label.
        """
        labels = {speaker: label for label, speaker in enumerate(self.speakers)}
        unknown = [speaker for speaker in corpus.speakers if speaker not in labels]
        if unknown:
            raise TrainingError(
                f"{len(unknown):,} speakers of the corpus have no label, the first is "
                f"{unknown[0]}. Were the labels saved with another corpus?"
            )
        return np.array([labels[speaker] for speaker in corpus.speakers], np.int64)[corpus.speaker]
