"""Hold out videos or speakers of a corpus, and score a model on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.recipes.whole_utterances import embed_rows
from voxblink2_lib.scoring import Sweep, cosine_scores
from voxblink2_lib.training import Corpus

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Utterances to train on, and trials of others to evaluate the model.

    Attributes:
        train: utterances to train on.
        corpus: utterances of the trials.
        enrolment: row of ``corpus``. Shape: [trials].
        test: row of ``corpus``, of another video. Shape: [trials].
        target: whether both are of one speaker. Shape: [trials].
    """

    train: Corpus
    corpus: Corpus
    enrolment: Rows
    test: Rows
    target: npt.NDArray[np.bool_]


def hold_out_videos(corpus: Corpus) -> HeldOut:
    """Hold out the last video of each speaker with several; test them against the others.

    Training sees the speakers but not the recordings, which is easier than unseen speakers. For
    corpora of few speakers.

    Raises:
        TrainingError: no speaker has two videos.
    """
    videos_of_speaker: dict[int, set[str]] = {}
    videos = corpus.videos()
    for speaker, video in zip(corpus.speaker.tolist(), videos, strict=True):
        videos_of_speaker.setdefault(speaker, set()).add(video)
    last = {max(names) for names in videos_of_speaker.values() if len(names) > 1}
    is_held_out = np.array([video in last for video in videos])
    if not is_held_out.any():
        raise TrainingError("No speaker of the corpus has two videos; none can be held out.")
    enrolment, test = np.meshgrid(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    return _held_out(corpus.select(~is_held_out), corpus, enrolment.ravel(), test.ravel())


def hold_out_speakers(
    corpus: Corpus, is_held_out: npt.NDArray[np.bool_], *, utterances: int = 10
) -> HeldOut:
    """Hold out speakers; test their videos against each other.

    Args:
        corpus: all utterances.
        is_held_out: which of its speakers: see :mod:`voxblink2_lib.recipes.validation`.
            Shape: [speakers].
        utterances: the most that are scored of each speaker; evenly spaced.

    Raises:
        TrainingError: too few speakers, or no two videos of one of those held out.
    """
    count, speakers = len(corpus.speakers), int(np.count_nonzero(is_held_out))
    if not 2 <= speakers < count:
        raise TrainingError(
            f"{speakers} speakers cannot be held out of {count}; expected are 2 to {count - 1}."
        )
    held_out_rows = np.flatnonzero(is_held_out[corpus.speaker])
    order = np.argsort(corpus.speaker[held_out_rows], kind="stable")
    ends = np.cumsum(np.bincount(corpus.speaker[held_out_rows])[np.flatnonzero(is_held_out)])[:-1]
    rows = [_spaced(each, utterances) for each in np.split(held_out_rows[order], ends)]
    scored = corpus.select(np.concatenate(rows))
    enrolment, test = np.triu_indices(len(scored), 1)
    videos = np.unique(scored.videos(), return_inverse=True)[1]
    apart = videos[enrolment] != videos[test]
    train = corpus.select(~is_held_out[corpus.speaker])
    return _held_out(train, scored, enrolment[apart], test[apart])


def _spaced(rows: Rows, count: int) -> Rows:
    """Return so many rows, evenly spaced; all of them if there are fewer."""
    spaced: Rows = rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
    return spaced


def _held_out(train: Corpus, corpus: Corpus, enrolment: Rows, test: Rows) -> HeldOut:
    target = corpus.speaker[enrolment] == corpus.speaker[test]
    if target.all() or not target.any():
        raise TrainingError(
            f"The {len(target)} held-out trials are all of one kind; expected are trials of one "
            "speaker in two videos, and trials of two speakers."
        )
    return HeldOut(train, corpus, enrolment, test, target)


def score_held_out(
    model: SpeakerModel,
    extractor: SpeakerFeatureExtractor,
    held_out: HeldOut,
    *,
    progress: Progress = no_progress,
) -> Sweep:
    """Return the sorted scores of the held-out trials: cosines of embeddings of whole utterances.

    Args:
        model: is in evaluation mode meanwhile.
        extractor: of the model.
        held_out: utterances and trials.
        progress: shows the utterances done.
    """
    rows = np.unique(np.concatenate([held_out.enrolment, held_out.test]))
    vectors = embed_rows(model, extractor, held_out.corpus, rows, progress=progress)
    places = (np.searchsorted(rows, side) for side in (held_out.enrolment, held_out.test))
    return Sweep.of(cosine_scores(np.stack(vectors), *places), held_out.target)
