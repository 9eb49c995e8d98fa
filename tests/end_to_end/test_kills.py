"""Stopped at any moment and run again: the same shards, and nothing finished is fetched twice."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from support import cli_process

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.store.ledger import Ledger

VIDEOS = 48


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with many short videos and their media, all with the same sound."""
    folder = tmp_path_factory.mktemp("many")
    media = next(MEDIA.rglob("demoLibrary.*"))
    for number in range(VIDEOS):
        speaker, video = f"id99{number % 4:04}", f"many-video{number:02}"[-11:]
        meta = folder / "meta" / speaker / video
        meta.mkdir(parents=True)
        rows = "".join(f"{frame} 1 1 9 9\n" for frame in range(number, number + 50))
        (meta / "00001.txt").write_text("FRAME X Y W H\n" + rows)
        (folder / "media" / speaker).mkdir(parents=True, exist_ok=True)
        (folder / "media" / speaker / f"{video}{media.suffix}").hardlink_to(media)
    return folder


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of an undisturbed run over it."""
    store = tmp_path_factory.mktemp("whole") / "store"
    with MediaSite(corpus / "media") as site:
        cli_process.run(
            "materialize", "--data-dir", corpus, "--store", store, "--source", site.url_template
        )
    return cli_process.shards(store)


def gets(site: MediaSite) -> int:
    return len(site.requests)


# The moment of a stop is a number of requests, not a time: it hits the middle of a run on any
# machine. Three requests bring one video and two videos are in flight, so that a run of 7 has
# fetched one; ten runs of 2 to 13 requests do not get through all 144.
TEN_MOMENTS = random.Random(20260).choices(range(2, 14), k=10)


@pytest.mark.parametrize(
    ("how", "moments"),
    [(signal.SIGKILL, TEN_MOMENTS), (signal.SIGINT, [15, 9]), (signal.SIGTERM, [9, 15])],
)
def test_stopped_runs_end_in_the_shards_of_an_undisturbed_one(
    how: signal.Signals, moments: list[int], corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with MediaSite(corpus / "media") as site:
        words = (
            *("materialize", "--data-dir", corpus, "--store", store),
            *("--source", site.url_template, "--workers", 2, "--fetches", 2),
        )
        counts = stopped_runs(words, how, moments, site, store)
        cli_process.run(*words)
        assert cli_process.shards(store) == whole
        assert counts, "no run finished a video before it was stopped"
        for video, count in counts.items():
            assert site.count(video) == count, f"{video} was fetched again after it was finished"


def stopped_runs(
    words: tuple[object, ...],
    how: signal.Signals,
    moments: list[int],
    site: MediaSite,
    store: Path,
) -> dict[str, int]:
    """Start and stop runs; return the videos finished, with their requests at that time."""
    counts_when_finished: dict[str, int] = {}
    for moment in moments:
        goal = gets(site) + moment
        process = cli_process.start(*words)
        assert cli_process.wait_for(lambda goal=goal: gets(site) >= goal, process)  # type: ignore[misc]
        _, err = cli_process.stop(process, how)
        assert process.returncode == (3 if how != signal.SIGKILL else -9), err
        if how != signal.SIGKILL:
            assert "Finished work is kept; run the same command to resume." in err
        for video in cli_process.finished_videos(store):
            counts_when_finished.setdefault(video, site.count(video))
    return counts_when_finished


@pytest.mark.parametrize("moment", ["record", "seal"])
def test_killed_between_a_file_and_its_ledger_row(
    moment: str, undisturbed: Path, tmp_path: Path, site: MediaSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are ahead of the ledger by one step; the next run finds them."""
    request = MaterializeRequest(
        data_dir="demo",
        store=str(tmp_path / "store"),
        source=site.url_template,
        workers=1,
        fetch=FetchOptions(fetches=1),
    )

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            materialize(request, retry=False, wait=False)
    with Ledger(tmp_path / "store" / "ledger.sqlite", "audio") as ledger:
        assert ledger.shards() == []
    assert site.count("demoHarbour") == 3
    materialize(request, retry=False, wait=False)
    assert site.count("demoHarbour") == 3
    assert cli_process.shards(tmp_path / "store") == cli_process.shards(undisturbed)


def test_what_killed_writers_leave_is_cleared(undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    (store / "shards" / "audio" / ".audio-00000.arrow.5_el176r.tmp").write_bytes(b"half")
    (store / "tmp" / "video").write_bytes(b"half")
    request = MaterializeRequest(data_dir="demo", store=str(store))
    materialize(request, retry=False, wait=False)
    assert cli_process.shards(store) == cli_process.shards(undisturbed)
    assert not list((store / "tmp").iterdir())


def test_number_of_workers_and_runs_does_not_change_the_shards(
    undisturbed: Path, tmp_path: Path, site: MediaSite
) -> None:
    store = tmp_path / "store"
    request = MaterializeRequest(
        data_dir="demo", store=str(store), source=site.url_template, workers=3
    )
    materialize(request, retry=False, wait=False)
    before = len(site.requests)
    assert cli_process.shards(store) == cli_process.shards(undisturbed)
    materialize(request, retry=False, wait=False)
    assert len(site.requests) == before, "a second run without retry asked the site again"
    assert not list(store.glob("parts/audio/*")), "parts are left after sealing"
    assert not list((store / "tmp").iterdir()), "media are left after the run"
