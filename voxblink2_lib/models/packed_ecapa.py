"""ECAPA-TDNN for embedding on a processor: utterances in a row instead of padded batches.

Most of the network are products of a matrix of weights and the frames, which are slow for the few
frames of one utterance and faster for many. Only the dilated convolutions and the statistics
depend on where an utterance ends. So utterances stand one after the other, with frames of zeros
between them, which are what a convolution sees beyond the end of one:

    | utterance 0 | gap | utterance 1     | gap | utterance 2 |

Batch normalization after a ReLU is part of the convolution before it, exactly: with the slope a and
the offset b, a max(z, 0) + b = max(a z + b, b) for a >= 0, and min(a z + b, b) for a < 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import XVectorOutput

from voxblink2_lib.models.ecapa import EcapaTdnn, Res2Block, SqueezeExcitation
from voxblink2_lib.models.layers import attentive_statistics, mean_and_variance


class PackedEcapa:
    """Maps log-mel frames to embeddings, as the network does, but for rounding.

    Args:
        network: in evaluation, in float32 on a processor. Its weights are not changed.

    Attributes:
        batch_seconds: of audio in a batch: with more, the values leave the processor's cache.
    """

    batch_seconds = 12

    def __init__(self, network: EcapaTdnn) -> None:
        self._config = network.config
        self._stem = _Convolution(network.conv1, network.bn1)
        numbers = range(1, len(network.config.dilations) + 1)
        self._blocks = [_Block(getattr(network, f"layer{number}")) for number in numbers]
        self._joined = _Convolution(network.layer4)
        self._attention = _Attention(network.attention)
        self._embedding = nn.Sequential(network.bn5, network.fc6, network.bn6)
        self._gap = max(2, *network.config.dilations)

    def __call__(
        self, input_features: Tensor, attention_mask: Tensor | None = None
    ) -> XVectorOutput:
        """Return embeddings, shape (batch, dimensions).

        Args:
            input_features: shape (batch, frames, bands).
            attention_mask: 1 at valid frames, shape (batch, frames); the valid ones come first.
        """
        batch, frames, _ = input_features.shape
        lengths = [frames] * batch if attention_mask is None else attention_mask.sum(1).tolist()
        valid = [rows[:length] for rows, length in zip(input_features, lengths, strict=True)]
        row = _Row.of(lengths, self._gap)
        return XVectorOutput(embeddings=self._embed(row.packed(valid), row))

    def _embed(self, features: Tensor, row: _Row) -> Tensor:
        x = self._stem(features)
        outputs = []
        for block in self._blocks:
            outputs.append(block(x, row))
            x = x + outputs[-1] if self._config.sum_inputs else outputs[-1]
        y = self._joined(torch.cat(outputs)).relu_()
        floor = self._config.variance_floor
        statistics = [mean_and_variance(part, None, (1,)) for part in row.parts(y)]
        contexts = [torch.cat([mean, var.clamp(min=floor).sqrt()]) for mean, var in statistics]
        scores = self._attention(y, contexts, row)
        pooled = [
            attentive_statistics(part[None], weights[None], None, floor=floor)
            for part, weights in zip(row.parts(y), row.parts(scores), strict=True)
        ]
        embeddings: Tensor = self._embedding(torch.cat(pooled))
        return embeddings


@dataclass(frozen=True, slots=True)
class _Row:
    """Where utterances are in a row of frames.

    Attributes:
        bounds: the first frame of each, and the one after its last.
    """

    bounds: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Sequence[int], gap: int) -> _Row:
        starts = [sum(lengths[:place]) + gap * place for place in range(len(lengths))]
        return cls(tuple((start, start + n) for start, n in zip(starts, lengths, strict=True)))

    def packed(self, utterances: Iterable[Tensor]) -> Tensor:
        """Return utterances, each of shape (frames, bands), as (bands, all frames)."""
        rows = list(utterances)
        packed = rows[0].new_zeros(rows[0].shape[1], self.bounds[-1][1])
        for part, utterance in zip(self.parts(packed), rows, strict=True):
            part.copy_(utterance.T)
        return packed

    def parts(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what belongs to each utterance, shape (channels, frames)."""
        return (x[:, start:stop] for start, stop in self.bounds)

    def clear_gaps(self, x: Tensor) -> Tensor:
        """Set the frames between utterances to zero."""
        for (_, stop), (start, _) in zip(self.bounds, self.bounds[1:], strict=False):
            x[:, stop:start] = 0
        return x


class _Convolution:
    """A convolution, or a convolution, ReLU and batch normalization in one.

    Args:
        layer: the convolution; it keeps the number of frames.
        norm: batch normalization of what a ReLU leaves of its output, if there is any.
    """

    def __init__(self, layer: nn.Conv1d, norm: nn.BatchNorm1d | None = None) -> None:
        weight, bias = layer.weight.detach(), _required(layer.bias).detach()
        self._least: Tensor | None = None
        self._most: Tensor | None = None
        if norm is not None:
            slope, offset = _affine(norm)
            weight, bias = weight * slope[:, None, None], bias * slope + offset
            self._least = torch.where(slope < 0, -torch.inf, offset)[:, None]
            if bool((slope < 0).any()):
                self._most = torch.where(slope < 0, offset, torch.inf)[:, None]
        self._weight, self._bias = weight, bias
        self._padding: Any = layer.padding
        self._dilation: Any = layer.dilation

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output, shape (channels, frames)."""
        if self._weight.shape[2] == 1:
            y = torch.addmm(self._bias[:, None], self._weight[:, :, 0], x)
        else:
            y = functional.conv1d(
                x[None], self._weight, self._bias, 1, self._padding, self._dilation
            )[0]
        return self.bounded(y)

    def bounded(self, y: Tensor) -> Tensor:
        """Set limits to the output, in place: what is left of the ReLU."""
        return y if self._least is None else y.clamp_(self._least, self._most)

    def divided(self, channels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of the first input channels, those of the others, and the bias."""
        weight = self._weight[:, :, 0]
        return weight[:, :channels], weight[:, channels:], self._bias[:, None]


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return slope and offset of each channel, in evaluation."""
    mean, variance = _required(norm.running_mean), _required(norm.running_var)
    slope = norm.weight.detach() / (variance + norm.eps).sqrt()
    return slope, norm.bias.detach() - mean * slope


def _required(tensor: Tensor | None) -> Tensor:
    assert tensor is not None  # the layers of EcapaTdnn have them all
    return tensor


class _Block:
    """A Res2 block."""

    def __init__(self, block: Res2Block) -> None:
        self._first = _Convolution(block.conv1, block.bn1)
        pairs: Any = zip(block.convs, block.bns, strict=True)
        self._parts = [_Convolution(layer, norm) for layer, norm in pairs]
        self._last = _Convolution(block.conv3, block.bn3)
        self._gate: SqueezeExcitation = block.se

    def __call__(self, x: Tensor, row: _Row) -> Tensor:
        z = self._first(x)
        parts = z.chunk(len(self._parts) + 1)
        y: Tensor | None = None
        for part, convolution in zip(parts, self._parts, strict=False):
            y = convolution(row.clear_gaps(part if y is None else part.add_(y)))
            part.copy_(y)
        z = self._last(z)
        means = torch.stack([part.mean(dim=1) for part in row.parts(z)])
        gates = self._gate.se(means[:, :, None])
        for part, gate in zip(row.parts(z), gates, strict=True):
            part.mul_(gate)
        return z.add_(x)


class _Attention:
    """Attention over frames, given each utterance's statistics."""

    def __init__(self, layers: nn.Sequential) -> None:
        first: Any = layers[0]
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm1d)]
        self._first = _Convolution(first, *norms)
        last: Any = layers[-1]
        self._last = _Convolution(last)

    def __call__(self, y: Tensor, contexts: Sequence[Tensor], row: _Row) -> Tensor:
        of_frames, of_context, bias = self._first.divided(len(y))
        scores = of_frames @ y
        for part, context in zip(row.parts(scores), contexts, strict=True):
            part.add_(torch.addmm(bias, of_context, context))
        return self._last(self._first.bounded(scores).tanh_())
