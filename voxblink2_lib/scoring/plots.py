"""Plots of detection errors: DET on normal deviates, and DIR over FAR."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.open_set import OpenSetResult
from voxblink2_lib.scoring.validation import Floats, accept_renamed_keyword

_TICKS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)
_POINTS = 2000
_FORMATS = (".png", ".pdf", ".svg")

# Ends of a DET plot: normal deviates of 0 and 1 are infinite.
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
    axes.plot(*_det(sweep, least), label="DET")
    crossing = _deviates([sweep.crossing().rate], least)
    # Not clipped where an EER of 0 is in the corner.
    axes.plot(crossing, crossing, "o", label=_eer_text(sweep), clip_on=False)
    for prior, threshold in min_dcf.items():
        fnr, fpr = sweep.rates([threshold])
        x, y = _deviates(fpr, least), _deviates(fnr, least)
        axes.plot(x, y, "s", label=f"least cost, p_target {prior:g}")
    for name, other in (compare_with or {}).items():
        label = f"{_label(name)}, {_eer_text(other)}"
        axes.plot(*_det(other, least), "--", linewidth=1, label=label)
    ticks = [tick for tick in _TICKS if tick >= least]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_deviates(ticks, least), [f"{100 * tick:g}" for tick in ticks])
    ends = _deviates([0, 1], least)
    axes.set(xlabel="False positive rate (%)", ylabel="False negative rate (%)")
    axes.set(xlim=ends, ylim=ends, aspect="equal")
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
        # FAR 0 has no logarithm; the curve starts at half an unknown probe.
        positive_far = np.maximum(far, 0.5 / result.unknown)
        (line,) = axes.step(positive_far, rate, where="post", label=_label(name))
        marks = {requested: value for requested, value in result.dir.items() if requested > 0}
        axes.plot(list(marks), list(marks.values()), "o", color=line.get_color())
    axes.set_xscale("log")
    axes.set(xlabel="False acceptance rate", ylabel="Detection and identification rate")
    axes.set_ylim(0, 1.02)
    _save(figure, axes, path)


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


def _label(name: str) -> str:
    """Return a name for a legend: matplotlib hides "_..." and parses mathematics in "$"."""
    label = name.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _figure() -> tuple[Any, Any]:
    # The class, not pyplot: that would choose a backend for the whole process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: str | Path) -> None:
    check_plot_path(path)
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ScoringError(f"{path} cannot be written as a plot: {error}") from error


def _eer_text(sweep: Sweep) -> str:
    return f"EER {100 * sweep.crossing().rate:.2f} %"


def _det(sweep: Sweep, least: float) -> list[Floats]:
    """Return normal deviates of false positive and false negative rates along the curve."""
    curve = sweep.curve(_POINTS)
    return [_deviates(rates, least, 1 - least) for rates in (curve.fpr, curve.fnr)]


def _deviates(rates: npt.ArrayLike, least: float, most: float = _MOST) -> Floats:
    """Return normal deviates of rates, clipped to two ends: those of the plot by default."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rate)) for rate in np.clip(rates, least, most)])
