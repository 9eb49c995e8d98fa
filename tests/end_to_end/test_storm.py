"""Fetching from sites that fail, limit, refuse and hang, through processes that are killed."""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from support import cli_process, fault_site, plain_corpus
from support.fault_site import FOR_GOOD, MANNERS, REASONS, StormySite
from support.inline_pool import ThreadPool
from support.plain_corpus import video_ids

from voxblink2_lib.sources.rate_limits import RateLimiter

# yt-dlp keeps connections for the life of a worker, and threads here live for one run.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

FETCHES = 8
# Storms are about fetching; one process that cuts spares the start of another.
COMMON = ("--workers", 1, "--fetches", FETCHES)


def words(release: Path, store: Path, site: StormySite, *more: object) -> tuple[object, ...]:
    named = ("--data-dir", release, "--store", store, "--source", site.template)
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
    return cli_process.finished_videos(store) | waiting | settled(store, *FOR_GOOD)


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

# What takes long or stops all others for a second is rare.
RARE = ("hang", "hang-once", "429-once", "redirect-loop")
SHORT = ("--yt-dlp=--socket-timeout 1",)
STORMS = [pytest.param(8, 120), pytest.param(30, 300, marks=pytest.mark.slow)]


def storm(count: int) -> dict[str, str]:
    """Give 3 of 10 videos a fault, of all kinds, anywhere."""
    videos = video_ids(count)
    chooser = random.Random(20262)
    faulty = chooser.sample(videos, count * 3 // 10)
    often = [name for name in MANNERS if name not in {*RARE, "good", "429"}]
    kinds = [*RARE, *RARE, *(often[number % len(often)] for number in range(len(faulty)))]
    return {**dict.fromkeys(videos, "good"), **dict(zip(faulty, kinds, strict=False))}


def expected(manners: dict[str, str]) -> dict[str, str]:
    return {video: MANNERS[manner] for video, manner in manners.items()}


def moments(kills: int) -> list[tuple[int, int]]:
    """Return after how many requests, and how many videos that are done, each run is killed.

    A storm of 300 takes about 700 requests. On a slow machine a few requests bring no video.
    """
    requests = random.Random(20261).choices(range(4, 32), k=kills)
    return [(count, 4 if number % 3 == 0 else 0) for number, count in enumerate(requests)]


def calm_shards(release: Path, folder: Path, manners: dict[str, str]) -> dict[str, bytes]:
    """Return the shards of a run that nobody stops."""
    with StormySite(manners) as site, pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        run(*words(release, folder / "store", site, *SHORT))
    assert statuses(folder / "store") == expected(manners)
    return cli_process.shards(folder / "store")


@pytest.mark.parametrize(("kills", "count"), STORMS)
def test_kills_in_a_storm(kills: int, count: int, tmp_path: Path) -> None:
    manners, store = storm(count), tmp_path / "store"
    release = plain_corpus.make_release(tmp_path / "release", video_ids(count))
    calm = calm_shards(release, tmp_path / "calm", manners)
    with StormySite(manners) as site:
        command = words(release, store, site, *SHORT)
        kept_counts = killed_runs(moments(kills), command, site, store)
        assert count // 10 < len(kept_counts) < count
        run(*command)
        assert statuses(store) == expected(manners)
        for video, requests in kept_counts.items():
            assert site.count(video) == requests, f"{video} was settled and is requested again"
        assert cli_process.shards(store) == calm
        assert cli_process.run_inline_json("verify", "--store", store)["problems"] == []
        assert not list(store.glob("media/*/*")), "media are left"
        assert not list(store.glob("parts/audio/*")), "parts are left"
        requests_before = site.count()
        run(*command)
        again = {request.video_id for request in site.journal[requests_before:]}
    # What is limited by nothing but the lack of a log-in is tried by each run.
    credentials = {video for video, status in expected(manners).items() if status == "credentials"}
    assert again == credentials
    assert cli_process.shards(store) == calm


def killed_runs(
    moments: Sequence[tuple[int, int]],
    command: Sequence[object],
    site: StormySite,
    store: Path,
) -> dict[str, int]:
    """Start and kill runs; return the videos that were kept, with their requests at that time."""
    good = {video for video, manner in site.manners.items() if manner == "good"}
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
        firsts = [request for request in site.firsts() if request.video_id == video]
        assert len(firsts) <= 1 + lost[video]
    return kept_counts


@pytest.mark.parametrize(("kills", "count"), STORMS)
def test_every_manner_is_in_the_storm(kills: int, count: int) -> None:
    assert {*storm(count).values()} == {*MANNERS} - {"429"}


@pytest.mark.parametrize("manner", ["401", "429"])
def test_a_run_ends_although_one_video_is_refused_for_ever(
    manner: str, small: Path, tmp_path: Path
) -> None:
    bad = video_ids(24)[3]
    refusing = StormySite({bad: manner})

    def give_in(request: fault_site.Asked) -> None:
        if refusing.count(bad) > 40:  # otherwise a wrong run would never end
            refusing.manners.clear()

    refusing.before = give_in
    with refusing:
        run(*words(small, tmp_path / "store", refusing))
    assert statuses(tmp_path / "store") == {
        **dict.fromkeys(video_ids(24), "done"),
        bad: MANNERS[manner],
    }


@pytest.mark.parametrize("count", [1, 24], ids=["one", "all"])
def test_videos_that_hang_do_not_hold_up_the_end(count: int, small: Path, tmp_path: Path) -> None:
    """Fewer and more of them than make an address count as silent, be nothing else there or not."""
    hanging = video_ids(24)[:count]
    with StormySite(dict.fromkeys(hanging, "hang")) as site:
        command = words(small, tmp_path / "store", site, *SHORT)
        err = run(*command, code=2 if count == 24 else 0).stderr
    assert "The source does not answer" not in err
    found = statuses(tmp_path / "store")
    assert found == dict.fromkeys(video_ids(24), "done") | dict.fromkeys(hanging, "transient")


# -- refused addresses ------------------------------------------------------------------------


@pytest.fixture
def reasons(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "reasons.toml"
    path.write_text(REASONS)
    return "--reasons", path


@pytest.fixture
def site() -> Iterator[StormySite]:
    with StormySite() as running:
        yield running


@pytest.fixture
def two_ways(site: StormySite) -> Iterator[tuple[object, ...]]:
    """Two proxies that the site can tell apart, as arguments."""
    with fault_site.proxy(site, "one") as one, fault_site.proxy(site, "two") as two:
        yield "--proxy", one, "--proxy", two


def test_a_refused_address_stops_and_the_other_goes_on(
    site: StormySite,
    two_ways: Sequence[object],
    reasons: Sequence[object],
    small: Path,
    tmp_path: Path,
) -> None:
    refused_from = 5

    def refuse_later(one: fault_site.Asked) -> None:
        if len(via("one", site)) >= refused_from:
            site.refused.add("one")

    site.before = refuse_later
    err = run(*words(small, tmp_path / "store", site, *two_ways, *reasons)).stderr
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    # Those in flight when the first of them is refused.
    assert refused_from <= len(via("one", site)) < refused_from + FETCHES
    assert len(via("two", site)) >= 24
    assert re.search(r"127\.0\.0\.1:\d+: closed \(.*HTTP Error 418", err)


def via(name: str, site: StormySite) -> list[fault_site.Asked]:
    return [one for one in site.journal if one.via == name]


def test_all_addresses_refused_and_let_go_again(
    site: StormySite,
    two_ways: Sequence[object],
    reasons: Sequence[object],
    small: Path,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    command = words(small, store, site, *two_ways, *reasons)

    def refuse_later(one: fault_site.Asked) -> None:
        if site.count() > 12:
            site.refused |= {"one", "two"}

    site.before = refuse_later
    err = run(*command, code=4).stderr
    assert "The source refuses every route that was used" in err
    assert "HTTP Error 418" in err
    assert "nothing finished is lost. Wait some hours, or give other routes with --proxy" in err
    videos = cli_process.run_inline_json("status", "--store", store)["videos"]
    assert videos["blocked"] >= 1
    assert sum(videos.values()) == 24
    assert site.count() <= 12 + 2 * FETCHES
    done = kept(store)
    counts = {video: site.count(video) for video in done}
    site.before = lambda _: None
    site.refused.clear()
    run(*command)
    assert cli_process.run_inline_json("status", "--store", store)["videos"] == {"done": 24}
    assert {video: site.count(video) for video in done} == counts


def test_blocked_without_more_words_closes_the_address_too(
    site: StormySite, small: Path, tmp_path: Path
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
    site: StormySite, small: Path, tmp_path: Path
) -> None:
    with fault_site.proxy(site, "one") as one:
        ways = ("--proxy", fault_site.dead_proxy(), "--proxy", one)
        err = run(*words(small, tmp_path / "store", site, *ways)).stderr
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    assert {asked.via for asked in site.journal} == {"one"}
    assert len(site.firsts()) == 24
    assert ": closed (" in err


def test_dead_proxies_alone_stop_the_run(site: StormySite, small: Path, tmp_path: Path) -> None:
    ways = ("--proxy", fault_site.dead_proxy(), "--proxy", fault_site.dead_proxy())
    err = run(*words(small, tmp_path / "store", site, *ways), code=3).stderr
    assert "The source does not answer" in err
    assert "24 videos are left and nothing finished is lost. Check the network" in err
    assert site.journal == []
    assert {*statuses(tmp_path / "store").values()} == {"planned"}
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


def assert_turns_are_the_truth(home: Path, site: StormySite, *, spacing_seconds: float) -> None:
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
    site: StormySite, small: Path, home: Path, tmp_path: Path
) -> None:
    run(*words(small, tmp_path / "store", site, "--budget", 18_000))
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    assert_turns_are_the_truth(home, site, spacing_seconds=0.2)


def test_two_runs_at_once_share_one_budget(
    site: StormySite, small: Path, home: Path, tmp_path: Path
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
    site: StormySite, small: Path, home: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = words(small, store, site)
    limiter = RateLimiter(home / "addresses.sqlite")
    key = f"{site.host} direct"

    def limit_later(one: fault_site.Asked) -> None:
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
    site: StormySite, small: Path, tmp_path: Path
) -> None:
    limited = FETCHES + 3

    def limit_first(one: fault_site.Asked) -> None:
        site.limited = "1" if site.count() <= limited else None

    site.before = limit_first
    run(*words(small, tmp_path / "store", site))
    assert {*statuses(tmp_path / "store").values()} == {"done"}
    first, *later = site.journal[FETCHES - 1 : limited + 1]
    for before, after in pairwise([first, *later]):
        assert after.at - before.at >= 1, "another video was asked for while the address rested"


def test_a_video_that_is_asked_to_wait_for_waits_alone(small: Path, tmp_path: Path) -> None:
    soon, late = video_ids(24)[3], video_ids(24)[4]
    with StormySite({soon: "503 5-once", late: "503 3600-once"}) as site:
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


def test_retry_asks_for_the_videos_of_a_class_and_for_no_other(small: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    videos = video_ids(24)
    gone, others = videos[4:7], {videos[8]: "401", videos[9]: "451", videos[10]: "403"}
    manners = {**dict.fromkeys(gone, "404"), **others}
    with StormySite(manners) as site:
        run(*words(small, store, site, "--max-speakers", 3))
        before, asked = cli_process.shards(store), site.count()
        assert [statuses(store)[video] for video in gone] == ["gone"] * 3
        assert len(statuses(store)) == 18
        site.manners.clear()
        site.manners[gone[2]] = "410"
        command = ("retry", "--class", "gone", "--store", store, *COMMON)
        result = run(*command)
        assert "3 videos were retried." in result.stderr
        assert {one.video_id for one in site.journal[asked:]} == {*gone}
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
        run("retry", "--class", "gone", "--store", store, *COMMON)
        assert {one.video_id for one in site.journal[asked:]} == {gone[2]}
        assert cli_process.shards(store) == after
        assert cli_process.run_inline_json("verify", "--store", store)["problems"] == []
