"""Plots: image files, curves through the exact points, and edge cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import OpenSetResult, Sweep, eer, min_dcf, open_set_identification
from voxblink2_lib.scoring.plots import plot_det, plot_dir

Array = npt.NDArray[Any]
Draw = Callable[..., Any]

_RNG = np.random.default_rng(2)
LABELS = (_RNG.random(400) < 0.3).astype(int)
SCORES = np.round(_RNG.normal(2 * LABELS, 1), 1)  # with ties


def sweep(scores: Any = SCORES, labels: Any = LABELS) -> Sweep:
    return Sweep.of(scores, labels)


def thresholds(of: Sweep, *priors: float) -> dict[float, float]:
    return {prior: float(min_dcf(of, p_target=prior).threshold) for prior in priors}  # type: ignore[arg-type]


def identified(**options: Any) -> OpenSetResult:
    """Four enrolled speakers in the plane, probes at random angles around them."""
    g = np.random.default_rng(4)
    known, unknown = g.integers(4, size=40), np.full(30, 9)
    angles = np.concatenate([known * np.pi / 2 + g.normal(0, 0.5, 40), g.uniform(0, 6.28, 30)])
    probes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gallery = [[1, 0], [0, 1], [-1, 0], [0, -1]]
    labels = np.concatenate([known, unknown])
    return open_set_identification(gallery, range(4), probes, labels, **options)


def deviates(rates: Any) -> Array:
    """Where rates lie on an axis; infinite at 0 and 1."""
    ends = {0.0: -np.inf, 1.0: np.inf}
    return np.array([ends.get(rate) or NormalDist().inv_cdf(rate) for rate in map(float, rates)])


def check_places(drawn: Array, rates: Any, trials: int) -> None:
    """Check places on an axis: exact inside, and beyond one error of so many trials at 0 and 1."""
    exact = deviates(rates)
    inside = np.isfinite(exact)
    np.testing.assert_allclose(drawn[inside], exact[inside], atol=1e-12)
    assert np.isfinite(drawn).all()
    if trials > 1:
        assert (np.abs(drawn[~inside]) > NormalDist().inv_cdf(1 - 1 / trials)).all()
    assert (np.sign(drawn[~inside]) == np.sign(exact[~inside])).all()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Draw with one of the two functions, and return the axes that go into the file."""
    figures: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *words: Any, **options: Any) -> None:
        figures.append(figure)
        if write:
            save(figure, *words, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    write = False

    def draw(plot: Callable[..., None], what: Any, *, to_disk: bool = False, **options: Any) -> Any:
        nonlocal write
        write = to_disk
        plot(what, tmp_path / "plot.png", **options)
        assert (tmp_path / "plot.png").exists() == to_disk
        (axes,) = figures.pop().axes
        return axes

    return draw


def points(line: Any) -> Array:
    return np.stack(line.get_data(), axis=1).astype(float)


def legend_of(axes: Any) -> Any:
    (legend,) = axes.figure.legends
    return legend


def det_of(axes: Any) -> tuple[Array, list[Array]]:
    """The curve of a DET plot, and its marks: the EER, then the least costs."""
    curve, *marks = axes.get_lines()
    return points(curve), [points(mark)[0] for mark in marks]


# -- Files -----------------------------------------------------------------------------------------


PLOTS: dict[str, Callable[[Path], None]] = {
    "det": lambda path: plot_det(sweep(), path, min_dcf=thresholds(sweep(), 0.01, 0.5)),
    "dir": lambda path: plot_dir({"Small_120/perspk1": identified()}, path),
}
WORDS = {
    "det": [
        *("False positive rate (%)", "False negative rate (%)", "DET"),
        *("least cost, p_target 0.01", "least cost, p_target 0.5"),
        f"EER {100 * eer(SCORES, LABELS).eer:.2f} %",
    ],
    "dir": ["False acceptance rate", "Detection and identification rate", "Small_120/perspk1"],
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_png_is_a_picture_with_something_on_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    PLOTS[name](path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (900, 1050)
        shades = np.asarray(picture.convert("L"))
        coloured = np.asarray(picture.convert("HSV"))[..., 1] > 100
    assert shades[[0, -1], :].min() == shades[:, [0, -1]].min() == 255  # nothing is cut off
    assert 0.01 < (shades < 200).mean() < 0.2  # lines and words on white
    assert 0.001 < coloured.mean() < 0.05  # the curve


@pytest.mark.parametrize("name", PLOTS)
def test_an_svg_says_what_its_axes_and_curves_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    PLOTS[name](path)
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</svg>")
    comments = re.findall(
        r"<!-- (.*?) -->", text
    )  # words are drawn as outlines, and noted beside them
    assert not [word for word in WORDS[name] if word not in comments]


@pytest.mark.parametrize("name", PLOTS)
def test_a_pdf_is_a_pdf(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.PDF"
    PLOTS[name](path)
    assert path.read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_written_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    path.write_text("old")
    PLOTS[name](path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("file", ["plot.xyz", "plot.csv", "plot", "plot."])
def test_a_format_that_is_not_known_is_an_error_and_writes_nothing(
    name: str, file: str, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match=f"{file} cannot be written as a plot: .*png"):
        PLOTS[name](tmp_path / file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("file", ["nowhere/plot.png", "file/plot.png", "folder.png"])
def test_a_place_that_cannot_be_written_to_is_an_error(
    name: str, file: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ScoringError, match=f"{file} cannot be written as a plot: "):
        PLOTS[name](tmp_path / file)


# -- DET -------------------------------------------------------------------------------------------


def test_the_det_curve_goes_through_every_operating_point(drawn: Draw) -> None:
    curve, _ = det_of(drawn(plot_det, sweep(), min_dcf={}))
    target, nontarget = SCORES[LABELS == 1], SCORES[LABELS == 0]
    steps = [*sorted(set(SCORES.tolist())), np.inf]
    assert len(curve) == len(steps) + 1  # and the equal error rate
    rate = deviates([eer(SCORES, LABELS).eer])
    curve = curve[~np.isclose(curve, rate).all(axis=1)]
    check_places(curve[:, 0], [(nontarget >= step).mean() for step in steps], len(nontarget))
    check_places(curve[:, 1], [(target < step).mean() for step in steps], len(target))


def test_the_det_curve_of_many_trials_has_few_points_all_of_them_exact(drawn: Draw) -> None:
    g = np.random.default_rng(3)
    labels = (g.random(100_000) < 0.1).astype(int)
    of = sweep(g.normal(2 * labels, 1), labels)
    curve, _ = det_of(drawn(plot_det, of, min_dcf={}))
    curve = curve[curve[:, 0] != curve[:, 1]]  # the equal error rate lies between two thresholds
    assert 500 < len(curve) <= 2000
    assert np.diff(curve[:, 0]).max() <= 0
    assert np.diff(curve[:, 1]).min() >= 0
    # Every point is so many false acceptances and so many misses, at one threshold.
    accepted = len(of.nontarget) * np.array([NormalDist().cdf(x) for x in curve[1:-1, 0]])
    missed = len(of.target) * np.array([NormalDist().cdf(y) for y in curve[1:-1, 1]])
    inside = (accepted > 0.9) & (missed > 0.9)
    count = np.rint(accepted[inside]).astype(int)
    np.testing.assert_allclose(accepted[inside], count, atol=1e-6)
    np.testing.assert_allclose(missed[inside], np.rint(missed[inside]), atol=1e-6)
    # So many are accepted between two scores of non-targets, hence the misses lie between theirs.
    least = of.miss(np.append(-np.inf, of.nontarget)[-1 - count])
    most = of.miss(of.nontarget[-count])
    assert (least <= np.rint(missed[inside])).all()
    assert (np.rint(missed[inside]) <= most).all()
    # Both tails are there, from the first error to the last.
    for rates, trials in ((accepted, len(of.nontarget)), (missed, len(of.target))):
        assert {1, trials - 1} <= set(np.rint(rates).astype(int).tolist())


def test_the_marks_of_a_det_plot_are_the_eer_and_the_least_costs(drawn: Draw) -> None:
    at = thresholds(sweep(), 0.05, 0.5)
    axes = drawn(plot_det, sweep(), min_dcf=at)
    _, (rate, *costs) = det_of(axes)
    np.testing.assert_allclose(rate, deviates([eer(SCORES, LABELS).eer] * 2), atol=1e-12)
    target, nontarget = SCORES[LABELS == 1], SCORES[LABELS == 0]
    for cost, threshold in zip(costs, at.values(), strict=True):
        rates = [(nontarget >= threshold).mean(), (target < threshold).mean()]
        np.testing.assert_allclose(cost, deviates(rates), atol=1e-12)
    legend = [text.get_text() for text in legend_of(axes).get_texts()]
    assert legend == [
        *("DET", f"EER {100 * eer(SCORES, LABELS).eer:.2f} %"),
        *("least cost, p_target 0.05", "least cost, p_target 0.5"),
    ]


def test_scores_to_compare_with_are_named_with_their_eer(drawn: Draw) -> None:
    axes = drawn(plot_det, sweep(), min_dcf={}, compare_with={"chance": sweep(-SCORES)})
    legend = [text.get_text() for text in legend_of(axes).get_texts()]
    assert legend[2:] == [f"chance, EER {100 * eer(-SCORES, LABELS).eer:.2f} %"]


def test_the_old_name_of_compare_with_is_accepted_with_a_warning(drawn: Draw) -> None:
    with pytest.warns(DeprecationWarning, match=r"^beside= is now compare_with=; the old name"):
        axes = drawn(plot_det, sweep(), min_dcf={}, beside={"chance": sweep(-SCORES)})
    legend = [text.get_text() for text in legend_of(axes).get_texts()]
    assert legend[2:] == [f"chance, EER {100 * eer(-SCORES, LABELS).eer:.2f} %"]


@pytest.mark.parametrize("kind", ["det", "dir"])
def test_the_legend_is_below_the_axes_and_no_mark_is_clipped(kind: str, drawn: Draw) -> None:
    if kind == "det":
        axes = drawn(plot_det, sweep(), min_dcf=thresholds(sweep(), 0.01, 0.5), to_disk=True)
    else:
        axes = drawn(plot_dir, {"a": identified(), "b": identified()}, to_disk=True)
    assert legend_of(axes).get_window_extent().y1 <= axes.get_tightbbox().y0
    marks = [line for line in axes.get_lines() if line.get_marker() != "None"]
    assert marks
    assert not any(mark.get_clip_on() for mark in marks)


def test_the_mark_of_no_error_is_whole(drawn: Draw) -> None:
    axes = drawn(plot_det, sweep([0.0, 1.0], [0, 1]), min_dcf={})
    mark = axes.get_lines()[1]
    assert points(mark)[0] == pytest.approx(np.array([axes.get_xlim()[0], axes.get_ylim()[0]]))
    assert not mark.get_clip_on()


def test_the_eer_lies_on_the_curve(drawn: Draw) -> None:
    curve, (rate, *_) = det_of(drawn(plot_det, sweep(), min_dcf={}))
    below, above = curve[curve[:, 0] >= rate[0]][-1], curve[curve[:, 0] < rate[0]][0]
    assert below[1] <= rate[1] <= above[1]


def test_det_axes_are_normal_deviates_labelled_in_per_cent(drawn: Draw) -> None:
    axes = drawn(plot_det, sweep(), min_dcf={})
    for axis in (axes.xaxis, axes.yaxis):
        ticks = {
            tick.get_text(): place
            for tick, place in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        }
        assert {"1", "5", "20", "80", "99"} <= ticks.keys()
        for text, place in ticks.items():
            assert place == pytest.approx(NormalDist().inv_cdf(float(text) / 100))
    assert axes.get_aspect() == 1


# Scores, labels: each at an edge of what a curve can be.
EDGES: dict[str, tuple[Any, Any]] = {
    "perfect": ([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]),
    "perfect, unbalanced": ([*range(1000), 2000, 2001], [*[0] * 1000, 1, 1]),
    "perfect, unbalanced the other way": ([0, 1, *range(2, 1002)], [0, 0, *[1] * 1000]),
    "inverted": ([1, 2, 3, 4, 5, 6], [1, 1, 1, 0, 0, 0]),
    "all tied": ([1, 1, 1, 1], [0, 0, 1, 1]),
    "one target trial": ([1, 2, 3, 4], [0, 0, 1, 0]),
    "one non-target trial": ([1, 2, 3, 4], [1, 0, 1, 1]),
    "one of each": ([1, 2], [0, 1]),
    "one of each, inverted": ([1, 2], [1, 0]),
    "few targets, many non-targets": (
        [*np.linspace(0, 1, 4000), 0.5, *np.linspace(1.1, 2, 9)],
        [*[0] * 4000, *[1] * 10],
    ),
    "best to accept nothing": (np.linspace(0, 1, 600), [*[1] * 300, *[0] * 300]),
}


@pytest.mark.parametrize("edge", EDGES)
def test_det_plots_are_drawn_at_the_edges(edge: str, drawn: Draw) -> None:
    of = sweep(*EDGES[edge])
    axes = drawn(plot_det, of, min_dcf=thresholds(of, 0.001, 0.999), to_disk=True)
    curve, marks = det_of(axes)
    assert np.isfinite(curve).all()
    assert np.isfinite(marks).all()
    assert np.isfinite([axes.get_xlim(), axes.get_ylim()]).all()
    assert legend_of(axes).get_texts()[1].get_text() == f"EER {100 * eer(of).eer:.2f} %"


@pytest.mark.parametrize("edge", EDGES)
def test_every_mark_of_a_det_plot_is_within_its_axes(edge: str, drawn: Draw) -> None:
    of = sweep(*EDGES[edge])
    axes = drawn(plot_det, of, min_dcf=thresholds(of, 0.001, 0.999))
    curve, marks = det_of(axes)
    for mark in marks:
        assert np.isclose(curve, mark, rtol=0, atol=1e-12).all(axis=1).any()  # on the curve
        for place, (low, high) in zip(mark, (axes.get_xlim(), axes.get_ylim()), strict=True):
            assert low - 1e-9 <= place <= high + 1e-9


@pytest.mark.parametrize("edge", ["one target trial", "one non-target trial", "one of each"])
def test_a_miss_of_the_only_trial_is_seen(edge: str, drawn: Draw) -> None:
    # All missed and none missed are different places, however few the trials.
    curve, _ = det_of(drawn(plot_det, sweep(*EDGES[edge]), min_dcf={}))
    assert np.ptp(curve[:, 0]) > 0.5
    assert np.ptp(curve[:, 1]) > 0.5


# -- DIR -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "voxblink2"])
def test_the_dir_curve_goes_through_every_operating_point(method: str, drawn: Draw) -> None:
    result = identified(method=method)
    curve, dots = drawn(plot_dir, {"name": result}).get_lines()
    far, rate, _ = result.curve
    np.testing.assert_array_equal(points(curve)[:, 0], np.maximum(far, 0.001))
    np.testing.assert_array_equal(points(curve)[:, 1], rate)
    assert far.min() == 0
    # Between two FARs the DIR is that of the lower one: "the largest whose FAR is not above".
    assert curve.get_drawstyle() == "steps-post"
    assert points(dots)[:, 1].tolist() == list(result.dir.values())
    for position, value in points(dots):
        assert value == rate[np.maximum(far, 0.001) <= position].max()
    assert dots.get_color() == curve.get_color()


def test_exact_rates_lie_on_the_dir_curve(drawn: Draw) -> None:
    result = identified(far=(0.5, 0.1, 0.04))
    curve, dots = drawn(plot_dir, {"name": result}).get_lines()
    far, rate = points(curve).T
    for position, value in points(dots):
        assert value == rate[far <= position][-1]


def test_dir_axes_are_a_logarithmic_far_and_a_rate(drawn: Draw) -> None:
    axes = drawn(plot_dir, {"name": identified()})
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_ylim() == (0, 1.02)
    low, high = axes.get_xlim()
    assert 0 < low < 0.001  # the lowest FAR asked for
    assert high > 1


def test_nine_protocols_are_nine_curves_that_can_be_told_apart(drawn: Draw) -> None:
    results = {
        f"{size}/perspk{each}": identified(far=(each / 10,))
        for size in ("Small_120", "Medium_1.2k", "Large_12k")
        for each in (1, 3, 5)
    }
    axes = drawn(plot_dir, results)
    curves, dots = axes.get_lines()[::2], axes.get_lines()[1::2]
    assert [text.get_text() for text in legend_of(axes).get_texts()] == list(results)
    colours = [curve.get_color() for curve in curves]
    assert len(set(colours)) == 9
    assert [mark.get_color() for mark in dots] == colours
    assert [points(mark)[0][0] for mark in dots] == [
        result.dir.copy().popitem()[0] for result in results.values()
    ]


def test_a_far_of_0_has_no_place_on_a_logarithmic_axis(drawn: Draw) -> None:
    _, dots = drawn(plot_dir, {"name": identified(far=(0, 0.5))}).get_lines()
    assert points(dots)[:, 0].tolist() == [0.5]
    _, dots = drawn(plot_dir, {"name": identified(far=(0,))}).get_lines()
    assert len(points(dots)) == 0


@pytest.mark.parametrize("method", ["exact", "voxblink2"])
@pytest.mark.parametrize(
    ("probes", "labels"),
    [
        ([[2, 1], [1, 3], [-1, 1], [-1, -1]], [0, 1, 7, 8]),  # perfect
        ([[1, 1], [-1, -1]], [0, 7]),  # one of each
        ([[2, 1], [2, 1], [2, 1]], [0, 7, 8]),  # all tied
        ([[2, 1], [1, 3], [3, 1]], [1, 0, 7]),  # nobody is identified
    ],
    ids=["perfect", "one of each", "all tied", "nobody"],
)
def test_dir_plots_are_drawn_at_the_edges(
    probes: Any, labels: Any, method: str, drawn: Draw
) -> None:
    result = open_set_identification([[1, 0], [0, 1]], [0, 1], probes, labels, method=method)  # type: ignore[arg-type]
    axes = drawn(plot_dir, {"edge": result}, to_disk=True)
    for line in axes.get_lines():
        assert np.isfinite(points(line)).all()
    assert np.isfinite(axes.get_xlim()).all()
