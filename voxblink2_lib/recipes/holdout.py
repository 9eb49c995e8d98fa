"""Hold out videos or speakers of a corpus, and score a model on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.recipes.whole_utterances import embed_rows
from voxblink2_lib.scoring import Sweep, cosine_scores
from voxblink2_lib.training import Corpus

Rows = npt.NDArray[np.int64]
# The most utterances of others that one of a held-out video is tested against.
_OTHERS = 50

Vectors = npt.NDArray[np.float32]
# Returns the lists of all processes as one.
Gather = Callable[[list[tuple[int, Vectors]]], list[tuple[int, Vectors]]]


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a work that is this process's, and how the parts come together.

    Attributes:
        rank: of this process.
        processes: number of them.
        gather: returns the lists of all processes as one, in each of them.
    """

    rank: int = 0
    processes: int = 1
    gather: Gather = list


ALONE = Share()


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


def hold_out_videos(corpus: Corpus, speakers: int = 200, *, utterances: int = 10) -> HeldOut:
    """Hold out the last video of speakers with several; test it against videos of training.

    Training sees the speakers but not the recordings, which is easier than unseen speakers. Each
    held-out utterance is tested against utterances of its speaker's other videos, and against at
    most 50 of other speakers, so that the number of trials grows with that of the speakers.

    Args:
        corpus: all utterances.
        speakers: the most of whom a video is held out; evenly spaced in the list of all.
        utterances: the most that are scored of a held-out video, and of the speaker's others.

    Raises:
        TrainingError: no speaker has two videos.
    """
    last = list(itertools.islice(_last_videos(corpus, speakers), speakers))
    if not last:
        raise TrainingError("No speaker of the corpus has two videos; none can be held out.")
    is_held_out = np.zeros(len(corpus), bool)
    is_held_out[np.concatenate([video.rows[video.held_out] for video in last])] = True
    probes = [_spaced(video.rows[video.held_out], utterances) for video in last]
    enrolled = [_spaced(video.rows[~video.held_out], utterances) for video in last]
    enrolment, test = _trials(probes, enrolled)
    return _held_out(corpus.select(~is_held_out), corpus, enrolment, test)


class _LastVideo(NamedTuple):
    """The rows of a speaker, and which of them are of the last of several videos."""

    rows: Rows
    held_out: npt.NDArray[np.bool_]


def _last_videos(corpus: Corpus, speakers: int) -> Iterator[_LastVideo]:
    """Yield the last videos of all speakers with several, first of so many that are spaced."""
    count = len(corpus.speakers)
    by_speaker = np.argsort(corpus.speaker, kind="stable")
    bounds = np.searchsorted(corpus.speaker[by_speaker], np.arange(count + 1))
    spaced = _spaced(np.arange(count), speakers)
    for speaker in [*spaced.tolist(), *np.setdiff1d(np.arange(count), spaced).tolist()]:
        rows = by_speaker[bounds[speaker] : bounds[speaker + 1]]
        videos = [name.rpartition("/")[0] for name in corpus.names(rows)]
        last = max(videos)
        held_out = np.array([video == last for video in videos])
        if not held_out.all():
            yield _LastVideo(rows, held_out)


def _trials(probes: list[Rows], enrolled: list[Rows]) -> tuple[Rows, Rows]:
    """Return enrolment and test of the trials: of each speaker all, and some of others.

    Those of others are evenly spaced among all, and begin one further for each test, so that all
    are used about equally often.
    """
    pool = np.concatenate(enrolled)
    owner = np.repeat(np.arange(len(enrolled)), [len(rows) for rows in enrolled])
    steps = np.arange(min(_OTHERS, len(pool))) * len(pool) // min(_OTHERS, len(pool))
    sides: list[tuple[Rows, Rows]] = []
    tests = 0
    for speaker, rows in enumerate(probes):
        starts = np.arange(tests, tests + len(rows))
        places = (starts[:, None] + steps) % len(pool)
        apart = owner[places] != speaker
        sides.append((np.tile(enrolled[speaker], len(rows)), rows.repeat(len(enrolled[speaker]))))
        sides.append((pool[places[apart]], rows.repeat(apart.sum(1))))
        tests += len(rows)
    enrolment, test = (np.concatenate(side) for side in zip(*sides, strict=True))
    return enrolment, test


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


def score_trials_held_out(
    model: SpeakerModel,
    extractor: SpeakerFeatureExtractor,
    held_out: HeldOut,
    *,
    share: Share = ALONE,
    progress: Progress = no_progress,
) -> npt.NDArray[np.float32]:
    """Return the score of each held-out trial: the cosine of embeddings of whole utterances.

    Args:
        model: is in evaluation mode meanwhile.
        extractor: of the model.
        held_out: utterances and trials.
        share: of this process; all of them call this together, and return the same.
        progress: shows the utterances done.
    """
    rows = np.unique(np.concatenate([held_out.enrolment, held_out.test]))
    ours = rows[share.rank :: share.processes]
    vectors = embed_rows(model, extractor, held_out.corpus, ours, progress=progress)
    gathered = dict(share.gather(list(zip(ours.tolist(), vectors, strict=True))))
    places = (np.searchsorted(rows, side) for side in (held_out.enrolment, held_out.test))
    scores = cosine_scores(np.stack([gathered[row] for row in rows.tolist()]), *places)
    return np.asarray(scores, np.float32)


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
    scores = score_trials_held_out(model, extractor, held_out, progress=progress)
    return Sweep.of(scores, held_out.target)
