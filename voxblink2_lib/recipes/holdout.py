"""Hold out videos or speakers of a corpus, and score a model on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.scoring import Sweep, cosine_scores
from voxblink2_lib.training import Corpus, Reader

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


def hold_out_speakers(corpus: Corpus, speakers: int, *, utterances: int = 10) -> HeldOut:
    """Hold out speakers, evenly spaced in the list of all; test their videos against each other.

    Args:
        corpus: all utterances.
        speakers: number of speakers.
        utterances: the most that are scored of each speaker; evenly spaced, too.

    Raises:
        TrainingError: too few speakers, or no two videos of one of those held out.
    """
    count = len(corpus.speakers)
    if not 2 <= speakers < count:
        raise TrainingError(
            f"{speakers} speakers cannot be held out of {count}; expected are 2 to {count - 1}."
        )
    chosen = np.arange(speakers) * count // speakers
    is_held_out = np.isin(corpus.speaker, chosen)
    rows = [_spaced(np.flatnonzero(corpus.speaker == speaker), utterances) for speaker in chosen]
    scored = corpus.select(np.concatenate(rows))
    enrolment, test = np.triu_indices(len(scored), 1)
    videos = np.unique(scored.videos(), return_inverse=True)[1]
    apart = videos[enrolment] != videos[test]
    return _held_out(corpus.select(~is_held_out), scored, enrolment[apart], test[apart])


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
    was_training = model.training
    model.train(mode=False)
    rows = np.unique(np.concatenate([held_out.enrolment, held_out.test]))
    reader, vectors = Reader(held_out.corpus), []
    with (
        torch.inference_mode(),
        progress("Scoring", unit="utterance", total=len(rows)) as advance,
    ):
        for row in rows.tolist():
            features = extractor([reader.read(row)], sampling_rate=SAMPLE_RATE_HZ)["input_features"]
            vectors.append(model(features.to(model.device)).embeddings[0].float().cpu().numpy())
            advance(1)
    model.train(was_training)
    places = (np.searchsorted(rows, side) for side in (held_out.enrolment, held_out.test))
    return Sweep.of(cosine_scores(np.stack(vectors), *places), held_out.target)
