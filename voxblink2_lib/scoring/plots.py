"""Plots of detection errors: DET on normal deviates, costs over priors, and DIR over FAR."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.bayes_errors import actual_errors, minimum_errors
from voxblink2_lib.scoring.costs import EQUAL_COSTS, Costs
from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.open_set import OpenSetResult
from voxblink2_lib.scoring.validation import Floats, accept_renamed_keyword
from voxblink2_lib.scoring.verification import min_dcf

_TICKS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)
_POINTS = 2000
_FORMATS = (".png", ".pdf", ".svg")

# Marks of priors; that of the EER is round.
_SHAPES = "s^vD*"

# Curves that the usual colours are enough for.
_COLOURS = 10

# Of a legend: characters of a line, and of half a line, rows that a picture has room for, and the
# height of a further row.
_LINE, _HALF_LINE, _ROWS, _ROW_INCHES = 48, 28, 4, 0.23

# Of the plot of costs: the ends of the prior log-odds, how many are drawn, and the highest cost, if
# no mark is beyond.
_MOST_ODDS, _ODDS, _HIGHEST = 8.0, 401, 1.5

# Ends of a DET plot, if no mark is beyond: normal deviates of 0 and 1 are infinite.
_LEAST, _MOST = 0.005, 0.99


@accept_renamed_keyword("beside", "compare_with")
def plot_det(
    sweep: Sweep,
    path: str | Path,
    *,
    min_dcf: Mapping[float, float],
    compare_with: Mapping[str, Sweep] | None = None,
) -> None:
    """Draw the DET curve on normal-deviate axes, with EER and points of minimum cost.

    Args:
        sweep: sorted scores.
        path: file to write; its extension gives the format (``.png``, ``.pdf``, ``.svg``).
        min_dcf: threshold of the minimum cost for each prior.
        compare_with: other scores of the same trials, by name: drawn as thin lines.

    Raises:
        ScoringError: the file cannot be written.
    """
    figure, axes = _figure()
    # Half a trial: no smaller rate can be measured.
    least = min(0.5 / max(len(sweep.nontarget), len(sweep.target)), _LEAST)
    rate = sweep.crossing().rate
    marks = {_eer_text(sweep): (rate, rate)}
    for prior, threshold in min_dcf.items():
        fnr, fpr = sweep.rates(threshold)
        marks[f"least cost, p_target {prior:g}"] = float(fpr), float(fnr)
    axes.plot(*_det(sweep, least, through=tuple(marks.values())), label="DET")
    for (label, place), shape in zip(marks.items(), "o" + "s" * len(min_dcf), strict=True):
        # Not clipped where a mark is on the border.
        x, y = (_deviates([part], least) for part in place)
        axes.plot(x, y, shape, label=label, clip_on=False)
    for name, other in (compare_with or {}).items():
        label = f"{_label(name)}, {_eer_text(other)}"
        axes.plot(*_det(other, least), "--", linewidth=1, label=label)
    _set_det_axes(axes, least, marks.values())
    _save(figure, axes, path)


def plot_systems(
    sweeps: Mapping[str, Sweep],
    path: str | Path,
    *,
    p_target: Sequence[float] = (),
    costs: Costs = EQUAL_COSTS,
) -> None:
    """Draw the DET curves of several systems, with EER and points of minimum cost.

    Args:
        sweeps: sorted scores by the name of the system.
        path: file to write; its extension gives the format (``.png``, ``.pdf``, ``.svg``).
        p_target: priors whose points of minimum cost are marked, each by a shape of its own.
        costs: of a miss and of a false acceptance.

    Raises:
        ScoringError: the file cannot be written.
    """
    figure, axes = _figure(len(sweeps))
    fewest = max(max(len(each.nontarget), len(each.target)) for each in sweeps.values())
    least = min(0.5 / fewest, _LEAST)
    places: list[tuple[float, float]] = []
    for name, sweep in sweeps.items():
        marks = [(sweep.crossing().rate,) * 2]
        for prior in p_target:
            cost = min_dcf(sweep, p_target=prior, **costs._asdict())
            fnr, fpr = sweep.rates(float(cost.threshold))  # type: ignore[arg-type]  # one prior has one
            marks.append((float(fpr), float(fnr)))
        curve = _det(sweep, least, through=marks)
        (line,) = axes.plot(*curve, label=f"{_label(name)}, {_eer_text(sweep)}")
        for place, shape in zip(marks, _shapes(p_target), strict=True):
            x, y = (_deviates([part], least) for part in place)
            axes.plot(x, y, shape, color=line.get_color(), clip_on=False)
        places += marks
    names = ["EER", *(f"least cost, p_target {prior:g}" for prior in p_target)]
    for name, shape in zip(names, _shapes(p_target), strict=True):
        axes.plot([], [], shape, color="black", label=name)
    _set_det_axes(axes, least, places)
    _save(figure, axes, path)


def plot_bayes_errors(
    sweeps: Mapping[str, Sweep], path: str | Path, *, p_target: Sequence[float] = ()
) -> None:
    """Draw actual and minimum cost over priors, of scores that are log-likelihood ratios.

    The normalized Bayes error rate (Brümmer and de Villiers, "The BOSARIS Toolkit", 2011): 1 is the
    cost of the better of accepting and rejecting all. Where the actual cost (solid) is above the
    minimum (dashed), the ratios are not calibrated.

    Args:
        sweeps: sorted log-likelihood ratios by the name of the system.
        path: file to write; its extension gives the format (``.png``, ``.pdf``, ``.svg``).
        p_target: priors whose costs are marked.

    Raises:
        ScoringError: the file cannot be written.
    """
    figure, axes = _figure(len(sweeps), height=6)
    marked = np.array([float(np.log(prior) - np.log1p(-prior)) for prior in p_target])
    most = max([_MOST_ODDS, *np.abs(marked)])
    odds = np.unique(np.concatenate([np.linspace(-most, most, _ODDS), marked]))
    at = np.searchsorted(odds, marked)
    highest = 1.0
    for name, sweep in sweeps.items():
        actual, least = actual_errors(sweep, odds), minimum_errors(sweep, odds)
        (line,) = axes.plot(odds, actual, label=_label(name))
        axes.plot(odds, least, "--", color=line.get_color())
        # No empty lines that are not clipped: they would take room at the lower left corner.
        for costs in (actual, least) if p_target else ():
            axes.plot(marked, costs[at], "s", color=line.get_color(), clip_on=False)
        highest = max([highest, min(float(actual.max()), _HIGHEST), *actual[at]])
    axes.axhline(1, color="black", linewidth=1, linestyle=":", label="without scores")
    for style, name in (("-", "actual"), ("--", "minimum")):
        axes.plot([], [], style, color="black", label=name)
    if p_target:
        axes.plot(
            [], [], "s", color="black", label=f"p_target {', '.join(f'{p:g}' for p in p_target)}"
        )
    axes.set(xlabel="Prior log-odds of a target trial", ylabel="Normalized cost")
    axes.set(xlim=(odds[0], odds[-1]), ylim=(0, 1.05 * highest))
    _save(figure, axes, path)


def plot_dir(results: Mapping[str, OpenSetResult], path: str | Path) -> None:
    """Draw DIR over logarithmic FAR, one curve for each result, with the requested FARs marked.

    Args:
        results: results by name.
        path: file to write; its extension gives the format (``.png``, ``.pdf``, ``.svg``).

    Raises:
        ScoringError: the file cannot be written.
    """
    figure, axes = _figure()
    for name, result in results.items():
        far, rate, _ = result.curve
        requested = [value for value in result.dir if value > 0]
        # FAR 0 has no logarithm; the curve starts at half an unknown probe, or at a mark.
        start = min(0.5 / result.unknown, *requested, 1.0)
        (line,) = axes.step(np.maximum(far, start), rate, where="post", label=_label(name))
        places = [max(_measured_far(result, value), start) for value in requested]
        rates = [result.dir[value] for value in requested]
        axes.plot(places, rates, "o", color=line.get_color(), clip_on=False)
    axes.set_xscale("log")
    axes.set(xlabel="False acceptance rate", ylabel="Detection and identification rate")
    axes.set_ylim(0, 1.02)
    _save(figure, axes, path)


def _set_det_axes(axes: Any, least: float, marks: Iterable[tuple[float, float]]) -> None:
    """Label the axes in per cent; the whole of them only where a mark is: most of it is empty."""
    ticks = [tick for tick in _TICKS if tick >= least]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_deviates(ticks, least), [f"{100 * tick:g}" for tick in ticks])
    most = max(_MOST, *(min(part, 1 - least) for place in marks for part in place))
    ends = _deviates([0, most], least)
    axes.set(xlabel="False positive rate (%)", ylabel="False negative rate (%)")
    axes.set(xlim=ends, ylim=ends, aspect="equal")


def _shapes(p_target: Sequence[float]) -> list[str]:
    """Return the shape of the mark of the EER, and of each prior."""
    return ["o", *(_SHAPES[row % len(_SHAPES)] for row in range(len(p_target)))]


def check_plot_path(path: str | Path) -> None:
    """Refuse a path that no plot can be written to, before any work.

    Raises:
        ScoringError: unknown extension, or a folder that is missing or not writable.
    """
    extension = Path(path).suffix.lower()
    if extension not in _FORMATS:
        raise ScoringError(
            f"{path} cannot be written as a plot: its extension is {extension!r}; allowed are "
            f"{', '.join(_FORMATS)}."
        )
    folder = Path(path).absolute().parent
    if not os.access(folder, os.W_OK):
        raise ScoringError(
            f"{path} cannot be written as a plot: {folder} is not a writable folder."
        )


def _measured_far(result: OpenSetResult, requested: float) -> float:
    """Return the FAR at which the DIR of a requested one lies on the curve."""
    if result.method == "exact":
        return requested  # the curve is level from the highest FAR that is not above it
    far, _, thresholds = result.curve
    return float(far[np.argmin(np.abs(thresholds - result.thresholds[requested]))])


def _label(name: str) -> str:
    """Return a name for a legend: matplotlib hides "_..." and parses mathematics in "$"."""
    short = name if len(name) <= _LINE else f"...{name[-_LINE:]}"
    label = short.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _figure(curves: int = 1, *, height: float = 7) -> tuple[Any, Any]:
    """Return a figure and its axes, with colours for so many curves."""
    # The class, not pyplot: that would choose a backend for the whole process.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), layout="constrained")
    axes = figure.subplots()
    if curves > _COLOURS:
        axes.set_prop_cycle(color=colormaps["tab20"].colors)  # type: ignore[attr-defined]  # a list
    return figure, axes


def _save(figure: Any, axes: Any, path: str | Path) -> None:
    check_plot_path(path)
    axes.grid(alpha=0.3)
    labels = axes.get_legend_handles_labels()[1]
    is_long = any(len(label) > _HALF_LINE for label in labels)
    rows = len(labels) if is_long else (len(labels) + 1) // 2
    # A long legend takes nothing away from the axes.
    figure.set_figheight(figure.get_figheight() + _ROW_INCHES * max(rows - _ROWS, 0))
    figure.legend(loc="outside lower center", ncols=1 if is_long else 2)  # no curve runs there
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ScoringError(f"{path} cannot be written as a plot: {error}") from error


def _eer_text(sweep: Sweep) -> str:
    return f"EER {100 * sweep.crossing().rate:.2f} %"


def _det(sweep: Sweep, least: float, through: Sequence[tuple[float, float]] = ()) -> list[Floats]:
    """Return normal deviates of false positive and false negative rates along the curve.

    Args:
        sweep: sorted scores.
        least: the lowest rate to show.
        through: further points of the curve, false positive and false negative rate.
    """
    curve = sweep.curve(_POINTS)
    fpr, fnr = np.concatenate([np.stack([curve.fpr, curve.fnr], 1), np.reshape(through, (-1, 2))]).T
    order = np.lexsort((fnr, -fpr))
    return [_deviates(rates[order], least) for rates in (fpr, fnr)]


def _deviates(rates: npt.ArrayLike, least: float) -> Floats:
    """Return normal deviates of rates, clipped to ``least`` and ``1 - least``."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rate)) for rate in np.clip(rates, least, 1 - least)])
