"""Nothing is written before every check has passed, and only what was named is asked for."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import load_dataset
from support import cli_process, plain_corpus
from support.fault_site import FaultSite, dead_proxy
from support.plain_corpus import video_ids

import voxblink2  # noqa: F401  # lets load_dataset know it
from voxblink2_lib.errors import StoppedError

# yt-dlp keeps connections for the life of a worker, and threads here live for one run.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

VIDEOS = video_ids(9)
GONE, GEO, LIMITED, LATER = VIDEOS[0], VIDEOS[1], VIDEOS[2], VIDEOS[3]
FAULTS = {GONE: "404", GEO: "451", LATER: "503"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxblink2_lib.materialize.video_queue._RETRY_SECONDS", 0.01)


@pytest.fixture
def site() -> Iterator[FaultSite]:
    with FaultSite(FAULTS) as running:
        yield running


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return plain_corpus.make_corpus(tmp_path / "release", VIDEOS, per_speaker=3)


def run(*words: object, code: int = 0) -> str:
    return str(cli_process.run_inline(*words, code=code).stderr)


def materialize(release: Path, store: Path, *more: object, code: int = 0) -> str:
    return run("materialize", "--data-dir", release, "--store", store, *more, code=code)


def dump(store: Path) -> str:
    """What the ledger has, but for what the last run was asked for."""
    with sqlite3.connect(f"file:{store / 'ledger.sqlite'}?mode=ro", uri=True) as database:
        return "\n".join(line for line in database.iterdump() if "'audio.request'" not in line)


def statuses(store: Path) -> dict[str, str]:
    with sqlite3.connect(store / "ledger.sqlite") as database:
        return dict(database.execute("select video_id, status from videos"))


@pytest.fixture
def store(release: Path, site: FaultSite, tmp_path: Path) -> Path:
    """A store whose source could not give three videos."""
    folder = tmp_path / "store"
    materialize(release, folder, "--source", site.template())
    assert statuses(folder) == {
        **dict.fromkeys(VIDEOS, "done"),
        **{GONE: "gone", GEO: "geo", LATER: "transient"},
    }
    return folder


def refused(
    store: Path, *words: object, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del capsys
    before = dump(store)
    assert message in run(*words, "--store", store, code=code)
    assert dump(store) == before


# -- Refused commands ------------------------------------------------------------------------------


def closed(site: FaultSite) -> str:
    """Return the same path on a port where nobody listens."""
    return site.template().replace(site.host, dead_proxy().removeprefix("http://"))


def test_a_retry_without_a_network_changes_nothing(store: Path, site: FaultSite) -> None:
    before = dump(store)
    message = run("retry", "--class", "geo", "--store", store, "--source", closed(site), code=3)
    assert "The source does not answer: " in message
    assert "Nothing was changed. Check the network" in message
    assert dump(store) == before


def test_another_source_that_does_not_answer_changes_nothing(
    store: Path, release: Path, site: FaultSite
) -> None:
    before = dump(store)
    materialize(release, store, "--source", closed(site), code=3)
    materialize(release, store, "--source", site.template(), "--proxy", dead_proxy())
    assert dump(store) == before, "nothing is due at this source, so nobody is asked"
    materialize(
        *(release, store, "--source", site.template("good"), "--proxy", dead_proxy()), code=3
    )
    assert dump(store) == before


def test_one_route_that_answers_is_enough(store: Path, release: Path, site: FaultSite) -> None:
    materialize(
        *(release, store, "--source", site.template("good")),
        *("--proxy", dead_proxy(), "--proxy", site.url),
    )
    # This site may be named as a proxy of itself.
    assert statuses(store)[GONE] == "done"


@pytest.mark.parametrize(
    "options",
    [
        ("--yt-dlp", "--exec rm"),
        ("--reasons", "missing.toml"),
        ("--canary", "not an id"),
        ("--audio-format", "wav"),
    ],
    ids=lambda options: options[0],
)
def test_a_refused_option_changes_nothing(
    options: tuple[str, str], store: Path, release: Path, site: FaultSite
) -> None:
    before = dump(store)
    materialize(release, store, "--source", site.template("good"), *options, code=2)
    assert dump(store) == before


def test_a_wider_selection_is_not_planned_before_its_source_answers(
    release: Path, site: FaultSite, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    materialize(release, store, "--source", site.template(), "--max-speakers", 1)
    before = dump(store)
    materialize(release, store, "--source", closed(site), code=3)
    assert dump(store) == before
    options = {"data_dir": str(release), "store": str(store), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(StoppedError, match="Nothing was changed"):
        load_dataset("voxblink2", "audio", split="train", source=closed(site), **options)
    assert dump(store) == before
    with pytest.raises(StoppedError, match="Nothing was changed"):
        load_dataset(
            *("voxblink2", "audio"),
            split="train",
            source=closed(site),
            speakers=["id000001"],
            **options,
        )
    assert dump(store) == before


@pytest.mark.parametrize("command", ["materialize", "retry"])
def test_a_full_disk_changes_nothing(
    command: str, release: Path, site: FaultSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    materialize(release, store, "--source", site.template(), "--max-speakers", 1)
    before = dump(store)
    usage = shutil.disk_usage(store)._replace(free=1000)
    monkeypatch.setattr("voxblink2_lib.materialize.source_check.shutil.disk_usage", lambda _: usage)
    if command == "retry":
        message = run("retry", "--class", "gone", "--store", store, code=3)
    else:
        message = materialize(release, store, "--source", site.template(), code=3)
    assert "1,000 bytes are free. Nothing was changed: free some space" in message
    assert dump(store) == before


@pytest.mark.parametrize("words", [("--class", "gone"), ("--since", "2020-01-01")])
def test_a_retry_of_clips_of_another_format_changes_nothing(
    words: tuple[str, str], store: Path, site: FaultSite
) -> None:
    with sqlite3.connect(store / "ledger.sqlite") as database:
        database.execute("update facts set value = '1' where name = 'audio.clip_format'")
    before, asked = dump(store), len(site.journal)
    assert "holds clips of format 1" in run("retry", *words, "--store", store, code=2)
    assert dump(store) == before
    assert len(site.journal) == asked


def test_a_folder_without_any_of_the_videos_changes_nothing(
    store: Path, release: Path, tmp_path: Path
) -> None:
    before = dump(store)
    wrong = tmp_path / "wrong"
    (wrong / "id000077").mkdir(parents=True)
    (wrong / "id000077" / "video000077.wav").write_bytes(plain_corpus.wav())
    assert str(wrong) in materialize(release, store, "--source", wrong, code=2)
    assert dump(store) == before
    # One that has any of them is right, whatever it lacks.
    right = tmp_path / "right" / "id000000"
    right.mkdir(parents=True)
    (right / f"{GONE}.wav").write_bytes(plain_corpus.wav())
    materialize(release, store, "--source", right.parent)
    assert statuses(store)[GONE] == "done"
    assert (statuses(store)[GEO], statuses(store)[LATER]) == ("geo", "transient")


# -- What a retry asks for -------------------------------------------------------------------------


def test_a_retry_asks_for_what_it_names_and_nothing_else(
    release: Path, site: FaultSite, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    materialize(release, store, "--source", site.template(), "--max-speakers", 1)
    # The rest of the release is planned, and not begun.
    site.refused.add("direct")
    materialize(
        *(release, store, "--source", site.template(), "--reasons", reasons(tmp_path)), code=4
    )
    site.refused.clear()
    planned = {video for video, status in statuses(store).items() if status != "done"}
    assert planned > {GONE, GEO}
    asked = len(site.journal)
    assert "1 video was retried." in run("retry", "--class", "geo", "--store", store)
    # And whether the site answers, and whether a video that came before still comes.
    videos = [request.video_id for request in site.journal[asked:]]
    assert set(videos) - {"good"} <= {GEO, *set(VIDEOS[:3])}
    assert GONE not in videos
    # All else goes on afterwards.
    materialize(release, store, "--source", site.template())
    assert set(statuses(store).values()) == {"done", "gone", "geo", "transient"}


def reasons(tmp_path: Path) -> Path:
    from support.fault_site import REASONS

    path = tmp_path / "reasons.toml"
    path.write_text(REASONS)
    return path


def test_a_retry_keeps_class_and_words_until_there_is_another_answer(
    store: Path, site: FaultSite
) -> None:
    seen: list[dict[str, str]] = []
    site.before = lambda _: seen.append(statuses(store))
    run("retry", "--class", "geo", "--class", "gone", "--store", store)
    assert seen
    assert all(row[GEO] == "geo" and row[GONE] == "gone" for row in seen)


def test_a_retry_that_is_due_by_itself_counts_the_tries_before(
    release: Path, store: Path, site: FaultSite
) -> None:
    """What fails for ever is given up in the end."""

    def tries() -> list[tuple[int]]:
        with sqlite3.connect(store / "ledger.sqlite") as database:
            rows = database.execute("select tries from verdicts where status = 'transient'")
            return rows.fetchall()

    for expected in (2, 3):
        with sqlite3.connect(store / "ledger.sqlite") as database:
            database.execute("update verdicts set next_at = 1 where status = 'transient'")
        materialize(release, store, "--source", site.template())
        assert tries() == [(expected,)]
    run("retry", "--class", "transient", "--store", store)
    assert tries() == [(1,)]


def test_a_bad_day_is_taken_back(store: Path, site: FaultSite, tmp_path: Path) -> None:
    site.faults.clear()
    assert "0 videos were retried" in run("retry", "--since", "2999-01-01", "--store", store)
    assert "3 videos were retried" in run("retry", "--since", "2020-01-01", "--store", store)
    assert set(statuses(store).values()) == {"done"}
    message = run("retry", "--since", "yesterday", "--store", tmp_path, code=2)
    assert "must be a date such as 2026-11-20" in message
    assert "needs --class CLASS" in run("retry", "--store", store, code=2)


# -- Sources by turns ------------------------------------------------------------------------------


def test_sources_by_turns_are_asked_once_each(release: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    lacking = dict.fromkeys(VIDEOS[:6], "404")
    with FaultSite(lacking) as one, FaultSite(dict.fromkeys(VIDEOS[3:], "404")) as two:
        for site in (one, two, one, two, one):
            materialize(release, store, "--source", site.template())
        asked = {
            name: [request.video_id for request in site.firsts()]
            for name, site in (("one", one), ("two", two))
        }
    assert statuses(store) == {
        video: "gone" if number in {3, 4, 5} else "done" for number, video in enumerate(VIDEOS)
    }
    assert sorted(asked["one"]) == VIDEOS
    assert sorted(asked["two"]) == VIDEOS[:6]


# -- A known video for control ---------------------------------------------------------------------


def test_the_first_final_verdict_of_a_run_waits_for_a_video_that_is_known(
    release: Path, site: FaultSite, tmp_path: Path
) -> None:
    """A site that has lost everything says 404 of all, which are clear words of each."""
    store = tmp_path / "store"
    materialize(release, store, "--source", site.template(), "--max-speakers", 1)
    before = statuses(store)
    came = {video for video, status in before.items() if status == "done"}
    assert came
    site.faults = dict.fromkeys(VIDEOS, "404")
    message = materialize(release, store, "--source", site.template(), code=4)
    assert "6 videos in a row failed alike" in message
    assert "HTTP Error 404: Not Found" in message
    assert "No route brings videos any more." in message
    after = statuses(store)
    assert {video: after[video] for video in before} == before
    assert {status for video, status in after.items() if video not in before} == {"planned"}
    # One that came before comes again, so the others are gone indeed.
    site.faults = {video: "404" for video in VIDEOS if video not in came}
    materialize(release, store, "--source", site.template())
    assert {status for video, status in statuses(store).items() if video not in before} == {"gone"}
