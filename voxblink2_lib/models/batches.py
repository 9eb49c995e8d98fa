"""Batches of frames of several lengths, with the arguments that feature extractors take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature

from voxblink2_lib.errors import ModelError

PADDINGS: tuple[object, ...] = (True, "longest", "max_length", False, "do_not_pad")
_TO_LONGEST, _TO_MAX_LENGTH, _NONE = PADDINGS[:2], PADDINGS[2], PADDINGS[3:]
TENSORS = ("pt", "np", None)


class BatchOptions(NamedTuple):
    """How waveforms of several lengths become a batch.

    Attributes:
        padding: ``True`` or ``"longest"``: to the longest; ``"max_length"``: to that;
            ``False`` or ``"do_not_pad"``: not.
        truncation: cut waveforms at ``max_length``.
        max_length: in samples.
        return_attention_mask: with the mask of valid frames.
        return_tensors: ``"pt"`` or ``"np"``, or ``None`` for a list of arrays.
    """

    padding: bool | str = True
    truncation: bool = False
    max_length: int | None = None
    return_attention_mask: bool = True
    return_tensors: str | None = "pt"


def check_options(options: BatchOptions, *, min_samples: int) -> None:
    """Check what does not depend on waveforms.

    Raises:
        ModelError: a value is not known, or two do not go together.
    """
    _check_choice("padding", options.padding, PADDINGS)
    _check_choice("return_tensors", options.return_tensors, TENSORS)
    needs_length = options.truncation or options.padding == _TO_MAX_LENGTH
    if needs_length != (options.max_length is not None):
        raise ModelError(
            "max_length, a number of samples, goes together with truncation=True or "
            f"padding='max_length'; got max_length={options.max_length!r}, "
            f"truncation={options.truncation!r}, padding={options.padding!r}."
        )
    if options.max_length is not None and options.max_length < min_samples:
        raise ModelError(
            f"max_length is {options.max_length} samples; a model needs at least {min_samples}."
        )


def batch_of(
    frames: Sequence[Tensor], options: BatchOptions, *, max_frames: int | None
) -> BatchFeature:
    """Return a batch.

    Args:
        frames: of each waveform, shape (frames, bands).
        options: see there.
        max_frames: frames of ``max_length`` samples.

    Returns:
        ``input_features``, shape (batch, frames, bands), zero at padding, and ``attention_mask``,
        shape (batch, frames), 1 at valid frames.

    Raises:
        ModelError: waveforms are too long or of several lengths, which they must not be.
    """
    lengths = [len(each) for each in frames]
    longest = max(lengths)
    if options.padding == _TO_MAX_LENGTH:
        longest = _checked_longest(lengths, max_frames or 0)
    elif options.padding in _NONE and options.return_tensors and len({*lengths}) > 1:
        raise ModelError(
            f"The waveforms have {min(lengths)} to {longest} frames, which makes no tensor. Pass "
            "padding=True, or return_tensors=None."
        )
    if options.padding in _NONE and not options.return_tensors:
        masks = [torch.ones(length, dtype=torch.long) for length in lengths]
        batch: dict[str, Any] = {"input_features": [*frames], "attention_mask": masks}
    else:
        features = torch.nn.utils.rnn.pad_sequence([*frames], batch_first=True)
        features = torch.nn.functional.pad(features, (0, 0, 0, longest - features.shape[1]))
        valid = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        batch = {"input_features": features, "attention_mask": valid.long()}
    if not options.return_attention_mask:
        del batch["attention_mask"]
    return BatchFeature({name: _as(options, values) for name, values in batch.items()})


def _as(options: BatchOptions, values: Any) -> Any:
    if options.return_tensors == "pt":
        return values
    if options.return_tensors == "np":
        return values.numpy()
    return [each.numpy() for each in values]


def _checked_longest(lengths: Sequence[int], max_frames: int) -> int:
    if max(lengths) > max_frames:
        raise ModelError(
            f"A waveform has {max(lengths)} frames, and max_length is {max_frames}. Pass "
            "truncation=True to cut it there, or padding=True."
        )
    return max_frames


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ModelError(f"{name} must be one of {choices}, got {value!r}.")
