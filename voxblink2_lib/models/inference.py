"""Networks as they are fastest on a processor, for embedding in float32.

They give what the networks give, but for rounding. Nothing here is part of a saved model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers.modeling_outputs import XVectorOutput

from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.resnet import ResidualBlock, ResNetTrunk, SpeakerResNet
from voxblink2_lib.models.winograd import WinogradConvolution, is_suitable

Network = Callable[..., XVectorOutput]

_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))


def for_processor(network: SpeakerModel) -> Network:
    """Return a network that computes the same embeddings on a processor in less time.

    Args:
        network: in evaluation and in float32; it must not be used afterwards.
    """
    if isinstance(network, SpeakerResNet):
        for module in list(network.modules()):
            if isinstance(module, ResidualBlock | ResNetTrunk):
                _fold_all(module)
    return network


def _fold_all(module: nn.Module) -> None:
    """Make batch normalization a part of the convolutions before it."""
    for convolution, norm in _PAIRS:
        if hasattr(module, convolution):
            folded = _folded(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, folded)
            setattr(module, norm, nn.Identity())
    if isinstance(module, ResidualBlock) and module.downsample is not None:
        shortcut: Any = module.downsample
        module.downsample = nn.Sequential(_folded(*shortcut))


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
    folded: Any = fuse_conv_bn_eval(convolution, norm)
    if is_suitable(folded):
        return WinogradConvolution(folded)
    layer: nn.Module = folded.to(memory_format=torch.channels_last)
    return layer
