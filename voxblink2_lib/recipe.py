"""Where training, models and scoring meet: parts of a recipe that learns to tell speakers apart.

The scripts in `examples/` and `voxblink2 demo --train` are made of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import (
    RELEASED,
    SpeakerConfig,
    SpeakerFeatureExtractor,
    SpeakerModel,
    SpeakerResNetConfig,
)
from voxblink2_lib.models.released import KINDS
from voxblink2_lib.progress import counting
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.scoring import Sweep, cosine_scores
from voxblink2_lib.training import Corpus, Example, Reader

ARCHITECTURES = ("small", *RELEASED)
# 119 thousand parameters: what two cores train in seconds.
_SMALL = SpeakerResNetConfig(
    depths=(1, 1, 1, 1), base_channels=8, pooling="tsp", xvector_output_dim=64, num_mel_bins=40
)
_FAINT = 1e-5
Rows = npt.NDArray[np.int64]


def make_model(
    arch: str, *, classes: int, seed: int
) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    """Return an untrained model with a margin head, and its feature extractor.

    Args:
        arch: one of ``ARCHITECTURES``.
        classes: of the head.
        seed: of the weights.

    Raises:
        TrainingError: the architecture is not known.
    """
    if arch not in ARCHITECTURES:
        raise TrainingError(
            f"The architecture {arch!r} is not known. Available: {', '.join(ARCHITECTURES)}."
        )
    known = RELEASED.get(arch)
    config: SpeakerConfig = _SMALL if known is None else known.config
    config = type(config).from_dict({**config.to_dict(), "num_speakers": classes})
    torch.manual_seed(seed)
    normalization = "std" if known is None else known.normalization
    extractor = SpeakerFeatureExtractor(
        normalization=normalization, num_mel_bins=config.num_mel_bins
    )
    return KINDS[type(config)](config), extractor


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
        counting("Scoring", unit="utterance", total=len(rows)) as seen,
    ):
        for row in rows.tolist():
            features = extractor([reader.read(row)], sampling_rate=SAMPLE_RATE_HZ)["input_features"]
            vectors.append(model(features.to(model.device)).embeddings[0].float().cpu().numpy())
            seen(1)
    model.train(was_training)
    places = (np.searchsorted(rows, one) for one in (held.enrolment, held.test))
    return Sweep.of(cosine_scores(np.stack(vectors), *places), held.target)


# -- batches and steps ------------------------------------------------------------------------


class FeatureCollate:
    """Makes a batch of what a model takes: features and labels.

    Args:
        extractor: the model's front end.
    """

    def __init__(self, extractor: SpeakerFeatureExtractor) -> None:
        self._extractor = extractor

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``input_features``, ``attention_mask`` where lengths differ, and ``labels``."""
        waveforms = [_audible(one) for one in examples]
        found = self._extractor(waveforms, sampling_rate=SAMPLE_RATE_HZ)
        batch = {"labels": torch.tensor([one.label for one in examples])}
        if len({len(one.waveform) for one in examples}) > 1:
            batch["attention_mask"] = found["attention_mask"]
        return {"input_features": found["input_features"], **batch}


def _audible(example: Example) -> Tensor:
    """Return the waveform; a crop of digital silence gets the faintest noise.

    It has no spectrum otherwise, and one such crop must not end a training of days.
    """
    waveform = example.waveform
    if bool((waveform != waveform[0]).any()):
        return waveform
    noise = torch.randn(len(waveform), generator=torch.Generator().manual_seed(example.row))
    return waveform + _FAINT * noise


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate and margin as functions of the step, so that nothing of them is to be saved.

    The rate rises in a line, then falls as half a cosine. The margin rises in a line, since an
    untrained network cannot meet it.

    Attributes:
        steps: of the whole training.
        rate: the highest learning rate.
        margin: the final margin, in radians.
        rate_rises: part of the steps in which the rate rises.
        margin_rises: part of the steps in which the margin rises; 0 gives it from the start.
    """

    steps: int
    rate: float
    margin: float
    rate_rises: float = 0.2
    margin_rises: float = 0.5

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = max(1.0, self.rate_rises * self.steps)
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate / 2 * (1 + math.cos(math.pi * (step - rising) / (self.steps - rising + 1)))

    def margin_at(self, step: int) -> float:
        """Return the margin of a step, counted from 0."""
        rising = self.margin_rises * self.steps
        return self.margin * min(1.0, step / rising) if rising else self.margin
