"""Fetching from sites that fail, limit, refuse and hang, through processes that are killed."""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from support import cli_process, fault_site, plain_corpus
from support.fault_site import REASONS, FaultSite, SiteRequest
from support.inline_pool import ThreadPool
from support.plain_corpus import video_ids

from voxblink2_lib.sources.rate_limits import RateLimiter

# yt-dlp keeps connections for the life of a worker, and threads here live for one run.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs in this process."""
    monkeypatch.setattr("voxblink2_lib.materialize.video_queue._RETRY_SECONDS", 0.1)


FETCHES = 8
# Storms are about fetching; one process that cuts spares the start of another.
COMMON = ("--workers", 1, "--fetches", FETCHES)


def words(release: Path, store: Path, site: FaultSite, *more: object) -> tuple[object, ...]:
    named = ("--data-dir", release, "--store", store, "--source", site.template())
    return ("materialize", *named, *COMMON, *more)


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, with threads in place of worker processes."""
    return cli_process.run_inline(*arguments, code=code, pool=ThreadPool)


def statuses(store: Path) -> dict[str, str]:
    """The class of each video, as the ledger has it."""
    if not (store / "ledger.sqlite").exists():
        return {}
    database = sqlite3.connect(f"file:{store / 'ledger.sqlite'}?mode=ro", uri=True)
    try:
        return dict(database.execute("select video_id, status from videos").fetchall())
    except sqlite3.OperationalError:  # killed before the tables were made
        return {}
    finally:
        database.close()


def kept(store: Path) -> set[str]:
    """Videos that need not be asked for again: cut, fetched and waiting to be cut, or gone."""
    waiting = {
        path.parent.name.split("_", 1)[1] for path in store.glob("media/audio/*/fetched.json")
    }
    return cli_process.finished_videos(store) | waiting | settled(store, *FINAL)


def settled(store: Path, *classes: str) -> set[str]:
    return {video for video, status in statuses(store).items() if status in classes}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the runs of a test store their rate limits; `conftest` names it to them."""
    return tmp_path / "home"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return plain_corpus.make_release(tmp_path / "release", video_ids(24), per_speaker=6)


# -- faults and kills -------------------------------------------------------------------------

# What a video with a fault ends in, when it is tried in one run until all is settled.
OUTCOMES = {
    "good": "done",
    "401": "credentials",
    "403": "transient",
    "404": "gone",
    "410": "gone",
    "451": "geo",
    "500": "transient",
    "502-once": "done",
    "503": "transient",
    "503-once": "done",
    "504-once": "done",
    "429 1-once": "done",
    "reset": "transient",
    "reset-once": "done",
    "drop-always": "transient",
    "drop-always-once": "done",
    "hang": "transient",
    "hang-once": "done",
    "429 1": "rate-limited",
    "html": "ambiguous",
    "html-later": "ambiguous",
    "empty-later": "transient",
    "redirect-loop": "transient",
    "moved": "done",
    "gzip": "done",
    "gzip-parts": "ambiguous",
    "length-too-long": "done",
    "length-too-short": "done",
    "wrong-start": "transient",
    "noise": "media-unusable",
}
FINAL = ("gone", "geo", "ambiguous", "media-unusable")
# What takes long or stops all others for a second is rare.
RARE = ("hang", "hang-once", "429 1-once", "redirect-loop")
SHORT = ("--yt-dlp=--socket-timeout 1",)


class Storm(NamedTuple):
    """How many kills it takes, how many videos it has, and how many of them have a fault."""

    kills: int
    videos: int
    faulty: int
    # The most requests between two kills. A video takes two or three.
    most_requests: int


STORMS = [
    pytest.param(Storm(5, 64, 32, 24), id="5 kills"),
    pytest.param(Storm(30, 300, 90, 32), id="30 kills", marks=pytest.mark.slow),
]


def faults_of(storm: Storm) -> dict[str, str]:
    """Give some videos a fault, of all kinds, anywhere."""
    videos = video_ids(storm.videos)
    chooser = random.Random(20262)
    faulty = chooser.sample(videos, storm.faulty)
    often = [name for name in OUTCOMES if name not in {*RARE, "good", "429 1"}]
    kinds = [*RARE, *RARE, *(often[number % len(often)] for number in range(len(faulty)))]
    return {**dict.fromkeys(videos, "good"), **dict(zip(faulty, kinds, strict=False))}


def expected(faults: dict[str, str]) -> dict[str, str]:
    return {video: OUTCOMES[fault] for video, fault in faults.items()}


def moments(storm: Storm) -> list[tuple[int, int]]:
    """Return after how many requests, and how many videos that are done, each run is killed.

    On a slow machine a few requests bring no video.
    """
    requests = random.Random(20261).choices(range(4, storm.most_requests), k=storm.kills)
    return [(count, 4 if number % 3 == 0 else 0) for number, count in enumerate(requests)]


@pytest.fixture
def storm_release(storm: Storm, tmp_path: Path) -> Path:
    return plain_corpus.make_release(tmp_path / "release", video_ids(storm.videos))


@pytest.fixture
def calm(storm: Storm, storm_release: Path, tmp_path: Path) -> dict[str, bytes]:
    """The shards of a run over the storm that nobody stops."""
    folder, faults = tmp_path / "calm", faults_of(storm)
    with FaultSite(faults) as site, pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        run(*words(storm_release, folder / "store", site, *SHORT))
    assert statuses(folder / "store") == expected(faults)
    return cli_process.shards(folder / "store")


@pytest.mark.parametrize("storm", STORMS)
def test_kills_in_a_storm(
    storm: Storm, storm_release: Path, calm: dict[str, bytes], tmp_path: Path
) -> None:
    faults, store = faults_of(storm), tmp_path / "store"
    with FaultSite(faults) as site:
        command = words(storm_release, store, site, *SHORT)
        kept_counts = killed_runs(moments(storm), command, site, store)
        assert storm.videos // 10 < len(kept_counts) < storm.videos
        run(*command)
        assert statuses(store) == expected(faults)
        again = {
            video: site.count(video) - requests
            for video, requests in kept_counts.items()
            if site.count(video) != requests
        }
        # But for control: each run may ask for one that came before, which takes two requests. And
        # media that were kept were found unusable, which was held back when the run was killed.
        assert {statuses(store)[video] for video in again} <= {"done", "media-unusable"}
        assert sum(again.values()) <= 2 * (storm.kills + 1), again
        assert cli_process.shards(store) == calm
        assert cli_process.run_inline_json("verify", "--store", store)["problems"] == []
        assert not list(store.glob("media/*/*")), "media are left"
        assert not list(store.glob("parts/audio/*")), "parts are left"
        requests_before = site.count()
        run(*command)
        last = {request.video_id for request in site.journal[requests_before:]}
    # What is limited by nothing but the lack of a log-in is tried by each run.
    credentials = {video for video, status in expected(faults).items() if status == "credentials"}
    assert last == credentials
    assert cli_process.shards(store) == calm


def killed_runs(
    moments: Sequence[tuple[int, int]],
    command: Sequence[object],
    site: FaultSite,
    store: Path,
) -> dict[str, int]:
    """Start and kill runs; return the videos that were kept, with their requests at that time."""
    good = {video for video, fault in site.faults.items() if fault == "good"}
    kept_counts: dict[str, int] = {}
    lost = dict.fromkeys(good, 0)  # how often a video was in flight when its run was killed
    for requests, videos in moments:
        before, done = site.count(), len(settled(store, "done"))
        process = cli_process.start(*command)
        if not (
            cli_process.wait_for(lambda goal=before + requests: site.count() >= goal, process)  # type: ignore[misc]
            and cli_process.wait_for(
                lambda goal=done + videos: len(settled(store, "done")) >= goal,  # type: ignore[misc]
                process,
            )
        ):
            _, err = process.communicate()
            pytest.fail(f"the run ended before it was killed: {err}")
        cli_process.stop(process, signal.SIGKILL)
        safe = kept(store)
        for video in safe:
            kept_counts.setdefault(video, site.count(video))
        in_flight = ({request.video_id for request in site.journal[before:]} & good) - safe
        assert len(in_flight) <= FETCHES
        for video in in_flight:
            lost[video] += 1
    for video in good:
        # One that is kept may be asked for again for control.
        requests = kept_counts.get(video, site.count(video))
        firsts = [one for one in site.firsts() if one.video_id == video and one.number <= requests]
        assert len(firsts) <= 1 + lost[video]
    return kept_counts


@pytest.mark.parametrize("storm", STORMS)
def test_every_fault_is_in_the_storm(storm: Storm) -> None:
    assert {*faults_of(storm).values()} == {*OUTCOMES} - {"429 1"}


@pytest.mark.parametrize("fault", ["401", "429 1"])
def test_a_run_ends_although_one_video_is_refused_for_ever(
    fault: str, small: Path, tmp_path: Path
) -> None:
    bad = video_ids(24)[3]
    refusing = FaultSite({bad: fault})

    def give_in(_: SiteRequest) -> None:
        if refusing.count(bad) > 40:  # otherwise a wrong run would never end
            refusing.faults.clear()

    refusing.before = give_in
    with refusing:
        run(*words(small, tmp_path / "store", refusing))
    assert statuses(tmp_path / "store") == {
        **dict.fromkeys(video_ids(24), "done"),
        bad: OUTCOMES[fault],
    }


@pytest.mark.parametrize("count", [1, 24], ids=["one", "all"])
def test_videos_that_hang_do_not_hold_up_the_end(count: int, small: Path, tmp_path: Path) -> None:
    """One is at fault itself; where all hang, the route is, although the site's front answers."""
    hanging = video_ids(24)[:count]
    with FaultSite(dict.fromkeys(hanging, "hang")) as site:
        command = words(small, tmp_path / "store", site, *SHORT)
        err = run(*command, code=4 if count == 24 else 0).stderr
    assert "The source does not answer" not in err
    assert ("This looks like a server that is failing" in err) == (count == 24)
    found = statuses(tmp_path / "store")
    failed = "planned" if count == 24 else "transient"
    assert found == dict.fromkeys(video_ids(24), "done") | dict.fromkeys(hanging, failed)


# -- refused addresses ------------------------------------------------------------------------


@pytest.fixture
def reasons(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "reasons.toml"
    path.write_text(REASONS)
    return "--reasons", path


@pytest.fixture
def site() -> Iterator[FaultSite]:
    with FaultSite() as running:
        yield running


@pytest.fixture
def two_ways(site: FaultSite) -> Iterator[tuple[object, ...]]:
    """Two proxies that the site can tell apart, as arguments."""
    with fault_site.proxy("one") as one, fault_site.proxy("two") as two:
        yield "--proxy", one, "--proxy", two


def test_a_refused_address_stops_and_the_other_goes_on(
    site: FaultSite,
    two_ways: Sequence[object],
    reasons: Sequence[object],
    small: Path,
    tmp_path: Path,
) -> None:
    refused_from = 5

    def refuse_later(_: SiteRequest) -> None:
        if len(via("one", site)) >= refused_from:
            site.refused.add("one")

    site.before = refuse_later
    err = run(*words(small, tmp_path / "store", site, *two_ways, *reasons)).stderr
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    # Those in flight when the first of them is refused.
    assert refused_from <= len(via("one", site)) < refused_from + FETCHES
    assert len(via("two", site)) >= 24
    assert re.search(r"127\.0\.0\.1:\d+: closed \(.*HTTP Error 418", err)


def via(name: str, site: FaultSite) -> list[SiteRequest]:
    return [one for one in site.journal if one.route == name]


def test_all_addresses_refused_and_let_go_again(
    site: FaultSite,
    two_ways: Sequence[object],
    reasons: Sequence[object],
    small: Path,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    command = words(small, store, site, *two_ways, *reasons)

    def refuse_later(_: SiteRequest) -> None:
        if site.count() > 12:
            site.refused |= {"one", "two"}

    site.before = refuse_later
    err = run(*command, code=4).stderr
    assert "The source refuses every route that was used" in err
    assert "HTTP Error 418" in err
    assert "nothing finished is lost. Wait some hours, or give other routes with --proxy" in err
    videos = cli_process.run_inline_json("status", "--store", store)["configs"]["audio"]["videos"]
    assert videos["blocked"] >= 1
    assert sum(videos.values()) == 24
    assert site.count() <= 12 + 2 * FETCHES
    done = kept(store)
    counts = {video: site.count(video) for video in done}
    site.before = lambda _: None
    site.refused.clear()
    run(*command)
    assert cli_process.run_inline_json("status", "--store", store)["configs"]["audio"][
        "videos"
    ] == {"done": 24}
    assert {video: site.count(video) for video in done} == counts


def test_blocked_without_more_words_closes_the_address_too(
    site: FaultSite, small: Path, tmp_path: Path
) -> None:
    """A user's entry may say the class alone; asking on would be asking for ever."""
    (tmp_path / "short.toml").write_text('[[reason]]\nclass = "blocked"\nhttp = [418]\n')
    site.refused.add("direct")
    options = ("--reasons", tmp_path / "short.toml")
    err = cli_process.run(*words(small, tmp_path / "store", site, *options), code=4).stderr
    assert "The source refuses every route" in err
    assert site.count() <= FETCHES


# -- no answer --------------------------------------------------------------------------------


def test_the_videos_of_a_dead_proxy_go_by_the_other(
    site: FaultSite, small: Path, tmp_path: Path
) -> None:
    with fault_site.proxy("one") as one:
        ways = ("--proxy", fault_site.dead_proxy(), "--proxy", one)
        err = run(*words(small, tmp_path / "store", site, *ways)).stderr
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    assert {request.route for request in site.journal} == {"one"}
    assert len(site.firsts()) == 24
    assert ": closed (" in err


def test_dead_proxies_alone_stop_the_run(site: FaultSite, small: Path, tmp_path: Path) -> None:
    ways = ("--proxy", fault_site.dead_proxy(), "--proxy", fault_site.dead_proxy())
    err = run(*words(small, tmp_path / "store", site, *ways), code=3).stderr
    assert "The source does not answer" in err
    assert "Nothing was changed. Check the network" in err
    assert site.journal == []
    assert statuses(tmp_path / "store") == {}
    run(*words(small, tmp_path / "store", site))
    assert {*statuses(tmp_path / "store").values()} == {"done"}


# -- the budget -------------------------------------------------------------------------------


def turns(home: Path) -> list[tuple[float, float]]:
    """When each permit was given and confirmed, as the file has it."""
    database = sqlite3.connect(home / "addresses.sqlite")
    try:
        return database.execute(
            "select given_at, arrived_at from turns order by given_at"
        ).fetchall()
    finally:
        database.close()


def assert_turns_are_the_truth(home: Path, site: FaultSite, *, spacing_seconds: float) -> None:
    """Each first request arrived within a turn of its own, and turns kept their distance.

    `test_addresses` shows for books like this that no 60 seconds see more than the budget.
    """
    given = turns(home)
    arrivals = sorted(one.at for one in site.firsts())
    assert len(given) == len(arrivals)
    assert min(b - a for (a, _), (b, _) in pairwise(given)) >= spacing_seconds
    # Whichever turn an arrival belongs to: the one that ends first is the safest to give it.
    left = list(given)
    for at in arrivals:
        fitting = [one for one in left if one[0] <= at <= one[1]]
        assert fitting, f"a request at {at} belongs to no turn"
        left.remove(min(fitting, key=lambda turn: turn[1]))


def test_a_budget_is_kept_by_all_fetches(
    site: FaultSite, small: Path, home: Path, tmp_path: Path
) -> None:
    run(*words(small, tmp_path / "store", site, "--budget", 18_000))
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    assert_turns_are_the_truth(home, site, spacing_seconds=0.2)


def test_two_runs_at_once_share_one_budget(
    site: FaultSite, small: Path, home: Path, tmp_path: Path
) -> None:
    both = [
        cli_process.start(*words(small, tmp_path / name, site, "--budget", 18_000))
        for name in ("store1", "store2")
    ]
    for process in both:
        _, err = process.communicate(timeout=cli_process.DEADLINE_SECONDS)
        assert process.returncode == 0, err
    for name in ("store1", "store2"):
        assert {*statuses(tmp_path / name).values()} == {"done"}
    assert len(site.firsts()) == 48
    assert_turns_are_the_truth(home, site, spacing_seconds=0.2)


# -- limits -----------------------------------------------------------------------------------


def test_a_limit_without_a_time_pauses_the_address_for_the_next_run_too(
    site: FaultSite, small: Path, home: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = words(small, store, site)
    limiter = RateLimiter(home / "addresses.sqlite")
    key = f"{site.host} direct"

    def limit_later(_: SiteRequest) -> None:
        if site.count() > 12:
            site.limited = ""

    site.before = limit_later
    process = cli_process.start(*command)
    assert cli_process.wait_for(lambda: limiter.pause_for(key).consecutive_pauses, process)
    _, err = cli_process.stop(process, signal.SIGINT)
    assert process.returncode == 3, err
    assert "Finished work is kept; run the same command to resume." in err
    assert re.search(r"direct: \d in flight, paused until [\d: -]+ \(.*HTTP Error 429", err)
    pause = limiter.pause_for(key)
    assert pause.consecutive_pauses == 1
    assert 500 < pause.until - time.time() <= 600
    assert site.count() <= 12 + FETCHES
    safe, asked = kept(store), site.count()
    counts = {video: site.count(video) for video in safe}
    # The pause is shortened, so that a test can see it end.
    until = time.time() + 4
    database = sqlite3.connect(home / "addresses.sqlite")
    with database:
        database.execute("update addresses set paused_until = ?", (until,))
    database.close()
    site.before, site.limited = lambda _: None, None
    run(*command)
    assert site.journal[asked].at >= until
    assert {*statuses(store).values()} == {"done"}
    assert {video: site.count(video) for video in safe} == counts


def test_an_address_that_is_limited_again_is_tried_by_one_video_at_a_time(
    site: FaultSite, small: Path, tmp_path: Path
) -> None:
    limited = FETCHES + 3

    def limit_first(_: SiteRequest) -> None:
        site.limited = "1" if site.count() <= limited else None

    site.before = limit_first
    run(*words(small, tmp_path / "store", site))
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    first, *later = site.journal[FETCHES - 1 : limited + 1]
    for before, after in pairwise([first, *later]):
        assert after.at - before.at >= 1, "another video was asked for while the address rested"


def test_a_video_that_is_asked_to_wait_for_waits_alone(small: Path, tmp_path: Path) -> None:
    soon, late = video_ids(24)[3], video_ids(24)[4]
    with FaultSite({soon: "503 5-once", late: "503 3600-once"}) as site:
        run(*words(small, tmp_path / "store", site))
    found = statuses(tmp_path / "store")
    assert found == dict.fromkeys(video_ids(24), "done") | {late: "transient"}
    assert site.count(late) == 1
    first, second, *_ = [one for one in site.journal if one.video_id == soon]
    begun = {one.video_id for one in site.journal if first.at < one.at < second.at and one.is_first}
    assert second.at - first.at >= 5
    # Eight at once are asked for before or beside it; how many of all, depends on the machine.
    assert len(begun) >= 24 - 2 * FETCHES, "the others waited too"


# -- retry ------------------------------------------------------------------------------------


def witness(store: Path) -> str:
    """The video that is asked for as a control, whether a failure is of the video or the route."""
    with closing(sqlite3.connect(store / "ledger.sqlite")) as database:
        ((video,),) = database.execute("select video_id from witnesses")
    return str(video)


def test_retry_asks_for_the_videos_of_a_class_and_for_no_other(small: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    videos = video_ids(24)
    gone, others = videos[4:7], {videos[8]: "401", videos[9]: "451", videos[10]: "403"}
    faults = {**dict.fromkeys(gone, "404"), **others}
    with FaultSite(faults) as site:
        run(*words(small, store, site, "--max-speakers", 3))
        before, asked = cli_process.shards(store), site.count()
        assert [statuses(store)[video] for video in gone] == ["gone"] * 3
        assert len(statuses(store)) == 18
        site.faults.clear()
        site.faults[gone[2]] = "410"
        control = witness(store)
        command = ("retry", "--class", "gone", "--store", store, *COMMON)
        result = run(*command)
        assert "3 videos were retried." in result.stderr
        # The control is asked for if the failure comes before the other two videos.
        assert {one.video_id for one in site.journal[asked:]} - {control} == {*gone}
        after = cli_process.shards(store)
        assert {name: after[name] for name in before} == before
        new = sorted(name for name in after if name not in before and name.endswith(".arrow"))
        added = [row["video_id"] for row in cli_process.rows(store) if row["video_id"] in gone]
        assert sorted(added) == gone[:2]
        assert new
        found = statuses(store)
        assert [found[video] for video in gone] == ["done", "done", "gone"]
        assert [found[video] for video in others] == ["credentials", "geo", "transient"]
        assert len(found) == 18
        asked = site.count()
        # Which of the two that came side by side was written last, the ledger alone knows.
        control = witness(store)
        assert control in gone[:2]
        run("retry", "--class", "gone", "--store", store, *COMMON)
        assert {one.video_id for one in site.journal[asked:]} == {control, gone[2]}
        assert cli_process.shards(store) == after
        assert cli_process.run_inline_json("verify", "--store", store)["problems"] == []
