"""Pictures of several systems: exact curves, marks on them, and a legend beside everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from voxblink2_lib.scoring import Sweep, act_dcf, min_dcf
from voxblink2_lib.scoring.costs import Costs
from voxblink2_lib.scoring.plots import plot_bayes_errors, plot_systems

Draw = Callable[..., Any]


def sweep(seed: int = 0, *, distance: float = 2.0, scale: float = 1.0, trials: int = 600) -> Sweep:
    generator = np.random.default_rng(seed)
    labels = np.arange(trials) % 3 == 0
    ratios = generator.normal(np.where(labels, 0.5, -0.5) * distance**2, distance)
    return Sweep.of(np.round(ratios * scale, 3), labels)


SYSTEMS = {"good": sweep(1, distance=3), "fair": sweep(2), "_over$confident_": sweep(3, scale=4)}
PRIORS = (0.5, 0.05)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Draw, and return the axes that would go into the file."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def draw(plot: Callable[..., None], systems: Any = SYSTEMS, **options: Any) -> Any:
        plot(systems, tmp_path / "plot.png", **options)
        (axes,) = figures.pop().axes
        return axes

    return draw


def curves_of(axes: Any) -> list[Any]:
    """Lines with data that are drawn as lines."""
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    return [line for line in lines if line.get_linestyle() != "None"]


def marks_of(axes: Any, color: Any) -> list[tuple[float, float]]:
    """Places of the marks of a colour."""
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_linestyle() == "None" and line.get_color() == color
        for x, y in zip(*line.get_data(), strict=True)
    ]


def check_layout(axes: Any) -> None:
    """Nothing overlaps, nothing is cut off, every mark is whole and within the axes."""
    figure = axes.figure
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]  # it has no types
    (legend,) = figure.legends
    below = legend.get_window_extent()
    words = axes.xaxis.label.get_window_extent()
    assert 0 <= words.y0 + 1 - below.y1 < 0.05 * figure.bbox.height
    assert below.x0 >= 0
    assert below.x1 <= figure.bbox.x1
    assert below.y0 >= 0
    assert axes.get_window_extent().height > 0.35 * figure.bbox.height
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for line in axes.get_lines():
        if line.get_linestyle() == "None":
            assert not line.get_clip_on() or not len(line.get_xdata())
            for x, y in zip(*line.get_data(), strict=True):
                assert left <= x <= right
                assert bottom <= y <= top


def test_without_marks_no_room_is_left_for_them(drawn: Draw) -> None:
    check_layout(drawn(plot_bayes_errors, p_target=()))


@pytest.mark.parametrize("plot", [plot_systems, plot_bayes_errors])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_nothing_overlaps_however_many_systems_and_however_long_their_names(
    plot: Callable[..., None], count: int, drawn: Draw
) -> None:
    for length in (26, 120):
        systems = {f"{'x' * length}{row}": sweep(row, trials=90) for row in range(count)}
        axes = drawn(plot, systems, p_target=PRIORS)
        check_layout(axes)
        colours = {line.get_color() for line in curves_of(axes)} - {"black"}
        assert len(colours) == count


@pytest.mark.parametrize("plot", [plot_systems, plot_bayes_errors])
def test_the_legend_names_systems_and_marks(plot: Callable[..., None], drawn: Draw) -> None:
    axes = drawn(plot, p_target=PRIORS)
    check_layout(axes)
    (legend,) = axes.figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    if plot is plot_systems:
        rates = [f"{100 * each.crossing().rate:.2f}" for each in SYSTEMS.values()]
        names = ("good", "fair", r" _over\$confident_")
        assert words[:3] == [f"{n}, EER {r} %" for n, r in zip(names, rates, strict=True)]
        assert words[3:] == ["EER", "least cost, p_target 0.5", "least cost, p_target 0.05"]
    else:
        assert words[:3] == ["good", "fair", r" _over\$confident_"]
        assert words[3:] == ["without scores", "actual", "minimum", "p_target 0.5, 0.05"]


def test_marks_of_det_curves_are_on_their_own_curves(drawn: Draw) -> None:
    costs = Costs(c_miss=3)
    axes = drawn(plot_systems, p_target=PRIORS, costs=costs)
    curves = curves_of(axes)
    assert len(curves) == len(SYSTEMS)
    for curve, each in zip(curves, SYSTEMS.values(), strict=True):
        places = marks_of(axes, curve.get_color())
        assert len(places) == 1 + len(PRIORS)
        points = np.stack(curve.get_data(), axis=1)
        for place in places:
            assert np.abs(points - place).max(axis=1).min() < 1e-12
        thresholds = [min_dcf(each, p_target=p, **costs._asdict()).threshold for p in PRIORS]
        assert len(set(places)) == 1 + len(set(thresholds))


def test_curves_of_bayes_errors_are_the_costs(drawn: Draw) -> None:
    axes = drawn(plot_bayes_errors, p_target=PRIORS)
    curves = curves_of(axes)
    assert len(curves) == 2 * len(SYSTEMS)
    for row, each in enumerate(SYSTEMS.values()):
        actual, least = curves[2 * row : 2 * row + 2]
        assert (actual.get_linestyle(), least.get_linestyle()) == ("-", "--")
        assert actual.get_color() == least.get_color()
        expected = [
            (np.log(p / (1 - p)), cost)
            for values in (
                [act_dcf(each, p_target=p).act_dcf for p in PRIORS],
                [min_dcf(each, p_target=p).min_dcf for p in PRIORS],
            )
            for p, cost in zip(PRIORS, values, strict=True)
        ]
        places = marks_of(axes, actual.get_color())
        np.testing.assert_allclose(places, expected, atol=1e-9)
        for curve, part in ((actual, places[:2]), (least, places[2:])):
            points = np.stack(curve.get_data(), axis=1)
            for place in part:
                assert np.abs(points - place).max(axis=1).min() < 1e-12


def test_a_cost_far_above_1_leaves_the_others_readable_unless_it_is_marked(drawn: Draw) -> None:
    wild = {"wild": sweep(4, scale=20, distance=1)}
    assert drawn(plot_bayes_errors, wild).get_ylim()[1] < 1.6
    axes = drawn(plot_bayes_errors, wild, p_target=[0.001])
    check_layout(axes)
    assert axes.get_ylim()[1] > 2


@pytest.mark.parametrize("plot", [plot_systems, plot_bayes_errors])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_perfect_inverted_and_constant_scores_are_drawn(
    plot: Callable[..., None], ends: tuple[float, float], drawn: Draw
) -> None:
    axes = drawn(plot, {"edge": Sweep.of(ends, [0, 1])}, p_target=(0.5, 0.001, 0.999))
    check_layout(axes)


@pytest.mark.parametrize("plot", [plot_systems, plot_bayes_errors])
def test_every_format_is_written(plot: Callable[..., None], tmp_path: Path) -> None:
    for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF-"), (".svg", b"<?xml")):
        path = tmp_path / f"plot{suffix}"
        plot(SYSTEMS, path, p_target=PRIORS)
        assert path.read_bytes().startswith(start)
    with Image.open(tmp_path / "plot.png") as picture:
        shades = np.asarray(picture.convert("L"))
    assert shades[[0, -1], :].min() == shades[:, [0, -1]].min() == 255  # nothing is cut off
