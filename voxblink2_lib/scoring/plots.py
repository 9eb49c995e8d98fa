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
from voxblink2_lib.scoring.validation import Floats

_TICKS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)
_POINTS = 2000
_FORMATS = (".png", ".pdf", ".svg")

# A DET plot ends here: normal deviates of 0 and 1 are infinite.
_LEAST, _MOST = 0.005, 0.99


def plot_det(
    sweep: Sweep,
    path: str | Path,
    *,
    min_dcf: Mapping[float, float],
    beside: Mapping[str, Sweep] | None = None,
) -> None:
    """Draw the DET curve on normal-deviate axes, EER and points of least cost marked.

    Args:
        sweep: sorted scores.
        path: file to write; its extension says the format (``.png``, ``.pdf``, ``.svg``).
        min_dcf: threshold of the least cost for each prior.
        beside: other scores of the same trials, by name: drawn thin, to compare with.

    Raises:
        ScoringError: the file cannot be written.
    """
    figure, axes = _figure()
    # Half a trial: below that rate nothing is known.
    least = min(0.5 / max(len(sweep.nontarget), len(sweep.target)), _LEAST)
    axes.plot(*_det(sweep, least), label="DET")
    at = _deviates([sweep.crossing().rate], least)
    # Whole, also where an EER of 0 puts it into the corner.
    axes.plot(at, at, "o", label=_rate_of(sweep), clip_on=False)
    for prior, threshold in min_dcf.items():
        fnr, fpr = sweep.rates([threshold])
        x, y = _deviates(fpr, least), _deviates(fnr, least)
        axes.plot(x, y, "s", label=f"least cost, p_target {prior:g}")
    for name, other in (beside or {}).items():
        axes.plot(
            *_det(other, least), "--", linewidth=1, label=f"{_label(name)}, {_rate_of(other)}"
        )
    seen = [tick for tick in _TICKS if tick >= least]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_deviates(seen, least), [f"{100 * tick:g}" for tick in seen])
    ends = _deviates([0, 1], least)
    axes.set(
        xlabel="False positive rate (%)",
        ylabel="False negative rate (%)",
        xlim=ends,
        ylim=ends,
    )
    axes.set_aspect("equal")
    _save(figure, axes, path)


def plot_dir(results: Mapping[str, OpenSetResult], path: str | Path) -> None:
    """Draw DIR over FAR, logarithmic, one curve for each result; the FARs asked for are marked.

    Args:
        results: results by name.
        path: file to write; its extension says the format (``.png``, ``.pdf``, ``.svg``).

    Raises:
        ScoringError: the file cannot be written.
    """
    figure, axes = _figure()
    for name, result in results.items():
        far, rate, _ = result.curve
        # At FAR 0 there is no logarithm; the curve begins at half an unknown probe.
        (line,) = axes.step(
            np.maximum(far, 0.5 / result.unknown), rate, where="post", label=_label(name)
        )
        asked = {one: value for one, value in result.dir.items() if one > 0}
        axes.plot(list(asked), list(asked.values()), "o", color=line.get_color())
    axes.set_xscale("log")
    axes.set(xlabel="False acceptance rate", ylabel="Detection and identification rate")
    axes.set_ylim(0, 1.02)
    _save(figure, axes, path)


def check_plot_path(path: str | Path) -> None:
    """Say before the work whether a plot can be written.

    Raises:
        ScoringError: its extension is not known, or its folder cannot be written to.
    """
    ending = Path(path).suffix.lower()
    if ending not in _FORMATS:
        raise ScoringError(
            f"{path} cannot be written as a plot: its extension is {ending!r}; allowed are "
            f"{', '.join(_FORMATS)}."
        )
    folder = Path(path).absolute().parent
    if not os.access(folder, os.W_OK):
        raise ScoringError(
            f"{path} cannot be written as a plot: {folder} is not a folder that can be written to."
        )


def _label(name: str) -> str:
    """Return a name as it is: matplotlib hides "_..." and reads mathematics between "$"."""
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


def _rate_of(sweep: Sweep) -> str:
    return f"EER {100 * sweep.crossing().rate:.2f} %"


def _det(sweep: Sweep, least: float) -> list[Floats]:
    """Return normal deviates of false positive and false negative rates along the curve."""
    curve = sweep.curve(_POINTS)
    return [_deviates(rates, least, 1 - least) for rates in (curve.fpr, curve.fnr)]


def _deviates(rates: npt.ArrayLike, least: float, most: float = _MOST) -> Floats:
    """Return normal deviates of rates, held between two ends: those of the plot by default."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rate)) for rate in np.clip(rates, least, most)])
