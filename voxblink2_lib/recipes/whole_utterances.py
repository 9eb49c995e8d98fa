"""Embed whole utterances of a corpus with a model that is in training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training import Corpus, Reader


def embed_rows(
    model: SpeakerModel,
    extractor: SpeakerFeatureExtractor,
    corpus: Corpus,
    rows: npt.NDArray[np.int64],
    *,
    progress: Progress = no_progress,
) -> list[npt.NDArray[np.float32]]:
    """Return the embedding of each row, shape (dimensions,).

    Args:
        model: is in evaluation mode meanwhile.
        extractor: of the model.
        corpus: the utterances.
        rows: their indices.
        progress: shows the utterances done.
    """
    was_training = model.training
    model.train(mode=False)
    reader, vectors = Reader(corpus), []
    with (
        torch.inference_mode(),
        progress("Scoring", unit="utterance", total=len(rows)) as advance,
    ):
        for row in rows.tolist():
            features = extractor([reader.read(row)], sampling_rate=SAMPLE_RATE_HZ)["input_features"]
            vectors.append(model(features.to(model.device)).embeddings[0].float().cpu().numpy())
            advance(1)
    model.train(was_training)
    return vectors
