"""Golden weights, waveforms and small speaker models for tests, and a reference front end.

The reference front end is slow, in float64 and straight from the definitions, independent of the
library. Weights and waveforms are made as those of the golden numbers were.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor, nn

from support.property_settings import fewer_examples
from voxblink2_lib.models import (
    EcapaTdnnConfig,
    SpeakerConfig,
    SpeakerFeatureExtractor,
    SpeakerModel,
    SpeakerResNetConfig,
)
from voxblink2_lib.models.architectures import KINDS
from voxblink2_lib.models.configuration import Block, Pooling

Array = npt.NDArray[Any]

GOLDEN = Path(__file__).parents[1] / "golden" / "models.json"
WESPEAKER_GOLDEN = GOLDEN.with_name("wespeaker.json")
PROPERTY = fewer_examples(3)
TOLERANCE = 1e-4  # of embeddings, relative to their length
GOLDEN_INPUTS = {"1:16000": (1, 16_000), "2:32000": (2, 32_000)}
FRONT_END = ("featCal.fbankCal.spectrogram.window", "featCal.fbankCal.mel_scale.fb")
_SALT = "dev"


# -- Golden recipes --------------------------------------------------------------------------------


@functools.cache
def golden() -> dict[str, Any]:
    """Return the golden numbers: one entry an architecture, and ``"logfbank"``."""
    numbers: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return numbers


def golden_waveform(seed: int, samples: int) -> Array:
    """Return a buzz that swells three times a second, with some noise."""
    g = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    pitch = 110 + 20 * seed
    buzz = sum(np.sin(2 * np.pi * pitch * k * t + k) / k for k in range(1, 12))
    swelling = buzz * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    wave: Array = (0.1 * swelling + 0.01 * g.normal(size=samples)).astype(np.float32)
    return wave


def golden_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return one tensor of a golden checkpoint, front end included."""
    if key in FRONT_END:
        made = slow_window() if key == FRONT_END[0] else slow_filters(shape[1])
        return torch.from_numpy(made.astype(np.float32))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    g = np.random.default_rng(zlib.crc32((_SALT + key).encode()))
    if key.endswith("running_var"):
        numbers = g.uniform(0.5, 1.5, shape)
    elif key.endswith("running_mean"):
        numbers = g.normal(0, 0.1, shape)
    elif len(shape) == 1 and key.endswith("weight"):
        numbers = g.uniform(0.8, 1.2, shape)
    elif len(shape) == 1:
        numbers = g.normal(0, 0.05, shape)
    else:
        numbers = g.normal(0, 0.6 / math.sqrt(math.prod(shape[1:])), shape)
    return torch.from_numpy(numbers.astype(np.float32))


def golden_checkpoint(arch: str) -> dict[str, Tensor]:
    """Return the state dict of the golden weights, under the released names."""
    shapes: Mapping[str, list[int]] = golden()[arch]["state_dict"]
    return {key: golden_tensor(key, tuple(shape)) for key, shape in shapes.items()}


def light_checkpoint(arch: str) -> dict[str, Tensor]:
    """Return a state dict of the released names and shapes that is tiny as a file.

    Each tensor is one number, repeated without being stored twice. The front end is a true one.
    """
    shapes: Mapping[str, list[int]] = golden()[arch]["state_dict"]
    return {
        key: golden_tensor(key, tuple(shape)) if key in FRONT_END else _repeated(key, shape)
        for key, shape in shapes.items()
    }


def _repeated(key: str, shape: list[int]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    return torch.tensor(zlib.crc32(key.encode()) / 2**32).expand(shape)


# -- WeSpeaker's models ----------------------------------------------------------------------------


@functools.cache
def wespeaker_golden() -> dict[str, Any]:
    """Return the golden numbers of WeSpeaker's: one entry a model, and ``"fbank"``."""
    numbers: dict[str, Any] = json.loads(WESPEAKER_GOLDEN.read_text(encoding="utf-8"))
    return numbers


def int16_waveform(name: str) -> npt.NDArray[np.int16]:
    """Return a golden waveform of 16 bits by its name, ``seed:samples``."""
    wave = golden_waveform(*map(int, name.split(":")))
    return np.round(wave * 32_768).astype(np.int16)


def write_wespeaker_folder(
    folder: Path, state: Mapping[str, Tensor], model: str, **arguments: Any
) -> Path:
    """Write a model as WeSpeaker does, with what only training uses in it."""
    folder.mkdir(parents=True, exist_ok=True)
    fbank = {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0}
    settings = {
        "data_type": "shard",
        "dataset_args": {"fbank_args": fbank, "resample_rate": 16_000, "num_frms": 200},
        "model": model,
        "model_args": arguments,
        "optimizer": "SGD",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    trained = {**state, "projection.weight": torch.ones(3, 2)}
    torch.save(trained, folder / "avg_model.pt")
    return folder


def golden_wespeaker_folder(folder: Path, name: str) -> Path:
    """Write one of WeSpeaker's models with golden weights."""
    entry = wespeaker_golden()[name]
    state = {key: golden_tensor(key, tuple(shape)) for key, shape in entry["state_dict"].items()}
    return write_wespeaker_folder(folder, state, entry["model"], **entry["model_args"])


def small_wespeaker_folder(folder: Path, *, seed: int = 1) -> Path:
    """Write a SimAM-ResNet34 of WeSpeaker with 2 planes instead of 64, and random weights."""
    config = SpeakerResNetConfig(
        block="simam", pooling="asp", base_channels=2, xvector_output_dim=12
    )
    torch.manual_seed(seed)
    state = randomized(KINDS[SpeakerResNetConfig](config)).state_dict()
    sizes = {"in_planes": 2, "embed_dim": 12, "acoustic_dim": 80}
    return write_wespeaker_folder(folder, state, "SimAM_ResNet34_ASP", **sizes)


# -- The front end, slow ---------------------------------------------------------------------------


def slow_window() -> Array:
    """Return the periodic Hann window of 400 samples."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)


def slow_filters(bands: int) -> Array:
    """Return triangles evenly spaced in HTK mels from 0 to 8000 Hz, shape (257, bands)."""
    mels = np.linspace(0, 2595 * math.log10(1 + 8000 / 700), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    filters = np.zeros((257, bands))
    for band in range(bands):
        low, peak, high = edges[band : band + 3]
        for place in range(257):
            hz = place * 16_000 / 512
            filters[place, band] = max(
                0, min((hz - low) / (peak - low), (high - hz) / (high - peak))
            )
    return filters


def slow_log_mel(waveform: Array, normalization: str, bands: int = 80) -> Array:
    """Return log-mel frames, one transform at a time."""
    x = waveform.astype(np.float64)
    if normalization == "std":
        x = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).sum() / (len(x) - 1))
    else:
        x = x / (np.abs(x).max() + 1e-4)
    x = np.array([x[0], *(x[1:] - 0.97 * x[:-1])])
    x = np.concatenate([x[256:0:-1], x, x[-2:-258:-1]])  # 256 samples mirrored at each end
    filters, window = slow_filters(bands), slow_window()
    frames = []
    for start in range(0, len(x) - 511, 160):
        # The window lies in the middle of the transform; where it starts changes no power.
        spectrum = np.fft.rfft(x[start + 56 : start + 456] * window, n=512)
        frames.append(np.log(np.abs(spectrum) ** 2 @ filters + 1e-6))
    mel = np.array(frames)
    taken_off: Array = mel - mel.mean(axis=0)
    return taken_off


# -- Small models ----------------------------------------------------------------------------------

_SMALL_ECAPA = functools.partial(
    EcapaTdnnConfig,
    channels=16,
    res2_scale=4,
    squeeze_channels=6,
    pooled_channels=24,
    attention_channels=5,
    xvector_output_dim=12,
    num_mel_bins=20,
)
# 20 bands halve to 10, 5 and 3: odd numbers on the way, as the frames have.
SMALL: dict[str, Callable[..., SpeakerConfig]] = {
    "ecapa": _SMALL_ECAPA,
    "ecapa-wespeaker": functools.partial(
        _SMALL_ECAPA,
        sum_inputs=False,
        attention_norm=False,
        embedding_norm=False,
        variance_floor=1e-7,
    ),
    **{
        f"{block}-{pooling}": functools.partial(
            SpeakerResNetConfig,
            depths=(1, 2, 1, 1),
            block=block,
            pooling=pooling,
            base_channels=4,
            attention_channels=5,
            xvector_output_dim=12,
            num_mel_bins=20,
        )
        for block in get_args(Block)
        for pooling in get_args(Pooling)
    },
}


def small_model(kind: str, *, seed: int = 1, **options: Any) -> SpeakerModel:
    """Return a small model, in eval mode, that has no number at which a mistake would not show.

    Fresh models have biases of 0 and statistics of 0 and 1: padding would stay zero by itself.
    """
    torch.manual_seed(seed)
    config = SMALL[kind](**options)
    return randomized(KINDS[type(config)](config))


def randomized(model: SpeakerModel) -> SpeakerModel:
    """Give a model random biases and statistics, and return it in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.normal_(bias, 0, 0.3)
    model.train(mode=False)
    return model


def small_extractor(normalization: Any = "std") -> SpeakerFeatureExtractor:
    """Return the feature extractor of the small models."""
    return SpeakerFeatureExtractor(normalization=normalization, num_mel_bins=20)


def random_features(seed: int, frames: int, bands: int = 20) -> Tensor:
    """Return frames, shape (frames, bands), whose mean is not zero."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(frames, bands, generator=g) * 2 + 0.5


def padded(features: list[Tensor], *, garbage: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return a batch, its padding filled with garbage, and its mask."""
    lengths = torch.tensor([len(each) for each in features])
    batch = nn.utils.rnn.pad_sequence(features, batch_first=True, padding_value=garbage)
    return batch, (torch.arange(batch.shape[1])[None] < lengths[:, None]).long()


@torch.no_grad()
def embeddings_of(model: Any, features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the embeddings of a batch, shape (batch, dimensions)."""
    output: Tensor = model(features, mask).embeddings
    return output


def apart(rows: Tensor | Array, expected: Tensor | Array) -> float:
    """Return the largest distance of two rows, relative to the length of the expected one."""
    ours, theirs = (torch.as_tensor(np.asarray(each)).double() for each in (rows, expected))
    assert ours.shape == theirs.shape
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())
