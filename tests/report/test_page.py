"""The page and the CSV file: whole, safe whatever a source says, the same bytes twice."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.ledger_builder import DAY, LedgerBuilder

from voxblink2_lib.cli.report import add_report_command
from voxblink2_lib.errors import StoreError, UsageError
from voxblink2_lib.outcomes import POLICIES, STATUSES
from voxblink2_lib.release.index import UTTERANCE_COLUMNS
from voxblink2_lib.report.missing_csv import CSV_COLUMNS, write_missing
from voxblink2_lib.report.page import ReportSubject, seconds_per_utterance, write_report
from voxblink2_lib.report.plots import COLOURS
from voxblink2_lib.store.histograms import Histogram
from voxblink2_lib.store.ledger_statistics import MissingVideo

SUBJECT = ReportSubject("/data/<store> & more", "1.2.3", DAY + 90_000)
HOSTILE = [
    "<script>alert('1')</script>",
    '"><img src="https://example.org/x.png" onerror=alert(1)>',
    "</style></table></svg><svg onload=alert(1)>",
    "]]> --> <!-- <![CDATA[",
    "&lt;b&gt; &#x3c;",
    "{title} {0} %s $x^2$ \\",
    "two\r\nlines\tand\x00a null\x1b[31m",
    "right-to-left \u202e override",
    "emoji \U0001f3a4 and 音声",
    "long " * 1000,
]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A page, taken apart: elements must close in order, and name nothing outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.cells: list[list[str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, attrs)
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "xlink:href", "src"}:
                self.links.append(value or "")
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


@pytest.fixture
def ledger() -> Iterator[LedgerBuilder]:
    with LedgerBuilder() as builder:
        yield builder


@pytest.fixture
def everything(ledger: LedgerBuilder) -> LedgerBuilder:
    """Every class, hostile reasons, attempts over a day."""
    for n, status in enumerate(("planned", *STATUSES)):
        seconds = 3600 * n
        ledger.video(status, speaker=f"id{n % 5:06}", reason=f"said {status}", at=DAY + seconds)
        ledger.attempt(DAY + seconds, status=status, size_bytes=1_000_000 * n)
    for n in range(6):
        ledger.video("done", speaker=f"id{n:06}", clips=3, seconds=5 * n + 1, at=DAY + 600 * n)
    for reason in HOSTILE:
        for _ in range(2):
            ledger.video("transient", reason=reason, next_at=DAY + 99_999.9)
    return ledger


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Durations of 1, 25, 50, 51 and 1 000 000 frames, 25 a second."""
    folder = tmp_path / "index"
    folder.mkdir()
    frames = [1, 25, 50, 51, 1_000_000]
    columns = {
        "first_frame": pa.array([7] * 5, pa.int32()),
        "last_frame": pa.array([7 + count - 1 for count in frames], pa.int32()),
    }
    arrays = [columns.get(field.name, pa.nulls(5, field.type)) for field in UTTERANCE_COLUMNS]
    table = pa.Table.from_arrays(arrays, schema=UTTERANCE_COLUMNS)
    pq.write_table(table, folder / "utterances.parquet")
    return folder


def write(
    ledger: LedgerBuilder, folder: Path, *, index: Path | None = None
) -> tuple[str, list[list[str]]]:
    """Write both files; return the page and the rows of the CSV file."""
    target, csv_file = folder / "report.html", folder / "missing.csv"
    configs = {"audio": ledger.statistics}
    counts = write_report(configs, SUBJECT, target=target, csv_file=csv_file, index=index)
    with open(csv_file, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == counts["audio"] + 1
    return target.read_text(encoding="utf-8"), rows[1:]


# -- The page --------------------------------------------------------------------------------------


def test_the_page_is_whole_and_needs_nothing_else(
    everything: LedgerBuilder, index: Path, tmp_path: Path
) -> None:
    text, _ = write(everything, tmp_path, index=index)
    page = Page(text)
    assert not page.tags & {"script", "img", "link", "iframe", "object", "image", "base"}
    assert len(page.ids) == len(set(page.ids))
    inside = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in inside} <= set(page.ids)
    assert [link for link in page.links if link not in inside] == ["./missing.csv"]
    for place in re.findall(r"url\((.*?)\)", text):
        assert place.startswith("#")
        assert place[1:] in page.ids
    # An address is there only where a reason has one, as text.
    assert re.findall(r"\w+://[^&]*", text) == ["https://example.org/x.png"]
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_page_has_four_plots_with_words_as_text(
    everything: LedgerBuilder, index: Path, tmp_path: Path
) -> None:
    page = Page(write(everything, tmp_path, index=index)[0])
    for word in (
        *("share of the speaker's videos that are done", "videos in 20 minutes"),
        *("videos per hour", "megabytes per second", "Clips of one video together"),
        *("Mean utterance of a video", "Utterances of the release", "media-unusable"),
        *("seconds; last bar:", "UTC", "speakers"),
    ):
        assert word in page.words, word
    assert "svg" in page.tags


def test_hostile_reasons_are_text(ledger: LedgerBuilder, tmp_path: Path) -> None:
    for reason in HOSTILE:
        ledger.video("gone", reason=reason)
    text, _ = write(ledger, tmp_path)
    page = Page(text)
    messages = [row[3] for row in page.cells if len(row) == 4 and row[2] == "gone"]
    expected = [
        re.sub(r"[\x00-\x1f\u202e]", lambda match: ascii(match[0])[1:-1], reason)
        for reason in HOSTILE
    ]
    expected[-1] = f"{expected[-1][:300]}…"
    assert sorted(messages) == sorted(expected)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    assert SUBJECT.store in page.words


def test_the_page_says_what_classes_mean_and_what_happens_next(
    everything: LedgerBuilder, tmp_path: Path
) -> None:
    page = Page(write(everything, tmp_path)[0])
    rows = {row[0]: row[1:] for row in page.cells if len(row) == 5}
    assert set(rows) == {"Class", "planned", *STATUSES}
    for status, policy in POLICIES.items():
        assert rows[status][2] == policy.description
        assert rows[status][3]
    assert rows["transient"][0] == str(1 + 2 * len(HOSTILE))
    assert rows["transient"][3] == (
        "retried after 15 minutes, then after twice as long each time, up to a day; "
        "given up after 8 tries"
    )
    assert rows["planned"][2:] == ["not tried yet", "the next run downloads it"]
    assert rows["blocked"][3] == "the next run retries it"
    assert rows["gone"][3].startswith(
        "nothing, unless you retry it with 'voxblink2 retry --class gone --store "
    )


def test_the_page_sums_up(ledger: LedgerBuilder, tmp_path: Path) -> None:
    for n in range(3):
        ledger.video("done", clips=2, seconds=3600, size_bytes=1_500_000, speaker=f"id00000{n}")
        ledger.attempt(DAY + 60 * n, size_bytes=1_500_000, seconds=60)
    ledger.video("gone", speaker="id000002")
    ledger.video("planned", speaker="id000009")
    ledger.video("excluded", speaker="id000009")
    rows = {row[0]: row[1] for row in Page(write(ledger, tmp_path)[0]).cells if len(row) == 2}
    assert rows == {
        "Videos done": "3 of 5 (60.0 %)",
        "Videos missing": "2",
        "Videos excluded": "1",
        "Utterances": "6",
        "Hours": "3.00",
        "Fetched": "4.5 MB",
        "Speakers": "2 complete, 1 partial, 1 empty",
        "Speed": "60 videos per hour and 25.0 kB per second, in the 3 minutes up to "
        "2025-10-10 00:02 UTC",
    }


@pytest.mark.parametrize("statuses", [[], ["planned"], ["excluded"], ["done"], ["gone"]], ids=str)
def test_a_ledger_with_little_in_it_gives_a_whole_page(
    statuses: list[str], ledger: LedgerBuilder, tmp_path: Path
) -> None:
    for status in statuses:
        ledger.video(status)
    text, rows = write(ledger, tmp_path)
    page = Page(text)
    assert [row[2] for row in rows] == [
        status for status in statuses if status in {"planned", "gone"}
    ]
    assert ("No video was tried yet." in page.words) == (statuses in ([], ["planned"]))
    assert ("No video is planned yet." in page.words) == (statuses in ([], ["excluded"]))
    assert "nan" not in page.words


def test_the_same_ledger_gives_the_same_bytes(
    everything: LedgerBuilder, index: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        write(everything, tmp_path / name, index=index)
    for name in ("report.html", "missing.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_every_class_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == {"planned", *STATUSES}
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_plots_do_not_look_like_the_users_own(everything: LedgerBuilder, tmp_path: Path) -> None:
    import matplotlib as mpl

    usual, _ = write(everything, tmp_path)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "axes.grid": True}):
        before = dict(mpl.rcParams)
        assert write(everything, tmp_path)[0] == usual
        assert dict(mpl.rcParams) == before


def test_durations_of_the_release_are_counted_from_frames(index: Path) -> None:
    histogram = seconds_per_utterance(index)
    # The mean counts nothing as longer than an hour: 720.2 s.
    assert histogram == Histogram(120, (4, *(0,) * 28, 1))


def test_a_damaged_index_is_an_error(ledger: LedgerBuilder, index: Path, tmp_path: Path) -> None:
    (index / "utterances.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(StoreError, match=r"The index .*index is damaged: .* 'voxblink2 repair"):
        write(ledger, tmp_path, index=index)


def test_a_page_where_a_folder_is_is_an_error_before_the_work(
    ledger: LedgerBuilder, tmp_path: Path
) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StoreError, match=r"cannot be written to .*: report.html is a folder"):
        write(ledger, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# -- The CSV file ----------------------------------------------------------------------------------


def test_the_csv_file_has_every_missing_video_with_its_reason(
    everything: LedgerBuilder, tmp_path: Path
) -> None:
    _, rows = write(everything, tmp_path)
    assert len(rows) == len(STATUSES) - 1 + 2 * len(HOSTILE)
    assert rows == sorted(rows)
    reasons = [row[3] for row in rows]
    assert HOSTILE[0] in reasons
    assert r"two\r\nlines\tand\x00a null\x1b[31m" in reasons
    assert "said gone" in reasons
    assert len((tmp_path / "missing.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(rows)


def test_times_are_iso_8601(ledger: LedgerBuilder, tmp_path: Path) -> None:
    ledger.video("planned", video="-plannedxxx")
    ledger.video("transient", video="_strangexxx", at=DAY + 1.9, next_at=DAY + 3600)
    assert write(ledger, tmp_path)[1] == [
        ["id000001", "-plannedxxx", "planned", "", "0", "", "", "audio"],
        [
            *("id000001", "_strangexxx", "transient", "", "1"),
            *("2025-10-10T00:00:01Z", "2025-10-10T01:00:00Z", "audio"),
        ],
    ]


@pytest.mark.parametrize(
    ("reason", "cell"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'=1"),
        ("\r\n =1", "'=1"),
        ("\x00=1", "\\x00=1"),
        ("\uff1d1", "'\uff1d1"),
        ("x;=1", "x;'=1"),
        ("x; =1; @y", "x; '=1; '@y"),
        ("'=1", "'=1"),
        ("HTTP 404 - a=b", "HTTP 404 - a=b"),
        ('"quoted", too', '"quoted", too'),
        ("", ""),
    ],
)
def test_a_reason_is_no_formula(reason: str, cell: str, tmp_path: Path) -> None:
    path = tmp_path / "missing.csv"
    row = MissingVideo("id000001", "-JUT3czS6OI", "gone", reason, 1, None, None)
    assert write_missing(iter([("audio", row)]), path) == {"audio": 1}
    with open(path, newline="", encoding="utf-8") as file:
        (_, fields) = csv.reader(file)
    assert fields == ["id000001", "-JUT3czS6OI", "gone", cell, "1", "", "", "audio"]


def test_a_failure_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "missing.csv"
    path.write_text("old")

    def rows() -> Iterator[tuple[str, MissingVideo]]:
        yield "audio", MissingVideo("id000001", "abcdefghijk", "gone", "", 1, None, None)
        raise StoreError("no more")

    with pytest.raises(StoreError, match="no more"):
        write_missing(rows(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -- The command -----------------------------------------------------------------------------------


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_report_command(parser.add_subparsers())
    options = parser.parse_args(["report", *map(str, words)])
    return int(options.command(options))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    with LedgerBuilder(tmp_path / "store" / "ledger.sqlite") as ledger:
        ledger.video("gone", reason="why")
        ledger.video("done", clips=1, seconds=2)
    return tmp_path / "store"


def test_the_command_says_where_both_files_lie(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "page.html"
    assert run("--store", store, "--out", out) == 0
    text = capsys.readouterr().out
    assert text == f"Report  {out} (audio)\nMissing {out.parent / 'missing.csv'} (1 video)\n"
    words: list[str | Path] = ["--store", store, "--out", out, "--csv", tmp_path / "a b.csv"]
    files = {"store": str(store), "report": str(out), "csv": str(tmp_path / "a b.csv")}
    assert run(*words, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {**files, "configs": {"audio": {"missing": 1}}}
    assert run(*words, "--config", "audio", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {**files, "config": "audio", "missing": 1}
    page = Page(out.read_text(encoding="utf-8"))
    assert "./../a%20b.csv" in page.links
    assert str(store) in page.words


def test_the_command_needs_a_store_and_two_files(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store at"):
        run("--store", tmp_path / "nowhere", "--out", tmp_path / "page.html")
    same = tmp_path / "page.html"
    with pytest.raises(UsageError, match="are the same file"):
        run("--store", store, "--out", same, "--csv", same)
    assert not same.exists()
