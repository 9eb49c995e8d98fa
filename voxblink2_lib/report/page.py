"""The report: one HTML page that needs no other file, beside a CSV file of missing videos."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError, StoreError, first_line, next_command
from voxblink2_lib.files import atomic_write
from voxblink2_lib.outcomes import POLICIES, RetryPolicy
from voxblink2_lib.progress import Progress, interval_text, no_progress, size_text
from voxblink2_lib.records import FRAMES_PER_SECOND
from voxblink2_lib.redaction import redact
from voxblink2_lib.report import markup
from voxblink2_lib.report.markup import Column, Markup, Section
from voxblink2_lib.report.missing_csv import write_missing
from voxblink2_lib.report.plots import (
    COLOURS,
    UNKNOWN_COLOUR,
    coverage_plot,
    durations_plot,
    outcomes_plot,
    traffic_plot,
    with_prefix,
)
from voxblink2_lib.store.advice import repair_advice
from voxblink2_lib.store.histograms import DURATION_BINS, Histogram, bar_width
from voxblink2_lib.store.ledger_statistics import (
    LedgerStatistics,
    MissingVideo,
    ReasonCount,
    Throughput,
)

_MOST_REASONS = 10
_LONGEST_REASON = 300  # characters on the page; the CSV file has all
_LONGEST_FRAMES = 3600 * FRAMES_PER_SECOND
_SECTIONS = 6  # of each configuration
_CLASS_COLUMNS = (
    Column("Class", is_header=True),
    Column("Videos", "number"),
    Column("Share", "number"),
    Column("Meaning"),
    Column("What happens next"),
)
_REASON_COLUMNS = (
    Column("Videos", "number"),
    Column("", "bars"),
    Column("Class", "status"),
    Column("Message", "message"),
)


@dataclass(frozen=True, slots=True)
class ReportSubject:
    """What the page is about.

    Attributes:
        store: the store's folder.
        version: of this library.
        now: Unix time at which the page is made.
    """

    store: str
    version: str
    now: float


def write_report(
    configs: Mapping[str, LedgerStatistics],
    subject: ReportSubject,
    *,
    target: Path,
    csv_file: Path,
    index: Path | None = None,
    progress: Progress = no_progress,
) -> Counter[str]:
    """Write the page and the CSV file. The same ledger, subject and index give the same bytes.

    Args:
        configs: statistics of each configuration, in the order of the page.
        subject: what the page is about.
        target: the page to write.
        csv_file: the CSV file to write, see ``missing_csv.py``.
        index: folder of the store's index; ``None`` leaves its durations out.
        progress: counts missing videos, then sections of the page.

    Returns:
        The number of missing videos of each configuration.

    Raises:
        StoreError: the ledger cannot be read, or a file cannot be written.
    """
    with _named_write_errors(target, csv_file), ExitStack() as snapshots:
        for statistics in configs.values():
            snapshots.enter_context(statistics.snapshot())
        missing = write_missing(
            _missing(configs), csv_file, total=_count_missing(configs), progress=progress
        )
        title = f"VoxBlink2 report: {' and '.join(configs)}"
        head = _head(title, subject, missing.total(), _link(csv_file, target))
        sections = []
        total = _SECTIONS * len(configs)
        with progress("Writing the report", unit="section", total=total) as advance:
            for config, statistics in configs.items():
                summary = _summary(statistics, missing[config])
                sections.append(Section(f"Configuration {config}", summary, "2"))
                for section in _sections(statistics, subject, config, index):
                    sections.append(section)
                    advance(1)
        page = markup.page(title, head, sections)
        with atomic_write(target) as file:
            file.write(page.encode("utf-8", errors="replace"))
    return missing


def _missing(
    configs: Mapping[str, LedgerStatistics],
) -> Iterator[tuple[str, MissingVideo]]:
    for config, statistics in configs.items():
        for video in statistics.missing():
            yield config, video


def _count_missing(configs: Mapping[str, LedgerStatistics]) -> int:
    return sum(
        videos
        for statistics in configs.values()
        for status, videos in statistics.videos().items()
        if status not in ("done", "excluded")
    )


@contextmanager
def _named_write_errors(*paths: Path) -> Iterator[None]:
    """Name the files when one of them cannot be written."""
    try:
        for path in paths:
            # Checked before the work, which may take a minute.
            if os.path.exists(path) and not os.path.isfile(path):
                kind = "a folder" if path.is_dir() else "a device or a pipe"
                raise IsADirectoryError(errno.EISDIR, f"{path.name} is {kind}, name a file")
        yield
    except OSError as error:
        names = " and ".join(map(str, paths))
        raise StoreError(
            f"The report cannot be written to {names}: {error.strerror or first_line(error)}."
        ) from error


# -- Head ------------------------------------------------------------------------------------------


def _link(csv_file: Path, target: Path) -> Markup:
    path = os.path.relpath(csv_file, target.parent).replace(os.sep, "/")
    url = "./" + quote(os.fsencode(path))  # a name need not be UTF-8
    return markup.fill('<a href="$url">$name</a>', url=url, name=csv_file.name)


def _head(title: str, subject: ReportSubject, missing: int, link: Markup) -> Markup:
    return markup.fill(
        "<h1>$title</h1><p>Store $store, made $now by voxblink2 $version.</p>\n"
        '<p class="note">Every missing video with its reason: $link, $missing rows.</p>',
        title=title,
        store=subject.store,
        now=_minute_text(subject.now),
        version=subject.version,
        link=link,
        missing=f"{missing:,}",
    )


def _summary(statistics: LedgerStatistics, missing: int) -> Markup:
    videos, totals, coverage = statistics.videos(), statistics.totals(), statistics.coverage()
    done = videos.get("done", 0)
    selected = done + missing
    share = f" ({100 * done / selected:.1f} %)" if selected else ""
    rows = [
        ("Videos done", f"{done:,} of {selected:,}{share}"),
        ("Videos missing", f"{missing:,}"),
        ("Videos excluded", f"{videos.get('excluded', 0):,}"),
        ("Utterances", f"{totals.clips:,}"),
        ("Hours", f"{totals.hours:,.2f}"),
        ("Fetched", size_text(totals.bytes_fetched)),
        (
            "Speakers",
            f"{coverage.complete:,} complete, {coverage.partial:,} partial, "
            f"{coverage.empty:,} empty",
        ),
    ]
    if (speed := statistics.speed()) is not None:
        rows.append(("Speed", _speed_text(speed)))
    columns = (Column("", is_header=True), Column(""))
    return markup.table(rows, columns, style="summary", titles=False)


def _speed_text(speed: Throughput) -> str:
    minutes = round(speed.seconds / 60)
    span = f"{minutes} minutes" if minutes > 1 else "minute"
    return (
        f"{speed.videos_an_hour:,.0f} videos per hour and {size_text(speed.bytes_a_second)} "
        f"per second, in the {span} up to {_minute_text(speed.until)}"
    )


def _minute_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


# -- Sections --------------------------------------------------------------------------------------


def _sections(
    statistics: LedgerStatistics, subject: ReportSubject, config: str, index: Path | None
) -> Iterator[Section]:
    """Yield the sections of the page in order; each is one or two queries."""
    yield Section("Classes", _classes(statistics.videos(), subject, config))
    coverage = statistics.coverage()
    plot = with_prefix(coverage_plot(coverage), config) if sum(coverage.by_share) else ""
    yield _plot_section("Coverage per speaker", plot, "No video is planned yet.")
    outcomes = statistics.outcomes_over_time()
    plot = with_prefix(outcomes_plot(outcomes), config) if outcomes.series else ""
    remark = "A video counts once, at the time when it got its present class."
    yield _plot_section("Outcomes over time", plot, "No video was tried yet.", remark)
    traffic = statistics.traffic_over_time()
    plot = with_prefix(traffic_plot(traffic), config) if traffic.series else ""
    yield _plot_section("Speed over time", plot, "No attempt is recorded yet.")
    yield _durations(statistics, config, index)
    yield Section("Reasons", _reasons(statistics.reasons(_MOST_REASONS)))


def sections_of(
    statistics: LedgerStatistics, subject: ReportSubject, config: str, index: Path | None
) -> Iterator[Section]:
    """Yield what the page has of one configuration: its sums first.

    Args:
        statistics: of the configuration.
        subject: what the page is about.
        config: the configuration.
        index: folder of the store's index; ``None`` leaves its durations out.

    Raises:
        StoreError: the ledger or the index cannot be read.
    """
    videos = statistics.videos()
    missing = sum(n for status, n in videos.items() if status not in {"done", "excluded"})
    yield Section("Sums", _summary(statistics, missing))
    yield from _sections(statistics, subject, config, index)


def _plot_section(title: str, plot: str, message: str, remark: str = "") -> Section:
    """Return a plot with a remark, or a message in place of an empty plot."""
    if not plot:
        return Section(title, markup.note(message))
    figure = markup.fill("<figure>$plot</figure>", plot=Markup(plot))
    return Section(title, markup.join([figure, markup.note(remark)] if remark else [figure]))


def _classes(videos: dict[str, int], subject: ReportSubject, config: str) -> Markup:
    """Return the table of classes: how many videos, the meaning, and what happens next."""
    if not videos:
        return markup.note("No video is planned yet.")
    total = sum(videos.values())
    policies: dict[str, RetryPolicy] = dict(POLICIES.items())
    rows = []
    for status in sorted(videos, key=lambda status: (-videos[status], status)):
        meaning, next_step = "not tried yet", "the next run downloads it"
        if (policy := policies.get(status)) is not None:
            meaning, next_step = (
                policy.description,
                _next_step(status, policy, subject.store, config),
            )
        swatch = markup.fill(
            '<span class="swatch" style="background:$colour"></span>$status',
            colour=COLOURS.get(status, UNKNOWN_COLOUR),
            status=status,
        )
        share = f"{100 * videos[status] / total:.1f} %"
        rows.append((swatch, f"{videos[status]:,}", share, meaning, next_step))
    return markup.table(rows, _CLASS_COLUMNS)


def _next_step(status: str, policy: RetryPolicy, store: str, config: str) -> str:
    """Return what happens next to a video of a class."""
    if status == "done":
        return "nothing, it is never downloaded again"
    if status == "excluded":
        return "nothing"
    if policy.wait_seconds is None:
        options = {"class": status, "store": store, "config": config}
        return f"nothing, unless you retry it with {next_command('retry', **options)}"
    if not policy.wait_seconds:
        return "the next run retries it"
    text = f"retried after {interval_text(policy.wait_seconds)}"
    if policy.doubles:
        text += ", then after twice as long each time, up to a day"
    return text + (f"; given up after {policy.max_tries} tries" if policy.max_tries else "")


def _reasons(reasons: list[ReasonCount]) -> Markup:
    """Return the table of the most frequent reasons, with a bar for each."""
    if not reasons:
        return markup.note("No video that was tried is missing.")
    most = max(reason.videos for reason in reasons)
    rows = []
    for reason in reasons:
        message = redact(reason.message.strip()) or "(no message)"
        if len(message) > _LONGEST_REASON:
            message = f"{message[:_LONGEST_REASON]}…"
        bar = markup.fill(
            '<div class="bar" style="width:$width%;background:$colour"></div>',
            width=f"{100 * reason.videos / most:.1f}",
            colour=COLOURS.get(reason.status, UNKNOWN_COLOUR),
        )
        rows.append((f"{reason.videos:,}", bar, reason.status, message))
    return markup.table(rows, _REASON_COLUMNS, style="reasons")


def _durations(statistics: LedgerStatistics, config: str, index: Path | None) -> Section:
    panels = [
        ("Clips of one video together", "videos", statistics.seconds_per_video()),
        ("Mean utterance of a video", "videos", statistics.mean_seconds_per_utterance()),
    ]
    remark = "The store's videos that are done."
    if index is not None and (index / "utterances.parquet").exists():
        panels.append(("Utterances of the release", "utterances", seconds_per_utterance(index)))
        remark += " On the right, every utterance of the release, whether available or not."
    panels = [panel for panel in panels if any(panel[2].counts)]
    plot = with_prefix(durations_plot(panels), config) if panels else ""
    return _plot_section("Durations", plot, "No video is done yet.", remark)


def seconds_per_utterance(index: Path) -> Histogram:
    """Return the number of utterances of the release by duration.

    Args:
        index: folder of the index. Two of its columns are read, a batch at a time.

    Raises:
        StoreDamagedError: the index cannot be read.
    """
    counts = np.zeros(_LONGEST_FRAMES + 1, dtype=np.int64)
    path = index / "utterances.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["first_frame", "last_frame"]):
                first, last = (column.to_numpy() for column in batch.columns)
                frames = np.clip(last - first + 1, 0, _LONGEST_FRAMES)
                counts += np.bincount(frames, minlength=len(counts))
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise StoreDamagedError(
            f"The index {index} is damaged: {first_line(error)}. {repair_advice(path)}"
        ) from error
    frames = np.arange(len(counts))
    mean = float((counts * frames).sum() / max(1, counts.sum())) / FRAMES_PER_SECOND
    width = bar_width(mean)
    places = np.minimum(frames / FRAMES_PER_SECOND // width, DURATION_BINS - 1).astype(np.int64)
    binned = np.zeros(DURATION_BINS, dtype=np.int64)
    np.add.at(binned, places, counts)
    return Histogram(width, tuple(binned.tolist()))
