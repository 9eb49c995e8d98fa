"""Days on which all videos fail alike: nothing is buried, little is lost, the cause is named."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import cli_process, plain_corpus, video_host
from support.clocks import StoppedTime
from support.fault_site import proxy
from support.inline_pool import ThreadPool
from support.plain_corpus import video_ids
from support.video_host import BARE, REMOVED, SABR, VideoHost

# yt-dlp keeps connections for the life of a worker, and threads here live for one run.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

FETCHES = 8
# Of one storm: twelve videos, those in flight with them, and the canaries.
MOST_LOST = 30


class Storm(NamedTuple):
    """A bad day of the whole route, and what a user reads of it."""

    name: str
    message: str


STORMS = [
    Storm(BARE, r"failed alike \(.*Video unavailable\).* an account or an address that the source"),
    Storm("sabr", rf"yt-dlp warned: .*{re.escape(SABR)}.*SABR or a PO token"),
    Storm("forbidden", r"HTTP Error 403.* refuses this address or account.*pip install -U yt-dlp"),
    Storm("log-in", r"a network that answers everybody with a page of its own, such as a log-in"),
    Storm("unknown", r"yt-dlp failed: TypeError.* a yt-dlp that is too old.*days old: pip install"),
    Storm("junk", r"a proxy that truncates media, or sends something else in their place"),
    Storm("Sign in to confirm you're not a bot", r"source refuses every route .*not a bot"),
]
SCALES = [pytest.param(60, id="60"), pytest.param(300, id="300", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxblink2_lib.materialize.video_queue._RETRY_SECONDS", 0.01)
    video_host.install(monkeypatch)


def run(release: Path, store: Path, source: str, *more: object, code: int = 0) -> str:
    """Run the command line in this process, with threads for workers; return its messages."""
    result = cli_process.run_inline(
        *("materialize", "--data-dir", release, "--store", store, "--source", source),
        *("--workers", 1, "--fetches", FETCHES, *more),
        code=code,
        pool=ThreadPool,
    )
    return str(result.stderr)


def statuses(store: Path) -> dict[str, str]:
    with sqlite3.connect(store / "ledger.sqlite") as database:
        return dict(database.execute("select video_id, status from videos"))


def finals(store: Path) -> dict[str, str]:
    with sqlite3.connect(store / "ledger.sqlite") as database:
        return dict(database.execute("select video_id, status from verdicts where next_at is null"))


@pytest.fixture
def host() -> Iterator[VideoHost]:
    with VideoHost() as running:
        yield running


@pytest.mark.parametrize("count", SCALES)
@pytest.mark.parametrize("storm", STORMS, ids=lambda storm: storm.name.split()[0])
def test_a_storm_in_a_run_costs_little_and_buries_nothing(
    storm: Storm, count: int, host: VideoHost, tmp_path: Path
) -> None:
    videos = video_ids(count)
    gone = set(videos[::10])
    host.reasons = dict.fromkeys(gone, REMOVED)
    release = plain_corpus.make_release(tmp_path / "release", videos)
    store = tmp_path / "store"

    def begin(video_id: str) -> None:
        if sum(host.pages.values()) > count // 3:
            host.storm = storm.name

    host.before = begin
    messages = run(release, store, host.template, code=4)
    assert re.search(storm.message, messages, re.DOTALL), messages
    assert sum(host.stormy.values()) <= MOST_LOST
    assert set(finals(store)) <= gone

    host.before, host.storm = (lambda _: None), ""
    run(release, store, host.template)
    assert statuses(store) == {video: "gone" if video in gone else "done" for video in videos}


@pytest.mark.parametrize("count", SCALES)
def test_a_proxy_that_goes_away_costs_little_and_buries_nothing(
    count: int, host: VideoHost, tmp_path: Path
) -> None:
    videos = video_ids(count)
    release = plain_corpus.make_release(tmp_path / "release", videos)
    store = tmp_path / "store"
    first = contextlib.ExitStack()
    url = first.enter_context(proxy("first"))

    def leave(video_id: str) -> None:
        del video_id
        if sum(host.pages.values()) == count // 3:
            # In a thread of its own, since the proxy waits for this answer.
            threading.Thread(target=first.close).start()

    host.before = leave
    messages = run(release, store, host.template, "--proxy", url, code=3)
    assert "The source does not answer: " in messages
    assert set(statuses(store).values()) == {"planned", "done"}
    assert finals(store) == {}
    before = sum(host.pages.values())
    assert before <= count // 3 + FETCHES
    with proxy("second") as other:
        run(release, store, host.template, "--proxy", other)
    assert set(statuses(store).values()) == {"done"}
    assert sum(host.pages.values()) - before <= count - before + MOST_LOST


def test_a_storm_from_the_first_request_on(host: VideoHost, tmp_path: Path) -> None:
    """With a fresh ledger nothing is known to work: videos of other speakers are asked."""
    videos = video_ids(100)
    release = plain_corpus.make_release(tmp_path / "release", videos)
    host.storm = BARE
    store = tmp_path / "store"
    messages = run(release, store, host.template, code=4)
    assert "and so did 5 more that were requested to find out" in messages
    first = set(host.pages)
    assert sum(host.pages.values()) == len(first) <= MOST_LOST
    assert set(statuses(store).values()) == {"planned"}
    # A restart does not begin with the same videos, nor ask the same speakers.
    run(release, store, host.template, code=4)
    assert max(host.pages.values()) == 1
    # What the user names is asked last, and decides.
    host.before = lambda video_id: setattr(host, "storm", "" if video_id == "jNQXAC9IVRw" else BARE)
    run(release, store, host.template, "--canary", "jNQXAC9IVRw", code=2)
    assert set(statuses(store).values()) == {"ambiguous"}
    assert finals(store) == {}


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_corpus_that_is_mostly_gone_is_gone_through(
    count: int, host: VideoHost, tmp_path: Path
) -> None:
    """Nine of ten answer as a flagged account would, at the source that most people use."""
    videos = video_ids(count)
    alive = {video for number, video in enumerate(videos) if number % 10 == 7}
    host.reasons = {video: BARE for video in videos if video not in alive}
    release = plain_corpus.make_release(tmp_path / "release", videos)
    store = tmp_path / "store"
    run(release, store, host.template)
    assert statuses(store) == {video: "done" if video in alive else "ambiguous" for video in videos}
    # The first canaries, before anything is known to come; then at most one in fifty.
    assert sum(host.pages.values()) <= len(videos) * 1.02 + 10


def test_a_second_day_confirms_what_is_gone_at_little_cost(
    host: VideoHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = video_ids(150)
    alive = set(videos[::10])
    host.reasons = {video: BARE for video in videos if video not in alive}
    release = plain_corpus.make_release(tmp_path / "release", videos)
    store = tmp_path / "store"
    run(release, store, host.template)
    first = sum(host.pages.values())
    tomorrow = StoppedTime(time.time() + 25 * 3600)
    for module in ("store.verdicts", "materialize.judgement", "materialize.routes"):
        monkeypatch.setattr(f"voxblink2_lib.{module}.time", tomorrow)
    run(release, store, host.template)
    assert statuses(store) == {video: "done" if video in alive else "gone" for video in videos}
    asked = sum(host.pages.values()) - first
    assert asked <= (len(videos) - len(alive)) * 1.02 + 10
