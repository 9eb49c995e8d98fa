"""The inputs of a model made on its device, from the waveforms of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.models.device_features import DeviceFeatures
from voxblink2_lib.models.features import checked_waveform
from voxblink2_lib.recipes.masks import with_masks


class DeviceInputs(nn.Module):
    """Makes the inputs of a model from batches of ``FeatureCollate(..., on_device=True)``.

    They are those of ``FeatureCollate`` without it, up to rounding. In a training loop::

        inputs = DeviceInputs(extractor).to(device)
        loss = model(**inputs({name: x.to(device) for name, x in batch.items()})).loss

    Args:
        extractor: of the model.
    """

    def __init__(self, extractor: SpeakerFeatureExtractor) -> None:
        super().__init__()
        self._features = DeviceFeatures(extractor)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``input_features``, ``attention_mask`` if lengths differ, and ``labels``.

        Args:
            batch: of a ``FeatureCollate`` with ``on_device``, on the device.
        """
        features, mask = self._features(batch["waveforms"], batch.get("lengths"))
        inputs = {"input_features": with_masks(features, batch), "labels": batch["labels"]}
        return inputs if mask is None else {**inputs, "attention_mask": mask}


def padded_waveforms(
    waveforms: Sequence[Tensor], extractor: SpeakerFeatureExtractor
) -> dict[str, Tensor]:
    """Return ``waveforms``, zero at padding, and ``lengths`` if they differ.

    Args:
        waveforms: float32 at 16 kHz, each of shape (samples,).
        extractor: of the model.

    Raises:
        ModelError: a waveform is one that the extractor refuses.
    """
    checked = [
        checked_waveform(waveform, f"waveform {place}", min_samples=extractor.min_samples)
        for place, waveform in enumerate(waveforms)
    ]
    batch = {"waveforms": torch.nn.utils.rnn.pad_sequence(checked, batch_first=True)}
    lengths = torch.tensor([len(waveform) for waveform in checked])
    return batch if bool((lengths == lengths[0]).all()) else {**batch, "lengths": lengths}
