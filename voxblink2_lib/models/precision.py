"""Parts of a network that stay in float32 whatever autocast is on around them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast on the device of a tensor."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
