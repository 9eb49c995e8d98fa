"""Processes that crop are killed, abort, hang and run out of memory; the corpus does not suffer."""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import cli_process, dying_croppers
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.status import missing_videos, read_status
from voxblink2_lib.workers.pool import WorkerPool

VIDEOS = 60
WORKERS = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with many short videos and their media."""
    return make_corpus(tmp_path_factory.mktemp("many"), video_ids(VIDEOS), per_speaker=12)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with some."""
    return make_corpus(tmp_path_factory.mktemp("few"), video_ids(8), per_speaker=4)


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where tests write down which videos kill their process, and how."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    monkeypatch.setenv(dying_croppers.DEATHS, str(folder))
    monkeypatch.setattr("voxblink2_lib.materialize.croppers.run_video", dying_croppers.crop_or_die)
    return folder


def write_deaths(folder: Path, deaths: Mapping[str, str]) -> None:
    for video, words in deaths.items():
        (folder / video).write_text(words)


def run(corpus: Path, store: Path) -> Store:
    request = MaterializeRequest(
        data_dir=str(corpus), store=str(store), source=str(corpus / "media"), workers=WORKERS
    )
    return materialize(request, retry=False, wait=False)


def undisturbed(corpus: Path, store: Path) -> dict[str, bytes]:
    """The shards of a run of which nothing dies."""
    cli_process.run_inline(
        *("materialize", "--data-dir", corpus, "--store", store),
        *("--source", corpus / "media", "--workers", WORKERS),
    )
    return cli_process.shards(store)


def tries(folder: Path) -> list[str]:
    """Return the videos that were tried alone; nothing may have run beside them."""
    running: set[str] = set()
    alone: list[str] = []
    for line in (folder / "log").read_text().splitlines():
        what, video, *mode = line.split()
        if what == "end":
            running.remove(video)
            continue
        assert not set(alone) & running, f"{video} was begun beside {running}"
        if mode:
            assert not running, f"{video} was not alone, but beside {running}"
            alone.append(video)
        running.add(video)
    return alone


def check_all_done(corpus: Path, folder: Path, store: Path, deaths: dict[str, str]) -> None:
    write_deaths(folder, deaths)
    run(corpus, store / "disturbed")
    assert cli_process.shards(store / "disturbed") == undisturbed(corpus, store / "whole")
    # Those that had written their clips are not tried again.
    assert sorted(tries(folder)) == [video for video, word in deaths.items() if word != "after"]
    assert not list((store / "disturbed").glob("parts/audio/*"))


def test_processes_are_killed_and_every_video_is_done(
    few: Path, deaths: Path, tmp_path: Path
) -> None:
    videos = video_ids(8)
    words = {videos[0]: "kill", videos[2]: "after", videos[3]: "memory", videos[7]: "kill"}
    check_all_done(few, deaths, tmp_path, words)


@pytest.mark.slow
def test_twenty_processes_are_killed_over_sixty_videos(
    corpus: Path, deaths: Path, tmp_path: Path
) -> None:
    words = {
        video: ("kill", "after")[number % 2] for number, video in enumerate(video_ids(60)[::3])
    }
    assert len(words) == 20
    check_all_done(corpus, deaths, tmp_path, words)


def test_a_video_whose_decoder_aborts_is_unusable_after_two_tries_of_which_one_is_alone(
    few: Path, deaths: Path, tmp_path: Path
) -> None:
    poisonous, killing = video_ids(8)[3], video_ids(8)[5]
    write_deaths(deaths, {poisonous: "abort abort abort", killing: "kill kill kill"})
    store = run(few, tmp_path / "store")
    assert sorted(tries(deaths)) == [poisonous, killing]
    # One death of each was not needed.
    assert (deaths / poisonous).read_text() == "abort"
    assert (deaths / killing).read_text() == "kill"
    assert read_status(store, "audio").videos == {"done": 6, "media-unusable": 1, "transient": 1}
    reasons = {video.video_id: video.reason for video in missing_videos(store, "audio")}
    alone = "twice, the second time while nothing else was cropped"
    assert reasons[poisonous] == f"the worker process died of SIGABRT {alone}"
    assert reasons[killing].startswith(f"the worker process died of SIGKILL {alone}. The ")


def test_a_video_that_hangs_is_unusable_after_two_deadlines_and_no_other_suffers(
    few: Path,
    deaths: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hanging = video_ids(8)[2]
    write_deaths(deaths, {hanging: "hang hang"})

    def clock() -> float:
        """A day later for each call that hangs."""
        return time.monotonic() + 86_400 * len(list(deaths.glob("hangs-*")))

    pool = functools.partial(WorkerPool, clock=clock)
    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", pool)
    monkeypatch.setattr("voxblink2_lib.materialize.run_screens.LogScreen.SECONDS", 0.0)
    monkeypatch.delitem(sys.modules, "datasets.utils", raising=False)  # its bars may be off
    store = run(few, tmp_path / "store")
    view = capsys.readouterr().err
    assert re.search(rf"; worker \d on id000000/{hanging} for 144\d minutes", view)
    assert read_status(store, "audio").videos == {"done": 7, "media-unusable": 1}
    (missing,) = missing_videos(store, "audio")
    assert missing.video_id == hanging
    assert missing.reason == (
        "the worker process had not finished after 1 d 0 h and was killed twice, the second time "
        "while nothing else was cropped"
    )
