"""Hold out videos or speakers of a corpus, and score a model on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import (
    SpeakerFeatureExtractor,
    SpeakerModel,
)
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.scoring import Sweep, cosine_scores
from voxblink2_lib.training import Corpus, Reader

Rows = npt.NDArray[np.int64]


# -- what is held out -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Utterances to train on, and others to see whether it helped.

    Attributes:
        train: those to train on.
        corpus: those to score.
        enrolment: a row of ``corpus`` for each trial.
        test: another one, of a different video.
        target: whether both are of one speaker.
    """

    train: Corpus
    corpus: Corpus
    enrolment: Rows
    test: Rows
    target: npt.NDArray[np.bool_]


def hold_out_videos(corpus: Corpus) -> HeldOut:
    """Hold out the last video of each speaker with several; test them against the others.

    The speakers are known from training, the recordings are not: this is easier than unseen
    speakers. For corpora of few speakers.

    Raises:
        TrainingError: no speaker has two videos.
    """
    of_speaker: dict[int, set[str]] = {}
    videos = corpus.videos()
    for speaker, video in zip(corpus.speaker.tolist(), videos, strict=True):
        of_speaker.setdefault(speaker, set()).add(video)
    held = {max(some) for some in of_speaker.values() if len(some) > 1}
    is_held = np.array([video in held for video in videos])
    if not is_held.any():
        raise TrainingError("No speaker of the corpus has two videos; none can be held out.")
    enrolment, test = np.meshgrid(np.flatnonzero(~is_held), np.flatnonzero(is_held))
    return _held_out(corpus.select(~is_held), corpus, enrolment.ravel(), test.ravel())


def hold_out_speakers(corpus: Corpus, speakers: int, *, utterances: int = 10) -> HeldOut:
    """Hold out speakers, evenly spaced in the list of all; test their videos against each other.

    Args:
        corpus: all utterances.
        speakers: how many.
        utterances: the most that are scored of each; evenly spaced, too.

    Raises:
        TrainingError: too few speakers, or no two videos of one of those held out.
    """
    count = len(corpus.speakers)
    if not 2 <= speakers < count:
        raise TrainingError(
            f"{speakers} speakers were to be held out; of {count}, 2 to {count - 1} can be."
        )
    chosen = np.arange(speakers) * count // speakers
    is_held = np.isin(corpus.speaker, chosen)
    rows = [np.flatnonzero(corpus.speaker == speaker) for speaker in chosen]
    few = [one[np.unique(np.linspace(0, len(one) - 1, utterances).astype(int))] for one in rows]
    scored = corpus.select(np.concatenate(few))
    enrolment, test = np.triu_indices(len(scored), 1)
    videos = np.unique(scored.videos(), return_inverse=True)[1]
    apart = videos[enrolment] != videos[test]
    return _held_out(corpus.select(~is_held), scored, enrolment[apart], test[apart])


def _held_out(train: Corpus, corpus: Corpus, enrolment: Rows, test: Rows) -> HeldOut:
    target = corpus.speaker[enrolment] == corpus.speaker[test]
    if target.all() or not target.any():
        raise TrainingError(
            f"The {len(target)} trials of what is held out are all of one kind; expected are some "
            "of one speaker in two videos, and some of two speakers."
        )
    return HeldOut(train, corpus, enrolment, test, target)


def score_held_out(model: SpeakerModel, extractor: SpeakerFeatureExtractor, held: HeldOut) -> Sweep:
    """Return the sorted scores of what is held out: cosines of embeddings of whole utterances.

    Args:
        model: is put into evaluation mode, and back.
        extractor: its front end.
        held: utterances and trials.
    """
    was_training = model.training
    model.train(mode=False)
    rows = np.unique(np.concatenate([held.enrolment, held.test]))
    reader, vectors = Reader(held.corpus), []
    with (
        torch.inference_mode(),
        show_progress("Scoring", unit="utterance", total=len(rows)) as seen,
    ):
        for row in rows.tolist():
            features = extractor([reader.read(row)], sampling_rate=SAMPLE_RATE_HZ)["input_features"]
            vectors.append(model(features.to(model.device)).embeddings[0].float().cpu().numpy())
            seen(1)
    model.train(was_training)
    places = (np.searchsorted(rows, one) for one in (held.enrolment, held.test))
    return Sweep.of(cosine_scores(np.stack(vectors), *places), held.target)
