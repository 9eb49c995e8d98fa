"""The report: one HTML page that needs nothing else, beside a CSV file of what is missing.

Reasons are the words of a stranger's server: whatever is in them, they are text on the page.
"""

from __future__ import annotations

import errno
import html
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreError, first_line
from voxblink2_lib.files import atomic_write
from voxblink2_lib.outcomes import POLICIES, RetryPolicy
from voxblink2_lib.progress import Advance
from voxblink2_lib.records import FRAMES_PER_SECOND
from voxblink2_lib.report.missing_csv import plain, write_missing
from voxblink2_lib.report.plots import (
    COLOURS,
    UNKNOWN_COLOUR,
    coverage_plot,
    durations_plot,
    outcomes_plot,
    traffic_plot,
)
from voxblink2_lib.store.ledger_statistics import MOST_BINS, Histogram, LedgerStatistics, bar_width

_MOST_REASONS = 10
_LONGEST_REASON = 300  # characters on the page; the CSV file has all
_LONGEST_FRAMES = 3600 * FRAMES_PER_SECOND


@dataclass(frozen=True, slots=True)
class ReportSubject:
    """What the page says of itself.

    Attributes:
        store: the store's folder.
        config: the configuration.
        version: of this library.
        now: Unix time at which the page is made.
    """

    store: str
    config: str
    version: str
    now: float


def write_report(
    views: LedgerStatistics,
    subject: ReportSubject,
    *,
    target: Path,
    csv_file: Path,
    index: Path | None = None,
    progress: Advance = lambda _: None,
) -> int:
    """Write the page and the CSV file. The same ledger, subject and index give the same bytes.

    Args:
        views: the ledger.
        subject: what the page says of itself.
        target: the page to write.
        csv_file: the CSV file to write, see ``report_csv.py``.
        index: folder of the store's index; ``None`` leaves its durations out.
        progress: called after each part, and after each 100,000 rows.

    Returns:
        The number of missing videos.

    Raises:
        StoreError: the ledger cannot be read, or a file cannot be written.
    """
    with _named(target, csv_file), views.snapshot():
        missing = write_missing(views.missing(), csv_file, progress=progress)
        link = "./" + quote(os.path.relpath(csv_file, target.parent).replace(os.sep, "/"))
        parts = []
        for part in _parts(views, subject, index, missing, (link, csv_file.name)):
            parts.append(part)
            progress(1)
        page = _PAGE.format(title=_escaped(_title(subject)), style=_STYLE, body="\n".join(parts))
        with atomic_write(target) as file:
            file.write(page.encode("utf-8", errors="replace"))
    return missing


@contextmanager
def _named(*paths: Path) -> Iterator[None]:
    """Say which files when one of them cannot be written."""
    try:
        for path in paths:
            if path.is_dir():  # found out before the work, which may take a minute
                raise IsADirectoryError(errno.EISDIR, f"{path.name} is a folder")
        yield
    except OSError as error:
        where = " and ".join(map(str, paths))
        raise StoreError(
            f"The report cannot be written to {where}: {error.strerror or first_line(error)}."
        ) from error


# -- the page ---------------------------------------------------------------------------------


def _parts(
    views: LedgerStatistics,
    subject: ReportSubject,
    index: Path | None,
    missing: int,
    csv_link: tuple[str, str],
) -> Iterator[str]:
    """Yield the parts of the page in order; each is one or two queries."""
    videos = views.videos()
    link, name = csv_link
    yield (
        f"<h1>{_escaped(_title(subject))}</h1>"
        f"<p>Store {_escaped(subject.store)}, made {_minute(subject.now)} by voxblink2 "
        f"{_escaped(subject.version)}.</p>"
    )
    yield _summary(views, videos, missing)
    yield (
        f'<p class="note">Every missing video with its reason: <a href="{_escaped(link)}">'
        f"{_escaped(name)}</a>, {missing:,} rows.</p>"
    )
    yield f"<h2>Classes</h2>{_classes(videos)}"
    coverage = views.coverage()
    plot = coverage_plot(coverage) if sum(coverage.speakers) else ""
    yield _section("Coverage per speaker", plot, "No video is planned yet.")
    outcomes = views.outcomes_over_time()
    plot = outcomes_plot(outcomes) if outcomes.series else ""
    yield _section("Outcomes over time", plot, "No video was tried yet.",
                   "A video counts once, when it got the class that it has now.")  # fmt: skip
    traffic = views.traffic_over_time()
    plot = traffic_plot(traffic) if traffic.series else ""
    yield _section("Speed over time", plot, "No attempt was written down yet.")
    yield _durations(views, index)
    yield f"<h2>Reasons</h2>{_reasons(views)}"


def _title(subject: ReportSubject) -> str:
    return f"VoxBlink2 report: {subject.config}"


def _section(title: str, plot: str, empty: str, note: str = "") -> str:
    shown = f"<figure>{plot}</figure>" if plot else f'<p class="note">{empty}</p>'
    said = f'<p class="note">{note}</p>' if plot and note else ""
    return f"<h2>{title}</h2>{shown}{said}"


def _summary(views: LedgerStatistics, videos: dict[str, int], missing: int) -> str:
    totals, coverage, speed = views.totals(), views.coverage(), views.speed()
    done, excluded = videos.get("done", 0), videos.get("excluded", 0)
    wanted = done + missing
    rows = [
        ("Videos that are done", f"{done:,} of {wanted:,}{_share(done, wanted)}"),
        ("Videos that are missing", f"{missing:,}"),
        ("Videos that are excluded", f"{excluded:,}"),
        ("Utterances", f"{totals.clips:,}"),
        ("Hours", f"{totals.hours:,.2f}"),
        ("Bytes fetched", _size(totals.bytes_fetched)),
        (
            "Speakers",
            f"{coverage.complete:,} complete, {coverage.partial:,} partial, "
            f"{coverage.empty:,} empty",
        ),
    ]
    if speed is not None:
        rows.append(
            (
                "Speed",
                f"{speed.videos_an_hour:,.0f} videos an hour and "
                f"{_size(speed.bytes_a_second)} a second, in the {_minutes(speed.seconds)} up to "
                f"{_minute(speed.until)}",
            )
        )
    cells = "".join(f'<tr><th scope="row">{name}</th><td>{said}</td></tr>' for name, said in rows)
    return f'<table class="summary">{cells}</table>'


def _share(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.1f} %)" if whole else ""


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.2f} TB"


def _classes(videos: dict[str, int]) -> str:
    """Return the table of classes: how many, what it means, and what happens next."""
    everything = sum(videos.values())
    policies: dict[str, RetryPolicy] = {str(one): policy for one, policy in POLICIES.items()}
    rows = []
    for status in sorted(videos, key=lambda status: (-videos[status], status)):
        policy = policies.get(status)
        means, follows = ("not tried yet", "the next run asks for it") if policy is None else (
            policy.description, _follows(status, policy))  # fmt: skip
        rows.append(
            f'<tr><th scope="row">{_swatch(status)}{_escaped(status)}</th>'
            f"<td class=number>{videos[status]:,}</td>"
            f"<td class=number>{100 * videos[status] / everything:.1f} %</td>"
            f"<td>{_escaped(means)}</td><td>{_escaped(follows)}</td></tr>"
        )
    head = "<tr><th>Class</th><th class=number>Videos</th><th class=number>Share</th>"
    head += "<th>What it means</th><th>What happens next</th></tr>"
    if not rows:
        return '<p class="note">No video is planned yet.</p>'
    return f"<table>{head}{''.join(rows)}</table>"


def _follows(status: str, policy: RetryPolicy) -> str:
    """Say what happens next to a video of a class."""
    if status == "done":
        return "nothing, it is never fetched again"
    if status == "excluded":
        return "nothing"
    if policy.wait_seconds is None:
        return "it is not asked for again, unless you say so with 'voxblink2 retry'"
    if not policy.wait_seconds:
        return "the next run asks again"
    minutes = policy.wait_seconds / 60
    wait = f"{minutes:g} minutes" if minutes < 60 else f"{minutes / 60:g} hours"
    said = f"asked for again after {wait}"
    if policy.doubles:
        said += ", then after twice as long each time, up to a day"
    return said + (f"; given up after {policy.max_tries} tries" if policy.max_tries else "")


def _reasons(views: LedgerStatistics) -> str:
    """Return the table of the most frequent reasons, with a bar for each."""
    reasons = views.reasons(_MOST_REASONS)
    if not reasons:
        return '<p class="note">No video that was tried is missing.</p>'
    most = max(reason.videos for reason in reasons)
    rows = []
    for reason in reasons:
        words = plain(reason.words) or "(no words)"
        if len(words) > _LONGEST_REASON:
            words = f"{words[:_LONGEST_REASON]}…"
        width = 100 * reason.videos / most
        colour = COLOURS.get(reason.status, UNKNOWN_COLOUR)
        bar = f'<div class="bar" style="width:{width:.1f}%;background:{colour}"></div>'
        rows.append(
            f"<tr><td class=number>{reason.videos:,}</td>"
            f'<td class="bars">{bar}</td><td class="status">{_escaped(reason.status)}</td>'
            f'<td class="words">{_escaped(words)}</td></tr>'
        )
    head = "<tr><th class=number>Videos</th><th></th><th>Class</th><th>In the source's words</th>"
    return f'<table class="reasons">{head}</tr>{"".join(rows)}</table>'


def _durations(views: LedgerStatistics, index: Path | None) -> str:
    panels = [
        ("Clips of one video together", "videos", views.seconds_per_video()),
        ("Mean utterance of a video", "videos", views.mean_seconds_per_utterance()),
    ]
    note = "The store's videos that are done."
    if index is not None and (index / "utterances.parquet").exists():
        panels.append(("Utterances of the release", "utterances", seconds_per_utterance(index)))
        note += " On the right, every utterance that the release names, whether it came or not."
    panels = [panel for panel in panels if any(panel[2].counts)]
    plot = durations_plot(panels) if panels else ""
    return _section("Durations", plot, "No video is done yet.", note)


def seconds_per_utterance(index: Path) -> Histogram:
    """Return how many utterances of the release have which duration.

    Args:
        index: folder of the index. Two of its columns are read, a batch at a time.

    Raises:
        StoreError: the index cannot be read.
    """
    counts = np.zeros(_LONGEST_FRAMES + 1, dtype=np.int64)
    try:
        with pq.ParquetFile(index / "utterances.parquet") as file:
            for batch in file.iter_batches(columns=["first_frame", "last_frame"]):
                first, last = (column.to_numpy() for column in batch.columns)
                frames = np.clip(last - first + 1, 0, _LONGEST_FRAMES)
                counts += np.bincount(frames, minlength=len(counts))
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise StoreError(f"The index {index} cannot be read: {first_line(error)}.") from error
    frames = np.arange(len(counts))
    mean = float((counts * frames).sum() / max(1, counts.sum())) / FRAMES_PER_SECOND
    width = bar_width(mean)
    bins = MOST_BINS // 2
    place = np.minimum(frames / FRAMES_PER_SECOND // width, bins - 1).astype(np.int64)
    binned = np.zeros(bins, dtype=np.int64)
    np.add.at(binned, place, counts)
    return Histogram(width, tuple(binned.tolist()))


def _swatch(status: str) -> str:
    return f'<span class="swatch" style="background:{COLOURS.get(status, UNKNOWN_COLOUR)}"></span>'


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes > 1 else "minute"


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _escaped(words: str) -> str:
    return html.escape(plain(words))


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #fff; --line: #d9dee4; --soft: #5b6875; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dde3ea; --paper: #15191e; --line: #37404a; --soft: #98a4b1; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); }
tr:first-child th { white-space: nowrap; }
th { font-weight: 600; } .summary th { width: 14rem; font-weight: 400; color: var(--soft); }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.number, th.number { padding-right: 1rem; }
th[scope=row], .status { white-space: nowrap; }
.swatch { display: inline-block; width: .7em; height: .7em; margin-right: .5em; }
.bars { width: 9rem; } .bar { height: .8em; margin-top: .3em; min-width: 1px; }
.words { overflow-wrap: anywhere; }
figure { margin: 0; } svg { width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
.note { color: var(--soft); } a { color: inherit; }
"""
# Nothing is loaded from anywhere and nothing runs, even if a word got through as markup.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
