"""The report of a run: one HTML page that needs no other file, made from what is in its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.files import atomic_write
from voxblink2_lib.progress import counted
from voxblink2_lib.recipes.checkpoints import RunFolder
from voxblink2_lib.recipes.evaluation import P_TARGET, TrialScores, most_confused
from voxblink2_lib.recipes.run_log import RunLog
from voxblink2_lib.report import markup
from voxblink2_lib.report.markup import Column, Markup, Section
from voxblink2_lib.report.plots import draw_svg, inline_svg
from voxblink2_lib.scoring.plots import plot_systems

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG, HELD_OUT, TRIALS, REPORT = "log.jsonl", "held_out.npz", "trials.npz", "report.html"
_POINTS = 400  # of a curve: more are not seen, and make the page large
_COLOUR, _OTHER_COLOUR = "#4a86c5", "#e39b1f"
Records = Sequence[Mapping[str, Any]]

_FACTS = (Column("", is_header=True), Column(""))
_RESULTS = (
    Column("Trials", is_header=True),
    *(Column(title, "number") for title in ("Number", "EER", "Errors there", "minDCF (0.01)")),
)
_CONFUSED = (
    Column("Speaker", "status"),
    Column("taken for", "status"),
    *(Column(title, "number") for title in ("Accepted", "Trials", "Mean score")),
)


def write_run_report(out: Path) -> Path:
    """Write the report of a run, as far as it has come; return its file.

    Args:
        out: folder of the run.
    """
    folder, log = RunFolder(out), RunLog(out / LOG)
    scores = {
        title: TrialScores.load(out / name)
        for title, name in (("held-out trials", HELD_OUT), ("list of trials", TRIALS))
        if (out / name).is_file()
    }
    settings = folder.settings()
    title = f"Training: {settings.get('stage', '')}, {out.absolute().name}"
    sections = [
        *_results(scores),
        *_curves(log),
        *_confused(scores.get("held-out trials")),
        Section("Settings", _facts_table(settings), "2"),
    ]
    head = markup.fill("<h1>$title</h1>$state", title=title, state=_state(folder, log))
    path = out / REPORT
    with atomic_write(path.absolute()) as file:
        file.write(markup.page(title, head, sections).encode())
    return path


def _state(folder: RunFolder, log: RunLog) -> Markup:
    last = (log.records() or [{"step": 0}])[-1]
    end = "finished" if folder.is_finished else "not finished"
    epochs = f", {last['epoch']:.2f} epochs" if "epoch" in last else ""
    return markup.note(f"Step {last['step']:,}{epochs}; {end}.")


def _facts_table(settings: Mapping[str, Any]) -> Markup:
    rows = [
        [name.replace("_", " "), _text(value)]
        for name, value in sorted(settings.items())
        if value is not None
    ]
    return markup.table(rows, _FACTS, style="summary", titles=False)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# -- Results ---------------------------------------------------------------------------------------


def _results(scores: Mapping[str, TrialScores]) -> list[Section]:
    if not scores:
        return []
    rows = [_result(title, each) for title, each in scores.items()]
    content = [markup.table(rows, _RESULTS), _figure_of(_det_plot(scores), width_rem=32)]
    return [Section("Error rates", markup.join(content), "2")]


def _result(title: str, trials: TrialScores) -> list[str]:
    crossing = trials.sweep.crossing()
    errors = trials.sweep.errors(crossing.threshold)
    number, rate = f"{len(trials.target):,}", f"{100 * crossing.rate:.2f} %"
    return [title, number, rate, errors.text, f"{trials.min_dcf:.3f}"]


def _det_plot(scores: Mapping[str, TrialScores]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "det.svg"
        sweeps = {title: each.sweep for title, each in scores.items()}
        plot_systems(sweeps, path, p_target=[P_TARGET])
        return inline_svg(path.read_text("utf-8"), "det", "Detection error trade-off")


def _confused(trials: TrialScores | None) -> list[Section]:
    if trials is None:
        return []
    pairs = most_confused(trials)
    rows = [
        [
            *pair.speakers,
            f"{100 * pair.accepted / pair.trials:.0f} %",
            f"{pair.trials:,}",
            f"{pair.mean_score:.3f}",
        ]
        for pair in pairs
    ]
    remark = markup.note(
        f"Pairs of speakers with false acceptances at the threshold of the EER: "
        f"{counted(len(rows), 'pair')}, the worst first. Both may be one person under two ids."
        if rows
        else "No two speakers are confused at the threshold of the EER."
    )
    body = markup.join([remark, markup.table(rows, _CONFUSED)]) if rows else remark
    return [Section("Most confused speakers", body, "2")]


# -- Curves ----------------------------------------------------------------------------------------


def _curves(log: RunLog) -> list[Section]:
    train, scored = thinned(log.records("train")), log.records("score", "final")
    sections = []
    if train:
        plots = [_loss_plot(train), _speed_plot(train)]
        sections.append(Section("Training", markup.join([*map(_figure_of, plots)]), "2"))
    if scored:
        plot = _figure_of(_eer_plot(scored))
        sections.append(Section("Held-out trials as training goes", plot, "2"))
    return sections


def thinned(records: Records, most: int = _POINTS) -> list[dict[str, float]]:
    """Return records of which neighbours are averaged, so that there are at most so many.

    Args:
        records: with numbers, in their order.
        most: how many there may be.

    >>> thinned([{"step": 2, "loss": 4.0}, {"step": 4, "loss": 2.0}, {"step": 6, "loss": 9.0}], 2)
    [{'step': 3.0, 'loss': 3.0}, {'step': 6.0, 'loss': 9.0}]
    """
    width = -(-len(records) // most) or 1
    groups = [records[start : start + width] for start in range(0, len(records), width)]
    return [{name: _mean(group, name) for name in _numbers(group[0])} for group in groups]


def _numbers(record: Mapping[str, Any]) -> list[str]:
    return [name for name, value in record.items() if isinstance(value, int | float)]


def _mean(records: Records, name: str) -> float:
    return float(sum(record[name] for record in records) / len(records))


def _figure_of(plot: str, *, width_rem: int = 60) -> Markup:
    figure = '<figure style="max-width: ${width}rem">$plot</figure>'
    return markup.fill(figure, width=str(width_rem), plot=Markup(plot))


def _loss_plot(records: Records) -> str:
    def draw(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3)
        _line(left, records, "loss", "loss")
        _line(middle, records, "rate", "learning rate")
        _line(right, records, "margin", "margin (radians)")
        middle.set_yscale("log", nonpositive="mask")

    return draw_svg("loss", "Loss, learning rate and margin over epochs", 2.6, draw)


def _speed_plot(records: Records) -> str:
    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _line(left, records, "utterances_per_second", "utterances per second")
        shares = [{**record, "waiting": 100 * record["waiting"]} for record in records]
        _line(right, shares, "waiting", "time waiting for data (%)", colour=_OTHER_COLOUR)
        right.set_ylim(0, 100)
        left.set_ylim(bottom=0)

    return draw_svg("speed", "Throughput and time waiting for data over epochs", 2.6, draw)


def _eer_plot(records: Records) -> str:
    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        shares = [{**record, "eer": 100 * record["eer"]} for record in records]
        _line(left, shares, "eer", "EER (%)", marker="o")
        _line(right, records, "min_dcf", "minDCF (0.01)", marker="o", colour=_OTHER_COLOUR)
        for axes in (left, right):
            axes.set_ylim(bottom=0)

    return draw_svg("eer", "EER and minDCF of held-out trials over epochs", 2.6, draw)


def _line(
    axes: Axes, records: Records, name: str, label: str, *, marker: str = "", colour: str = _COLOUR
) -> None:
    epochs = [record["epoch"] for record in records]
    values = [record[name] for record in records]
    axes.plot(epochs, values, color=colour, linewidth=1.2, marker=marker or None, markersize=4)
    axes.set(xlabel="epochs", ylabel=label)
