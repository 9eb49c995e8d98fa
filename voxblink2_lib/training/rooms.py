"""Rooms: speech convolved with their impulse responses."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.augment import Waveform, fast_size, mean_power, unclipped
from voxblink2_lib.training.sound_files import at_16_khz, audio_files, first_channel, seconds_of

_log = logging.getLogger(__name__)

MOST_SECONDS = 10.0
RESPONSE_LIST, NOISE_LIST = "rir_list", "noise_list"
_SAMPLED_FILES = 64
_SHOWN_FILES = 3

# The power of its loudest sample, the direct sound, over the mean. Steady noise has 10 to 25.
_LEAST_PEAK = 64.0
# Before it, a response has next to nothing. 20 ms are left out: an early reflection may be louder.
_EARLY_SECONDS = 0.02
_MOST_BEFORE = 0.25
# After it, energy decays. Of steady noise, half lies in the first half.
_LEAST_IN_FIRST_HALF = 0.75


class _Response(NamedTuple):
    """A file, and whether a list says that it is a response."""

    path: Path
    is_listed: bool


class Reverberate:
    """Convolves with the impulse response of a room, whose loudest sample becomes time zero.

    Where a folder has a ``rir_list``, as those of RIRS_NOISES have, only its responses are used;
    where it has a ``noise_list`` alone, nothing is. Files that no list is about must be responses:
    at most 10 s long, and as :func:`is_response` says. Of many, some are looked at here, and each
    before it is used.

    Args:
        folder: of impulse responses, searched with its subfolders, such as ``RIRS_NOISES``.

    Raises:
        TrainingError: there are no responses, or files that are none.
    """

    def __init__(self, folder: str | Path) -> None:
        found = audio_files(folder)
        self._responses = _find_responses(Path(folder).expanduser(), found)
        if not self._responses:
            raise TrainingError(
                f"There are no impulse responses in {folder}: its {len(found)} audio files are in "
                f"no {RESPONSE_LIST}, and beside a {NOISE_LIST}. Pass a folder of responses, such "
                "as RIRS_NOISES/simulated_rirs."
            )
        for response in self._responses[:: -(-len(self._responses) // _SAMPLED_FILES)]:
            _read(response)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return reverberated speech of the same power."""
        response = _read(self._responses[generator.integers(len(self._responses))])
        first = int(np.abs(response).argmax())
        size = fast_size(len(waveform) + len(response) - 1)
        spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
        wet = np.fft.irfft(spectrum, size)[first : first + len(waveform)].astype(np.float32)
        power = mean_power(wet)
        if power > 0:
            wet *= np.float32(np.sqrt(mean_power(waveform) / power))
        return unclipped(wet)


def _read(response: _Response) -> Waveform:
    """Return an impulse response at 16 kHz: the first channel of a file.

    Raises:
        TrainingError: it cannot be decoded, is silent, or is no response.
    """
    path = response.path
    samples, rate = first_channel(path, most_seconds=MOST_SECONDS)
    if not samples.any():
        raise TrainingError(f"{path} is silent; an impulse response was expected.")
    if not response.is_listed and not is_response(samples, rate):
        raise TrainingError(
            f"{path} is no impulse response: it has no peak after which its energy decays. "
            f"Remove it, or name the responses of its folder in a file {RESPONSE_LIST} there."
        )
    return at_16_khz(samples[:, None], rate)


def is_response(samples: npt.NDArray[np.float32], rate: int) -> bool:
    """Return whether a sound looks like the response of a room to an impulse.

    It does if its loudest sample has 64 times the mean power, at most a quarter of the energy
    comes before that, and at least three quarters of what follows lie in the first half of it
    (compare the backward integration of Schroeder, JASA 1965): as of an exponential decay that is
    cut when it fell by 10 dB. A single knock looks like a response, too.

    Args:
        samples: shape (n,), not silent.
        rate: samples per second.
    """
    energy = np.square(samples, dtype=np.float64)
    peak = int(energy.argmax())
    before = energy[: max(0, peak - int(_EARLY_SECONDS * rate))].sum() / energy.sum()
    after = energy[peak:]
    in_first_half = after[: -(-len(after) // 2)].sum() / after.sum()
    has_peak = energy[peak] >= _LEAST_PEAK * energy.mean()
    return bool(has_peak and before <= _MOST_BEFORE and in_first_half >= _LEAST_IN_FIRST_HALF)


# -- Which files are responses ---------------------------------------------------------------------


def _find_responses(folder: Path, paths: Sequence[Path]) -> list[_Response]:
    """Return those of the files that are responses, and tell what was left out."""
    lists = _Lists(folder)
    responses, unlisted, noises = [], [], Counter[Path]()
    for path in paths:
        place = lists.place_of(path.parent)
        if place is None:
            unlisted.append(path)
        elif str(path.relative_to(place)) in lists.responses(place):
            responses.append(path)
        else:
            noises[place] += 1
    for place, count in noises.items():
        _log.warning("%d files in %s are noises; they are not used as rooms.", count, place.name)
    _check_durations(unlisted)
    of_lists = [_Response(path, is_listed=True) for path in responses]
    return sorted([*of_lists, *(_Response(path, is_listed=False) for path in unlisted)])


class _Lists:
    """The lists of responses and noises in a folder and those below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place_of = functools.cache(self._place_of)
        self.responses = functools.cache(_listed)

    def _place_of(self, folder: Path) -> Path | None:
        """Return the folder whose lists are about a folder's files: itself, or one above it."""
        if any((folder / name).is_file() for name in (RESPONSE_LIST, NOISE_LIST)):
            return folder
        return None if folder == self._folder else self.place_of(folder.parent)


def _listed(folder: Path) -> set[str]:
    """Return the paths of responses, and all their ends: a list names folders above its own."""
    path, ends = folder / RESPONSE_LIST, set[str]()
    if not path.is_file():
        return ends
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = line.split()[-1].split("/") if line.strip() else []
        ends |= {"/".join(parts[start:]) for start in range(len(parts))}
    return ends


def _check_durations(paths: Iterable[Path]) -> None:
    too_long = [str(path) for path in paths if seconds_of(path) > MOST_SECONDS]
    if too_long:
        shown = ", ".join(too_long[:_SHOWN_FILES]) + ", ..." * (len(too_long) > _SHOWN_FILES)
        raise TrainingError(
            f"Impulse responses have at most {MOST_SECONDS:g} s; longer are {len(too_long)} files: "
            f"{shown}. Remove what is noise, or name the responses of a folder in a file "
            f"{RESPONSE_LIST} there."
        )
