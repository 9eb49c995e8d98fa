"""Scores of trials on disk, who is confused in them, and those of a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.embedding.block_worker import EmbedOptions
from voxblink2_lib.embedding.run import embed
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.recipes.holdout import HeldOut
from voxblink2_lib.scoring import (
    Sweep,
    min_dcf,
    read_embeddings,
    score_trials,
)
from voxblink2_lib.scoring.names import name_filter
from voxblink2_lib.scoring.trial_lists import read_trials
from voxblink2_lib.scoring.trials import check_labelled

P_TARGET = 0.01


# -- Scores on disk --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TrialScores:
    """Scores of trials, and who is in them.

    Attributes:
        scores: the higher, the more likely the same speaker. Shape: [trials].
        target: whether it is. Shape: [trials].
        speakers: ids of speakers; empty if they are not known.
        enrolment: index in ``speakers`` of the enrolment side. Shape: [trials], or [0].
        test: index in ``speakers`` of the test side. Shape: [trials], or [0].
    """

    scores: npt.NDArray[np.float32]
    target: npt.NDArray[np.bool_]
    speakers: npt.NDArray[np.str_]
    enrolment: npt.NDArray[np.int32]
    test: npt.NDArray[np.int32]

    @classmethod
    def of(cls, held_out: HeldOut, scores: npt.NDArray[np.float32]) -> TrialScores:
        """Return the scores of held-out trials.

        Args:
            held_out: the trials.
            scores: their scores, shape (trials,).
        """
        speaker = held_out.corpus.speaker
        sides = speaker[held_out.enrolment], speaker[held_out.test]
        return cls(scores, held_out.target, np.array(held_out.corpus.speakers), *sides)

    @property
    def sweep(self) -> Sweep:
        """The sorted scores."""
        return Sweep.of(self.scores, self.target)

    @property
    def min_dcf(self) -> float:
        """The minimum detection cost at a prior of 0.01, normalized."""
        return float(min_dcf(self.sweep, p_target=P_TARGET).min_dcf)

    @property
    def text(self) -> str:
        """Error rates for people."""
        rate = 100 * self.sweep.crossing().rate
        return (
            f"EER {rate:.2f} %, minDCF({P_TARGET:g}) {self.min_dcf:.3f}, "
            f"{len(self.target):,} trials"
        )

    def save(self, path: Path) -> None:
        """Write a file of NumPy.

        Args:
            path: of the file.
        """
        unfinished = path.with_name(f"half-{path.name}")
        names = ("scores", "target", "speakers", "enrolment", "test")
        np.savez(unfinished, **{name: getattr(self, name) for name in names})
        unfinished.rename(path)

    @classmethod
    def load(cls, path: Path) -> TrialScores:
        """Read a file that :meth:`save` wrote.

        Args:
            path: of the file.
        """
        with np.load(path, allow_pickle=False) as file:
            return cls(*(file[name] for name in file.files))


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Two speakers whom a model takes for one.

    Attributes:
        speakers: their ids.
        trials: number of trials of both.
        accepted: how many of them score above the threshold of the EER.
        mean_score: of all of them.
    """

    speakers: tuple[str, str]
    trials: int
    accepted: int
    mean_score: float


def most_confused(trials: TrialScores, count: int = 10) -> list[ConfusedPair]:
    """Return the pairs of speakers with the largest share of false acceptances, worst first.

    Args:
        trials: with speakers.
        count: number of pairs at most; only those that are confused at all.
    """
    if not len(trials.speakers):
        return []
    threshold = trials.sweep.crossing().threshold
    other = ~trials.target
    low = np.minimum(trials.enrolment, trials.test)[other].astype(np.int64)
    high = np.maximum(trials.enrolment, trials.test)[other]
    pairs, place = np.unique(low * len(trials.speakers) + high, return_inverse=True)
    scores = trials.scores[other]
    number = np.bincount(place)
    accepted = np.bincount(place, scores >= threshold).astype(np.int64)
    mean = np.bincount(place, scores) / number
    worst = np.lexsort((-mean, -accepted / number))[:count]
    return [
        ConfusedPair(
            tuple(str(trials.speakers[side]) for side in divmod(pairs[row], len(trials.speakers))),  # type: ignore[arg-type]  # of two
            int(number[row]),
            int(accepted[row]),
            float(mean[row]),
        )
        for row in worst.tolist()
        if accepted[row]
    ]


# -- Lists of trials -------------------------------------------------------------------------------


def score_list(
    trials: str | Path,
    audio: str | Path,
    *,
    model: Path,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress = no_progress,
) -> TrialScores:
    """Score a list of trials, such as Vox1-O, with a model.

    Args:
        trials: see :func:`voxblink2_lib.scoring.read_trials`.
        audio: a store, a folder of audio files, or a list ``wav.scp``, in which its names are
            found as ``voxblink2 score`` finds them.
        model: its folder.
        device: where the model runs.
        workers: processes that embed; by default one for each core.
        progress: shows the utterances done.

    Raises:
        ScoringError: the list is not usable, or an utterance of it has no audio.
        EmbeddingError: the audio is not usable.
    """
    listed = read_trials(trials)
    check_labelled(listed, trials)
    options = EmbedOptions(str(model), device=device)
    keep = name_filter(listed.names)
    made: Any = embed(audio, None, options, keep=keep, workers=workers, progress=progress)
    scored = score_trials(listed, read_embeddings(made.out, progress=progress))
    nobody: Sequence[int] = ()
    sides = np.array(nobody, np.int32)
    target = np.asarray(scored.labels, np.bool_)
    scores = np.asarray(scored.scores, np.float32)
    return TrialScores(scores, target, np.array(nobody, np.str_), sides, sides)
