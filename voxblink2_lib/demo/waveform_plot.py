"""Plot of the demo: the utterances of each video over its waveform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 1800  # more than the plot has pixels, so no peak is lost
WAVE_COLOUR, TEXT_COLOUR = "#4a5568", "#1a202c"
LEVEL_COLOURS = ("#2b6cb0", "#c05621", "#2f855a")

# Heights of a row, in units of its waveform's peak: the bars of the levels are above the peak.
FLOOR, CEILING, BAR, GAP = -1.05, 1.1, 0.42, 0.08


@dataclass(frozen=True)
class WaveformRow:
    """One video of the plot.

    Attributes:
        title: text above the row.
        samples: float32 audio at 16 kHz. Shape: [samples].
        utterances: utterance id, start and stop in seconds, [start, stop).
    """

    title: str
    samples: npt.NDArray[np.float32]
    utterances: Sequence[tuple[str, float, float]]

    def __post_init__(self) -> None:
        """Check that the row can be drawn."""
        if self.samples.ndim != 1 or not self.samples.size:
            raise ValueError(
                f"samples of {self.title!r} must have shape (samples,), got {self.samples.shape}"
            )
        for name, start_seconds, stop_seconds in self.utterances:
            if not 0 <= start_seconds < stop_seconds:
                raise ValueError(
                    f"utterance {name} of {self.title!r} must have 0 <= start < stop, "
                    f"got {start_seconds} and {stop_seconds}"
                )


def draw_waveforms(target: Path, videos: Sequence[WaveformRow]) -> None:
    """Draw one row per video, with its utterances shaded and named.

    Utterances that overlap are on different levels, so that both bounds of each are visible.

    Args:
        target: PNG file to write.
        videos: the rows, from top to bottom.

    Raises:
        ValueError: there is no row.
    """
    # Imported here: the command line starts without it, and only this plot needs it.
    from matplotlib.figure import Figure

    if not videos:
        raise ValueError("videos must hold at least one row, got none")
    tops = [_top(1 + max(assign_levels(row.utterances), default=-1)) for row in videos]
    # Heights follow the levels of each row, so that every waveform has the same scale.
    heights = [top - FLOOR for top in tops]
    inches = 0.5 + 0.3 * len(videos) + 0.48 * sum(heights)
    figure = Figure(figsize=(11, inches), dpi=150, layout="constrained")
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(videos), sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    for row_axes, row, top in zip(axes, videos, tops, strict=True):
        _draw_row(row_axes, row)
        row_axes.set_ylim(FLOOR, top)
    longest_seconds = max(len(row.samples) for row in videos) / SAMPLE_RATE_HZ
    axes[-1].set_xlim(0, longest_seconds)
    axes[-1].set_xlabel("seconds", color=TEXT_COLOUR)
    # No version in the file: the same audio gives the same bytes in the next release, too.
    figure.savefig(target, format="png", metadata={"Software": None})


def assign_levels(utterances: Sequence[tuple[str, float, float]]) -> list[int]:
    """Give each utterance the lowest level on which nothing overlaps it.

    Returns:
        One level per utterance, in the order given; 0 is the first.

    Example:
        >>> assign_levels([("00001", 0.0, 4.0), ("00002", 2.0, 6.0), ("00003", 6.0, 8.0)])
        [0, 1, 0]
    """
    levels = [0] * len(utterances)
    stops_seconds: list[float] = []
    for index in sorted(range(len(utterances)), key=lambda index: utterances[index][1]):
        _, start_seconds, stop_seconds = utterances[index]
        free = (n for n, stop in enumerate(stops_seconds) if stop <= start_seconds)
        level = next(free, len(stops_seconds))
        stops_seconds[level : level + 1] = [stop_seconds]
        levels[index] = level
    return levels


def _top(levels: int) -> float:
    """Return the height of the upper end of so many levels of bars."""
    return CEILING + levels * (BAR + GAP)


def _draw_row(axes: Axes, row: WaveformRow) -> None:
    seconds, low, high = _envelope(row.samples)
    axes.fill_between(seconds, low, high, color=WAVE_COLOUR, linewidth=0)
    axes.set_title(row.title, loc="left", fontsize=10, color=TEXT_COLOUR)
    levels = assign_levels(row.utterances)
    for (name, start_seconds, stop_seconds), level in zip(row.utterances, levels, strict=True):
        colour = LEVEL_COLOURS[level % len(LEVEL_COLOURS)]
        start_width = (start_seconds, stop_seconds - start_seconds)
        bottom = _top(level)
        shade = axes.broken_barh([start_width], (FLOOR, bottom - FLOOR), color=colour, alpha=0.13)
        shade.set(linewidth=0, zorder=0)
        axes.broken_barh([start_width], (bottom, BAR), color=colour, linewidth=0)
        axes.text(
            (start_seconds + stop_seconds) / 2, bottom + BAR / 2, name,
            color="white", fontsize=8, ha="center", va="center_baseline",
        )  # fmt: skip
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(colors=TEXT_COLOUR, labelsize=9)


def _envelope(
    samples: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return time, lowest and highest sample of each column; the peak of the row is 1."""
    step = max(1, len(samples) // COLUMNS)
    columns = samples[: len(samples) // step * step].reshape(-1, step)
    peak = float(np.abs(samples).max()) or 1.0
    seconds = (np.arange(len(columns)) + 0.5) * step / SAMPLE_RATE_HZ
    return seconds, columns.min(axis=1) / peak, columns.max(axis=1) / peak
