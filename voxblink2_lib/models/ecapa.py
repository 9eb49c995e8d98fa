"""ECAPA-TDNN (Desplanques et al., Interspeech 2020), as in VoxBlink2's scripts and WeSpeaker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.configuration import EcapaTdnnConfig
from voxblink2_lib.models.layers import (
    attentive_statistics,
    masked,
    mean_and_variance,
    mean_over_frames,
)


class SqueezeExcitation(nn.Module):
    """A gate for each channel, computed from the means over valid frames."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Identity(),  # the mean over time, taken in forward; keeps the released names
            nn.Conv1d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv1d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the gated input, shape (batch, channels, frames)."""
        gated: Tensor = x * self.se(mean_over_frames(x, mask).to(x.dtype))
        return gated


class Res2Block(GradientCheckpointingLayer):
    """A Res2Net block with dilation and a squeeze-and-excitation gate."""

    def __init__(self, config: EcapaTdnnConfig, dilation: int) -> None:
        super().__init__()
        channels, scale = config.channels, config.res2_scale
        width = channels // scale
        self.conv1 = nn.Conv1d(channels, width * scale, 1)
        self.bn1 = nn.BatchNorm1d(width * scale)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(scale - 1))
        self.conv3 = nn.Conv1d(width * scale, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.se = SqueezeExcitation(channels, config.squeeze_channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output, shape (batch, channels, frames)."""
        parts = list(self.bn1(torch.relu(self.conv1(x))).chunk(len(self.convs) + 1, dim=1))
        y = torch.zeros_like(parts[0])
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns, strict=True)):
            y = norm(torch.relu(conv(masked(y + parts[index], mask))))
            parts[index] = y
        z = self.bn3(torch.relu(self.conv3(torch.cat(parts, dim=1))))
        summed: Tensor = self.se(z, mask) + x
        return summed


class EcapaTdnn(SpeakerModel):
    """ECAPA-TDNN with attentive statistics pooling.

    Args:
        config: sizes of the network and of its head.
    """

    config_class = EcapaTdnnConfig

    def __init__(self, config: EcapaTdnnConfig) -> None:
        super().__init__(config)
        channels, pooled = config.channels, config.pooled_channels
        self.conv1 = nn.Conv1d(config.num_mel_bins, channels, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(channels)
        for number, dilation in enumerate(config.dilations, start=1):
            setattr(self, f"layer{number}", Res2Block(config, dilation))
        self.layer4 = nn.Conv1d(len(config.dilations) * channels, pooled, 1)
        self.attention = nn.Sequential(
            nn.Conv1d(3 * pooled, config.attention_channels, 1),
            *(
                (nn.ReLU(), nn.BatchNorm1d(config.attention_channels))
                if config.attention_norm
                else ()
            ),
            nn.Tanh(),
            nn.Conv1d(config.attention_channels, pooled, 1),
        )
        self.bn5 = nn.BatchNorm1d(2 * pooled)
        self.fc6 = nn.Linear(2 * pooled, config.xvector_output_dim)
        self.bn6 = (
            nn.BatchNorm1d(config.xvector_output_dim) if config.embedding_norm else nn.Identity()
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """See :meth:`SpeakerModel.get_input_embeddings`."""
        return self.conv1

    def embed(
        self, features: Tensor, mask: Tensor | None, states: list[Tensor] | None = None
    ) -> Tensor:
        """See :meth:`SpeakerModel.embed`.

        Args:
            features: shape (batch, bands, frames), zero at padding.
            mask: shape (batch, frames), 1 at valid frames, or ``None`` if all are valid.
            states: takes the output of the first layer, and that of each block.
        """
        mask = None if mask is None else mask[:, None]
        x = self.bn1(torch.relu(self.conv1(features)))
        outputs: list[Tensor] = []
        if states is not None:
            states.append(x)
        for number in range(1, len(self.config.dilations) + 1):
            outputs.append(getattr(self, f"layer{number}")(x, mask))
            x = x + outputs[-1] if self.config.sum_inputs else outputs[-1]
        if states is not None:
            states.extend(outputs)
        y = torch.relu(self.layer4(torch.cat(outputs, dim=1)))
        mean, variance = mean_and_variance(y, mask, (2,))
        floor = self.config.variance_floor
        context = torch.cat([mean, variance.clamp(min=floor).sqrt()], dim=1).to(y.dtype)
        pooled = attentive_statistics(y, self._scores(y, context), mask, floor=floor)
        embeddings: Tensor = self.bn6(self.fc6(self.bn5(pooled.to(self.dtype))))
        return embeddings

    def _scores(self, y: Tensor, context: Tensor) -> Tensor:
        """Return attention over [y; context], shape (batch, channels, frames).

        The first layer is linear and the context the same at each frame, so its part is computed
        once.

        Args:
            y: shape (batch, channels, frames).
            context: statistics over all frames, shape (batch, 2 * channels, 1).
        """
        first: Any = self.attention[0]
        weight, channels = first.weight, y.shape[1]
        scores = functional.conv1d(y, weight[:, :channels], first.bias)
        scores = scores + functional.conv1d(context, weight[:, channels:])
        attention: Tensor = self.attention[1:](scores)
        return attention
