"""Residual networks over log-mel spectrograms: ResNet34, ResNet100 and ResNet293 of VoxBlink2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.configuration import SpeakerResNetConfig
from voxblink2_lib.models.layers import attentive_statistics, masked, mean_and_variance

_BOTTLENECK_FACTOR = 4
_SIMAM_LAMBDA = 1e-4
_GSP_FLOOR = 1e-12  # far below rounding; the root has no gradient at 0
_TSP_EPSILON = 1e-7
_ASP_FLOOR = 1e-5


class ResidualBlock(GradientCheckpointingLayer):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1, with a shortcut.

    Args:
        kind: ``"basic"``, ``"simam"`` or ``"bottleneck"``.
        inputs: input channels.
        channels: channels of the 3x3 convolutions.
        stride: stride of the first 3x3 convolution.
    """

    def __init__(self, kind: str, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self._with_gate = kind == "simam"
        self._is_bottleneck = kind == "bottleneck"
        outputs = channels * (_BOTTLENECK_FACTOR if self._is_bottleneck else 1)
        first, second = (1, stride) if self._is_bottleneck else (stride, 1)
        size = 1 if self._is_bottleneck else 3
        self.conv1 = _conv(inputs, channels, size, first)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, second)
        self.bn2 = nn.BatchNorm2d(channels)
        if self._is_bottleneck:
            self.conv3 = _conv(channels, outputs, 1, 1)
            self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            if stride > 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
        """Return the block's output, zero at padding.

        Args:
            x: shape (batch, channels, bands, frames), zero at padding.
            before: mask of ``x``, shape (batch, 1, 1, frames), or ``None``.
            after: mask of the output, of half the frames where the stride is 2.
        """
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(masked(y, before if self._is_bottleneck else after)))
        if self._is_bottleneck:
            y = self.bn3(self.conv3(torch.relu(y)))
        if self._with_gate:
            y = simam(y, after)
        shortcut = x if self.downsample is None else self.downsample(x)
        return masked(torch.relu(y + shortcut), after)


def _conv(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def simam(x: Tensor, mask: Tensor | None) -> Tensor:
    """Gate each position by its distance from the mean of its plane (Yang et al., ICML 2021).

    x * sigmoid(d / (4 (sum(d) / (H W - 1) + lambda)) + 0.5), d = (x - mean)^2.
    """
    mean, variance = mean_and_variance(x, mask, (2, 3))  # sum(d) / (H W - 1): unbiased variance
    distance = (x.float() - mean).square()
    gate = torch.sigmoid(distance / (4 * (variance + _SIMAM_LAMBDA)) + 0.5)
    return x * gate.to(x.dtype)


class ResNetTrunk(nn.Module):
    """All layers before the pooling."""

    def __init__(self, config: SpeakerResNetConfig) -> None:
        super().__init__()
        channels = config.base_channels
        self.conv1 = _conv(1, channels, 3, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        inputs = channels
        factor = _BOTTLENECK_FACTOR if config.block == "bottleneck" else 1
        for stage, depth in enumerate(config.depths):
            width = channels << stage
            blocks = []
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(ResidualBlock(config.block, inputs, width, stride))
                inputs = width * factor
            setattr(self, f"layer{stage + 1}", nn.ModuleList(blocks))
        self._stages = len(config.depths)
        self.outputs = inputs

    def forward(
        self, features: Tensor, mask: Tensor | None, states: list[Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return planes, shape (batch, channels, bands, frames), and their mask."""
        x = masked(torch.relu(self.bn1(self.conv1(features[:, None]))), mask)
        if states is not None:
            states.append(x)
        for stage in range(self._stages):
            after = mask if mask is None or not stage else _every_second_frame(mask)
            for block in getattr(self, f"layer{stage + 1}"):
                x = block(x, mask, after)
                mask = after
            if states is not None:
                states.append(x)
        return x, mask


def _every_second_frame(mask: Tensor) -> Tensor:
    """Return a mask as a stride of 2 leaves it.

    ``mask[..., ::2]`` is the same, but ``torch.export`` cannot prove that it is as long as what a
    convolution gives.
    """
    return functional.max_pool2d(mask, 1, (1, 2))


class AttentionPooling(nn.Module):
    """Attention over time for rows of channel and band."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(rows, channels, 1),
            nn.ReLU(),
            nn.BatchNorm1d(channels),
            nn.Conv1d(channels, rows, 1),
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return mean and standard deviation, shape (batch, 2 * rows)."""
        return attentive_statistics(x, self.attention(x), mask, floor=_ASP_FLOOR)


class SpeakerResNet(SpeakerModel):
    """A residual network with a pooling and one linear layer.

    Args:
        config: sizes of the network and of its head.
    """

    config_class = SpeakerResNetConfig

    def __init__(self, config: SpeakerResNetConfig) -> None:
        super().__init__(config)
        self.front = ResNetTrunk(config)
        bands = config.num_mel_bins
        for _ in config.depths[1:]:
            bands = -(-bands // 2)
        rows = self.front.outputs * bands
        if config.pooling == "asp":
            self.pooling = AttentionPooling(rows, config.attention_channels)
        pooled = self.front.outputs if config.pooling == "gsp" else rows
        self.bottleneck = nn.Linear(2 * pooled, config.xvector_output_dim)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """See :meth:`SpeakerModel.get_input_embeddings`."""
        return self.front.conv1

    def embed(
        self, features: Tensor, mask: Tensor | None, states: list[Tensor] | None = None
    ) -> Tensor:
        """See :meth:`SpeakerModel.embed`.

        Args:
            features: shape (batch, bands, frames), zero at padding.
            mask: shape (batch, frames), 1 at valid frames, or ``None`` if all are valid.
            states: takes the output of the first layer, and that of each stage.
        """
        x, mask = self.front(features, None if mask is None else mask[:, None, None], states)
        embeddings: Tensor = self.bottleneck(self._pool(x, mask).to(self.dtype))
        return embeddings

    def _pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.config.pooling == "gsp":
            mean, variance = mean_and_variance(x, mask, (2, 3))
            return torch.cat([mean, variance.clamp(min=_GSP_FLOOR).sqrt()], dim=1).flatten(1)
        rows = x.flatten(1, 2)
        mask = None if mask is None else mask[:, :, 0]
        if self.config.pooling == "asp":
            pooled: Tensor = self.pooling(rows, mask)
            return pooled
        mean, variance = mean_and_variance(rows, mask, (2,))
        return torch.cat([mean, (variance + _TSP_EPSILON).sqrt()], dim=1).flatten(1)
