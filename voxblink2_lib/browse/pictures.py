"""Pictures of utterances, videos and speakers, as SVG in the colours of the page around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.browse.sound import Samples
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.report.markup import Markup
from voxblink2_lib.report.plots import draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Settings of matplotlib are those of the process: one picture at a time.
drawing = Lock()

_WAVE, _CHOSEN, _CLIP, _NO_CLIP = "#4a86c5", "#d1495b", "#2e9e5b", "#9aa5b1"
_COLUMNS = 1200  # of a picture, which is not much wider in pixels
_WINDOW_SAMPLES, _HOP_SAMPLES = 400, 160
_RANGE_DB = 80
_MOST_LANES = 12
# Of pictures that are shown in a narrow column.
_LARGE = 13


class Cut(NamedTuple):
    """An utterance in the time line of its video.

    Attributes:
        utterance_id: its id.
        start_seconds: where it begins.
        end_seconds: where it ends.
        has_clip: there is a clip of it.
    """

    utterance_id: str
    start_seconds: float
    end_seconds: float
    has_clip: bool


def _draw(name: str, title: str, height_inches: float, draw: Callable[[Figure], None]) -> Markup:
    with drawing:
        return Markup(draw_svg(name, title, height_inches, draw))


# -- Sound -----------------------------------------------------------------------------------------


def sound_picture(samples: Samples, *, start_seconds: float = 0.0) -> Markup:
    """Draw the waveform and the spectrogram of a clip.

    Args:
        samples: at 16 kHz, shape (n,), n > 0.
        start_seconds: where the clip begins in its video.
    """
    stop_seconds = start_seconds + len(samples) / SAMPLE_RATE_HZ

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
        low, high = envelope(samples)
        seconds = np.linspace(start_seconds, stop_seconds, len(low))
        above.fill_between(seconds, low, high, color=_WAVE, linewidth=0.5)
        above.set(ylim=(-1, 1), yticks=(-1, 0, 1), ylabel="amplitude")
        below.imshow(
            spectrogram(samples),
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(start_seconds, stop_seconds, 0, SAMPLE_RATE_HZ / 2000),
            interpolation="nearest",
        )
        below.set(ylabel="kHz", xlabel="seconds of the video", xlim=(start_seconds, stop_seconds))

    return _draw("sound", "Waveform and spectrogram of the utterance", 3.2, draw)


def envelope(samples: Samples) -> tuple[Samples, Samples]:
    """Return the lowest and the highest sample of each part of a clip, at most 1,200 parts.

    >>> [part.tolist() for part in envelope(np.array([0.5, -0.5], np.float32))]
    [[0.5, -0.5], [0.5, -0.5]]
    """
    starts = np.unique(np.linspace(0, len(samples), _COLUMNS, endpoint=False).astype(np.int64))
    return np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)


def spectrogram(samples: Samples) -> npt.NDArray[np.float32]:
    """Return the power of 25 ms windows in dB below the loudest, shape (201, windows)."""
    padded = np.pad(samples, (0, max(0, _WINDOW_SAMPLES - len(samples))))
    hop = max(_HOP_SAMPLES, len(padded) // _COLUMNS)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::hop]
    spectra = np.fft.rfft(windows * np.hanning(_WINDOW_SAMPLES).astype(np.float32), axis=1)
    power = 20 * np.log10(np.abs(spectra) + 1e-7)
    return np.asarray(np.maximum(power, power.max() - _RANGE_DB).T, np.float32)


# -- Time line -------------------------------------------------------------------------------------


def time_line(cuts: Sequence[Cut], chosen: str) -> Markup:
    """Draw the cuts of a video along its time; those that overlap are below each other.

    Args:
        cuts: at least one.
        chosen: id of the utterance that is marked.
    """
    lanes = lanes_of(cuts)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for cut, lane in zip(cuts, lanes, strict=True):
            colour = _CLIP if cut.has_clip else _NO_CLIP
            colour = _CHOSEN if cut.utterance_id == chosen else colour
            width = max(cut.end_seconds - cut.start_seconds, 0.01)
            axes.broken_barh([(cut.start_seconds, width)], (lane + 0.1, 0.8), facecolors=colour)
        _legend(figure)
        axes.set(xlabel="seconds of the video", yticks=(), xlim=(0, None))
        axes.set_ylim(max(lanes) + 1, 0)

    height = 1.1 + 0.15 * max(lanes)
    return _draw("line", f"{len(cuts)} cuts of the video, the chosen one in red", height, draw)


def lanes_of(cuts: Sequence[Cut]) -> list[int]:
    """Return the lane of each cut, such that those of one lane do not overlap, if lanes suffice.

    >>> lanes_of([Cut("a", 0, 2, True), Cut("b", 1, 3, True), Cut("c", 2, 4, True)])
    [0, 1, 0]
    """
    ends: list[float] = []
    lanes = [0] * len(cuts)
    for place in sorted(range(len(cuts)), key=lambda place: cuts[place].start_seconds):
        cut = cuts[place]
        free = [lane for lane, end in enumerate(ends) if end <= cut.start_seconds]
        if free or len(ends) == _MOST_LANES:
            lane = free[0] if free else int(np.argmin(ends))
        else:
            lane = len(ends)
            ends.append(0.0)
        ends[lane] = max(ends[lane], cut.end_seconds)
        lanes[place] = lane
    return lanes


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    colours = {"this one": _CHOSEN, "has a clip": _CLIP, "has none": _NO_CLIP}
    handles = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)


# -- Voices ----------------------------------------------------------------------------------------


def cosine_picture(cosines: npt.NDArray[np.float32], videos: Sequence[str]) -> Markup:
    """Draw the cosines of a speaker's utterances with each other.

    Args:
        cosines: shape (n, n).
        videos: the video of each, those of one together.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        picture = axes.imshow(cosines, cmap="viridis", vmin=min(0, cosines.min()), vmax=1)
        figure.colorbar(picture, ax=axes).set_label("cosine", fontsize=_LARGE)
        _video_borders(axes, videos)

    return _draw("cosines", "Cosines of the speaker's utterances with each other", 6.5, draw)


def _video_borders(axes: Axes, videos: Sequence[str]) -> None:
    """Draw a line between the utterances of two videos, and name each video once."""
    begins = [n for n, video in enumerate(videos) if n == 0 or videos[n - 1] != video]
    for begin in begins[1:]:
        for line in (axes.axhline, axes.axvline):
            line(begin - 0.5, color="white", linewidth=0.6)
    axes.set_yticks(begins, [videos[begin] for begin in begins], fontsize=_LARGE)
    axes.set_xticks([])


def voice_map(
    points: npt.NDArray[np.float32], videos: Sequence[str], shares: tuple[float, float]
) -> Markup:
    """Draw utterances as points, near each other if their voices are alike.

    Args:
        points: shape (n, 2).
        videos: the video of each, which gives the colour.
        shares: of all differences, how much is along each axis, from 0 to 1.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = list(dict.fromkeys(videos))
        colours = _colours(len(names))
        for number, name in enumerate(names):
            own = np.array([video == name for video in videos])
            across, up = points[own].T
            axes.scatter(across, up, s=28, color=colours[number], label=name)
        axes.set_xlabel(f"{100 * shares[0]:.0f} % of the differences", fontsize=_LARGE)
        axes.set_ylabel(f"{100 * shares[1]:.0f} % of the differences", fontsize=_LARGE)
        axes.set_aspect("equal", adjustable="datalim")
        if len(names) <= 20:
            figure.legend(loc="outside right upper", fontsize=_LARGE)

    return _draw("map", "The speaker's utterances, coloured by video", 5.0, draw)


def _colours(count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["turbo"](np.linspace(0.05, 0.95, max(count, 1)))
