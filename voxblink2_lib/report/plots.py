"""The plots of the report, as SVG to put into a page.

Labels are text in the page's own font and colour, so the plots are as light or dark as the page.
The same numbers give the same bytes. No text of the ledger is in a plot.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.progress import interval_text
from voxblink2_lib.store.histograms import Histogram, TimeLine
from voxblink2_lib.store.ledger_statistics import SpeakerCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One hue per family: done, blamed on route or machine, retried later, final.
COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "done": "#2e9e5b",
        "planned": "#9aa5b1",
        "excluded": "#66717e",
        "rate-limited": "#e39b1f",
        "blocked": "#b3590b",
        "credentials": "#d9b44a",
        "environment": "#8a6237",
        "transient": "#3f8fd2",
        "ambiguous": "#7bb7e8",
        "not-yet": "#2f6690",
        "not-original": "#1d9a9a",
        "age-or-membership": "#c28bd6",
        "private": "#8e55b0",
        "geo": "#e58aa6",
        "gone": "#c8473c",
        "media-unusable": "#7d2f3b",
    }
)

UNKNOWN_COLOUR = "#888888"
_BAR_COLOUR = "#4a86c5"
_INK = "#010203"  # stands for the colour of the page's text
_WIDTH_INCHES = 9.0
_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
}

# For steps of years, months, days, hours, minutes and seconds: of a tick, of a tick where the next
# larger unit begins, and of the text once beside the axis.
_DATE_FORMATS = {
    "formats": ["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S"],
    "zero_formats": ["", "%Y", "%m-%d", "%m-%d", "%H:%M", "%H:%M"],
    "offset_formats": ["", "", "%Y", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M"],
}
_COVERAGE_CLASSES = ("none", *(f"to {n}0 %" for n in range(1, 10)), "below all", "all")


def coverage_plot(coverage: SpeakerCoverage) -> str:
    """Draw the number of speakers by the share of their videos that are done."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.bar(_COVERAGE_CLASSES, coverage.by_share, color=_BAR_COLOUR, width=0.85)
        bars[0].set_facecolor(COLOURS["gone"])
        bars[-1].set_facecolor(COLOURS["done"])
        axes.bar_label(bars, fmt=lambda count: f"{count:,.0f}" if count else "", fontsize=8)
        axes.margins(x=0.01, y=0.12)
        axes.set(ylabel="speakers", xlabel="share of the speaker's videos that are done")
        _whole_numbers(axes)

    return draw_svg("coverage", "Speakers by the share of their videos that are done", 2.8, draw)


def outcomes_plot(line: TimeLine) -> str:
    """Draw the numbers of videos by class over time, stacked."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edges = _edges(line)
        below = np.zeros(len(edges) - 1)
        for status in sorted(line.series, key=_position):
            above = below + np.asarray(line.series[status], dtype=np.float64)
            axes.stairs(
                above, edges, baseline=below, fill=True, color=_colour(status), label=status
            )
            below = above
        _time_axis(axes, edges)
        axes.set_ylabel(f"videos in {interval_text(line.step_seconds)}")
        _whole_numbers(axes)
        figure.legend(loc="outside right upper", reverse=True)

    return draw_svg("outcomes", "Outcomes over time", 3.2, draw)


def traffic_plot(line: TimeLine) -> str:
    """Draw videos per hour and megabytes per second over time."""

    def draw(figure: Figure) -> None:
        edges = _edges(line)
        left, right = figure.subplots(1, 2)
        hours = line.step_seconds / 3600
        for name, label in (("attempts", "tried"), ("done", "done")):
            rate = np.asarray(line.series[name]) / hours
            colour = COLOURS["done" if name == "done" else "planned"]
            left.stairs(rate, edges, fill=True, color=colour, label=label)
        left.set_ylabel("videos per hour")
        left.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        _whole_numbers(left)
        rate = np.asarray(line.series["bytes"], dtype=np.float64) / line.step_seconds / 1e6
        right.stairs(rate, edges, fill=True, color=_BAR_COLOUR)
        right.set_ylabel("megabytes per second")
        for axes in (left, right):
            _time_axis(axes, edges)
            axes.set_ylim(bottom=0)

    return draw_svg("traffic", "Videos per hour and megabytes per second over time", 2.6, draw)


def durations_plot(panels: Sequence[tuple[str, str, Histogram]]) -> str:
    """Draw histograms of durations side by side.

    Args:
        panels: title, what is counted, numbers.
    """

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            _draw_durations(axes, *panel)

    return draw_svg("durations", "Durations", 2.8, draw)


def _draw_durations(axes: Axes, title: str, counted: str, histogram: Histogram) -> None:
    counts, width = histogram.counts, histogram.width_seconds
    used = max(place for place, count in enumerate(counts) if count) + 1
    axes.stairs(counts[:used], np.arange(used + 1) * width, fill=True, color=_BAR_COLOUR)
    is_cut = used == len(counts)
    axes.set(title=title, ylabel=counted, ylim=(0, None), xlim=(0, used * width))
    axes.set_xlabel(f"seconds; last bar: {(used - 1) * width:g} or more" if is_cut else "seconds")
    _whole_numbers(axes)


# -- Parts of plots --------------------------------------------------------------------------------


def _position(status: str) -> int:
    order = list(COLOURS)
    return order.index(status) if status in COLOURS else len(order)


def _colour(status: str) -> str:
    return COLOURS.get(status, UNKNOWN_COLOUR)


def _edges(line: TimeLine) -> npt.NDArray[np.float64]:
    """Return the bounds of the intervals, as matplotlib counts days."""
    bins = len(next(iter(line.series.values())))
    seconds = line.start + line.step_seconds * np.arange(bins + 1)
    return np.asarray(_dates().date2num(seconds.astype("datetime64[s]")), dtype=np.float64)


def _dates() -> Any:
    from matplotlib import dates  # without type hints

    return dates


def _time_axis(axes: Axes, edges: npt.NDArray[np.float64]) -> None:
    locator = _dates().AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(_dates().ConciseDateFormatter(locator, **_DATE_FORMATS))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("UTC")


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")


def draw_svg(name: str, title: str, height_inches: float, draw: Callable[[Figure], None]) -> str:
    """Return one plot as an ``<svg>`` element, as wide as the page.

    Args:
        name: of the plot; see :func:`inline_svg`.
        title: what it shows, for who does not see it; a text of ours, not escaped.
        height_inches: its height; the page is 9 inches wide.
        draw: draws on an empty figure.
    """
    # Imported here: the command line starts without it. The class, not pyplot: that would choose
    # a backend for the whole process.
    from matplotlib.figure import Figure

    with _settings(name):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure)
        for axes in figure.axes:
            axes.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.6)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(_LABELS))
    return inline_svg(file.getvalue().decode(), name, title)


def inline_svg(drawing: str, name: str, title: str) -> str:
    """Return the ``<svg>`` element of a file that matplotlib wrote, for a page with others.

    Args:
        drawing: the file.
        name: its ids begin with it: they are the page's.
        title: what it shows, for who does not see it; a text of ours, not escaped.
    """
    element = drawing[drawing.index("<svg") :]
    head, _, body = element.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the page
    body = body.replace(_INK, "currentColor")
    body = with_prefix(body, name)
    view = box[0] if box else ""
    return f'<svg {view} role="img" aria-label="{title}">{body.strip()}'


def with_prefix(plot: str, prefix: str) -> str:
    """Return a plot whose ids begin with a prefix, so that a page can have several of a kind."""
    plot = re.sub(r'\bid="', f'id="{prefix}-', plot)
    return re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", plot)


# Labels that matplotlib would write into the file: its version and the time.
_LABELS = ("Date", "Creator", "Format", "Type")


@contextmanager
def _settings(name: str) -> Iterator[None]:
    from matplotlib import style

    # From the defaults, not from the user's own settings; ids from the name.
    settings: dict[str, Any] = {**_SETTINGS, "svg.hashsalt": name}
    with style.context(["default", settings]):
        yield
