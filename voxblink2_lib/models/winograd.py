"""Convolutions of 3x3 by Winograd's algorithm F(2x2, 3x3), for wide layers on a processor.

Four neighbouring outputs take 16 products instead of 36 (Lavin and Gray, CVPR 2016): tiles of 4x4
inputs d and the 3x3 weights g become B' d B and G g G'; their products, summed over the channels,
give the outputs A' m A. The transforms of inputs and outputs are sums and differences only, so the
result is about as exact as the plain convolution's; they take time in proportion to the channels,
the products to their square.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# With fewer channels, the transforms take more time than the products save.
MIN_CHANNELS = 256
# Tiles at once: what they become stays in the cache.
_TILES = 512

# G: a polynomial of the weights at 0, 1, -1 and infinity.
_OF_WEIGHTS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def is_suitable(layer: nn.Conv2d) -> bool:
    """Return whether :class:`WinogradConvolution` computes a layer, and in less time."""
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.padding == layer.dilation == (1, 1)
        and layer.groups == 1
        and min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS
    )


class WinogradConvolution(nn.Module):
    """A convolution of 3x3 with a padding of 1, for inference.

    Args:
        layer: the convolution that it computes.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        matrix = torch.tensor(_OF_WEIGHTS, dtype=torch.float64)
        weight = layer.weight.detach().double()
        transformed = torch.einsum("ai,ocij,bj->abco", matrix, weight, matrix)
        self.register_buffer("weight", transformed.flatten(0, 1).to(layer.weight.dtype))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, shape (batch, channels, bands, frames), in channels-last order."""
        _, _, bands, frames = x.shape
        tall, wide = (bands + 1) // 2, (frames + 1) // 2  # tiles
        margins = (0, 0, 1, 1 + frames % 2, 1, 1 + bands % 2)
        padded = functional.pad(x.permute(0, 2, 3, 1), margins)
        weight = self.get_buffer("weight")
        y = x.new_empty(len(x), 2 * tall, 2 * wide, weight.shape[2])
        step = max(1, round(_TILES / wide))
        for plane, output in zip(padded, y, strict=True):
            for first in range(0, tall, step):
                last = min(tall, first + step)
                strip = plane[2 * first : 2 * last + 2]
                _convolve(strip, weight, output[2 * first : 2 * last])
        if self.bias is not None:
            y += self.get_buffer("bias")
        return y[:, :bands, :frames].permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, y: Tensor) -> None:
    """Write the output of a strip.

    Args:
        x: shape (2 tall + 2, 2 wide + 2, inputs).
        weight: shape (16, inputs, outputs).
        y: shape (2 tall, 2 wide, outputs).
    """
    tall, wide = len(y) // 2, y.shape[1] // 2
    rows = x.new_empty(4, tall, x.shape[1], x.shape[2])
    _transform(x[0::2], x[1::2], rows, dim=0)
    tiles = x.new_empty(4, 4, tall, wide, x.shape[2])
    _transform(rows[:, :, 0::2], rows[:, :, 1::2], tiles.transpose(0, 1), dim=2)
    products = torch.bmm(tiles.view(16, tall * wide, -1), weight).view(4, 4, tall, wide, -1)
    sums = y.new_empty(2, 4, tall, wide, y.shape[2])
    _combine(products, sums[0], sums[1])
    outputs = y.view(tall, 2, wide, 2, -1)
    for row in (0, 1):
        _combine(sums[row], outputs[:, row, :, 0], outputs[:, row, :, 1])


def _transform(even: Tensor, odd: Tensor, out: Tensor, *, dim: int) -> None:
    """Write B' d along one dimension: d0 - d2, d1 + d2, d2 - d1, d1 - d3.

    Args:
        even: every second input from the first one: d0 of each tile, then d2 of the last.
        odd: the others: d1 of each tile, then d3 of the last.
        out: four results, in its first dimension.
        dim: the dimension.
    """
    tiles = even.shape[dim] - 1
    d0, d2 = even.narrow(dim, 0, tiles), even.narrow(dim, 1, tiles)
    d1, d3 = odd.narrow(dim, 0, tiles), odd.narrow(dim, 1, tiles)
    torch.sub(d0, d2, out=out[0])
    torch.add(d1, d2, out=out[1])
    torch.sub(d2, d1, out=out[2])
    torch.sub(d1, d3, out=out[3])


def _combine(m: Tensor, first: Tensor, second: Tensor) -> None:
    """Write A' m: m0 + m1 + m2 and m1 - m2 - m3."""
    torch.add(m[0], m[1], out=first).add_(m[2])
    torch.sub(m[1], m[2], out=second).sub_(m[3])
