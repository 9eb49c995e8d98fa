"""Stopped at any moment and run again: the same shards, and nothing finished is fetched twice."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from support import cli_process
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.verdicts import Verdicts

VIDEOS = 48


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with many short videos and their media."""
    return make_corpus(tmp_path_factory.mktemp("many"), video_ids(VIDEOS), per_speaker=12)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of an undisturbed run over it."""
    store = tmp_path_factory.mktemp("whole") / "store"
    with MediaSite(corpus / "media") as site:
        cli_process.run_inline(
            "materialize", "--data-dir", corpus, "--store", store, "--source", site.url_template
        )
    return cli_process.shards(store)


def gets(site: MediaSite) -> int:
    return len(site.requests)


# The moment of a stop is a number of requests and of videos that are finished, not a time: it
# hits the middle of a run on any machine. Two requests bring one video and two videos are in
# flight; no row of runs gets through all 96.
TEN_MOMENTS = [(count, count % 2) for count in random.Random(20260).choices(range(2, 12), k=10)]


@pytest.mark.parametrize(
    ("how", "moments"),
    [
        pytest.param(signal.SIGKILL, [(3, 0), (0, 1), (9, 0)], id="SIGKILL"),
        pytest.param(signal.SIGKILL, TEN_MOMENTS, id="SIGKILL-often", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, [(9, 1)], id="SIGINT"),
        pytest.param(signal.SIGTERM, [(5, 1)], id="SIGTERM"),
    ],
)
def test_stopped_runs_end_in_the_shards_of_an_undisturbed_one(
    how: signal.Signals,
    moments: list[tuple[int, int]],
    corpus: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    with MediaSite(corpus / "media") as site:
        words = (
            *("materialize", "--data-dir", corpus, "--store", store),
            *("--source", site.url_template, "--workers", 2, "--fetches", 2),
        )
        counts = stopped_runs(words, how, moments, site, store)
        cli_process.run_inline(*words)
        assert cli_process.shards(store) == whole
        assert counts, "no run finished a video before it was stopped"
        for video, count in counts.items():
            assert site.count(video) == count, f"{video} was fetched again after it was finished"


def stopped_runs(
    words: tuple[object, ...],
    how: signal.Signals,
    moments: list[tuple[int, int]],
    site: MediaSite,
    store: Path,
) -> dict[str, int]:
    """Start and stop runs; return the videos finished, with their requests at that time."""
    counts_when_finished: dict[str, int] = {}
    for requests, videos in moments:
        goals = gets(site) + requests, len(cli_process.finished_videos(store)) + videos
        process = cli_process.start(*words)
        assert cli_process.wait_for(
            lambda goals=goals: (  # type: ignore[misc]
                gets(site) >= goals[0] and len(cli_process.finished_videos(store)) >= goals[1]
            ),
            process,
        )
        _, err = cli_process.stop(process, how)
        assert process.returncode == (3 if how != signal.SIGKILL else -9), err
        if how != signal.SIGKILL:
            assert "Finished work is kept; run the same command to resume." in err
        for video in cli_process.finished_videos(store):
            counts_when_finished.setdefault(video, site.count(video))
    return counts_when_finished


@pytest.mark.usefixtures("inline_workers")
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

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Verdicts if moment == "record" else Ledger, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            materialize(request, retry=False, wait=False)
    with Ledger(tmp_path / "store" / "ledger.sqlite", "audio") as ledger:
        assert ledger.shards() == []
    assert site.count("demoHarbour") == 3
    materialize(request, retry=False, wait=False)
    assert site.count("demoHarbour") == 3
    assert cli_process.shards(tmp_path / "store") == cli_process.shards(undisturbed)


@pytest.mark.usefixtures("inline_workers")
def test_what_killed_writers_leave_is_cleared(undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    (store / "shards" / "audio" / ".audio-00000.arrow.5_el176r.tmp").write_bytes(b"half")
    (store / "tmp" / "video").write_bytes(b"half")
    request = MaterializeRequest(data_dir="demo", store=str(store))
    materialize(request, retry=True, wait=False)
    assert cli_process.shards(store) == cli_process.shards(undisturbed)
    assert not list((store / "tmp").iterdir())


def test_number_of_workers_and_runs_does_not_change_the_shards(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with MediaSite(corpus / "media") as site:
        request = MaterializeRequest(
            data_dir=str(corpus), store=str(store), source=site.url_template, workers=3
        )
        materialize(request, retry=False, wait=False)
        before = gets(site)
        assert cli_process.shards(store) == whole
        materialize(request, retry=False, wait=False)
        assert gets(site) == before, "a second run without retry asked the site again"
    assert not list(store.glob("parts/audio/*")), "parts are left after sealing"
    assert not list((store / "tmp").iterdir()), "media are left after the run"
