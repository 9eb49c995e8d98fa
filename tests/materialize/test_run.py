"""What goes wrong around a run, and what the run makes of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from support import cli_process
from support.plain_corpus import make_corpus, video_ids
from support.worker_calls import die, die_on_task, double, leave, raise_unportable

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import (
    SelectionError,
    SourceError,
    StoppedError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreMismatchError,
)
from voxblink2_lib.materialize.planning import PlanDiff, diff_plan
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import index_release, materialize, retry_videos
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.outcomes import RUN_TRIES
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.status import missing_videos, open_ledger, read_status
from voxblink2_lib.store.tail import FIRST_RETRY_JOB
from voxblink2_lib.workers.pool import WorkerDiedError, WorkerPool

# Whoever wants workers of its own says so.
pytestmark = pytest.mark.usefixtures("inline_workers")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxblink2_lib.materialize.video_queue._RETRY_SECONDS", 0.01)


def request(tmp_path: Path, **options: object) -> MaterializeRequest:
    defaults: dict[str, object] = {"data_dir": "demo", "store": str(tmp_path / "store")}
    return MaterializeRequest(**{**defaults, "workers": 1, **options})  # type: ignore[arg-type]


def go(config: MaterializeRequest, *, retry: bool = True) -> Store:
    return materialize(config, retry=retry, wait=False)


def test_videos_that_come_back_go_into_new_shards(tmp_path: Path, site: MediaSite) -> None:
    selection = Selection.of(speakers=["id990001"])
    first = "demoHarbour"
    with MediaSite(MEDIA, faults={first: 503}) as broken:
        store = go(request(tmp_path, selection=selection, source=broken.url_template))
        (missing,) = missing_videos(store, "audio")
        assert (missing.video_id, missing.status) == (first, "transient")
        assert (missing.attempts, broken.count(first)) == (RUN_TRIES, RUN_TRIES)
        assert "HTTP Error 503" in missing.reason
    before = cli_process.shards(store.root)
    go(request(tmp_path, selection=selection, source=site.url_template), retry=False)
    assert cli_process.shards(store.root) == before
    go(request(tmp_path, selection=selection, source=site.url_template))
    after = cli_process.shards(store.root)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"audio-00002.arrow", "audio-00002.arrow.sha256"}
    assert not missing_videos(store, "audio")
    assert read_status(store, "audio").speakers.complete == 1


def test_a_selection_may_grow_and_a_smaller_one_changes_nothing(tmp_path: Path) -> None:
    one = Selection.of(max_speakers=1)
    two = Selection.of(max_speakers=2)
    store = go(request(tmp_path, selection=one))
    before = cli_process.shards(store.root)
    go(request(tmp_path, selection=two))
    after = cli_process.shards(store.root)
    assert {name: after[name] for name in before} == before
    assert read_status(store, "audio").videos == {"done": 4}
    go(request(tmp_path, selection=one))
    assert cli_process.shards(store.root) == after
    assert read_status(store, "audio").videos == {"done": 4}


def test_what_failed_outside_a_smaller_selection_is_known_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {HARBOUR: 503, GARDEN: 404}
    two = Selection.of(max_speakers=2)
    with MediaSite(MEDIA, faults=faults) as broken:
        store = go(request(tmp_path, selection=two, source=broken.url_template))
        before = read_status(store, "audio").videos
        asked = len(broken.requests)
        monkeypatch.setattr("voxblink2_lib.store.verdicts.time", Later(1.25 * 900))
        other = Selection.of(speakers=["id990002"])
        for _ in range(2):
            go(request(tmp_path, selection=other, source=broken.url_template))
        assert len(broken.requests) == asked
        assert read_status(store, "audio").videos == before
        go(request(tmp_path, selection=two, source=broken.url_template))
        assert (broken.count(HARBOUR), broken.count(GARDEN)) == (2 * RUN_TRIES, 1)


def test_a_smaller_selection_leaves_out_what_was_only_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Scheduler, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            go(request(tmp_path, selection=Selection.of(max_speakers=2)))
    with MediaSite(MEDIA) as site:
        config = request(tmp_path, selection=ONE_SPEAKER, source=site.url_template)
        store = go(config, retry=False)
        assert read_status(store, "audio").videos == {"done": 2}
        assert (site.count("demoChess_1"), site.count(HARBOUR) > 0) == (0, True)


class Later:
    """Stands for the module ``time`` in the ledger: so much later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def time(self) -> float:
        return time.time() + self._seconds


ONE_SPEAKER = Selection.of(speakers=["id990001"])
HARBOUR, GARDEN = "demoHarbour", "demo_Garden"


def statuses(store: Store) -> dict[str, str]:
    with open_ledger(store, "audio") as ledger:
        retries = range(FIRST_RETRY_JOB, FIRST_RETRY_JOB + 99)
        jobs = [ledger.job_videos(job) for job in (*range(99), *retries)]
    return {key.video_id: status for videos in jobs for key, status in videos}


def test_what_is_final_is_not_asked_for_by_the_next_run(tmp_path: Path) -> None:
    faults = {HARBOUR: 404, GARDEN: 503}
    with MediaSite(MEDIA, faults=faults) as broken:
        config = request(tmp_path, selection=ONE_SPEAKER, source=broken.url_template)
        store = go(config)
        assert statuses(store) == {HARBOUR: "gone", GARDEN: "transient"}
        asked = len(broken.requests)
        assert asked == 1 + 1 + RUN_TRIES, "whether the site answers, then the videos"
        go(config)
        assert len(broken.requests) == asked, "a final one, or one whose time has not come"


def test_what_is_due_goes_into_new_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MediaSite(MEDIA, faults={HARBOUR: 503, GARDEN: 404}) as broken:
        config = request(tmp_path, selection=ONE_SPEAKER, source=broken.url_template)
        store = go(config)
        monkeypatch.setattr("voxblink2_lib.store.verdicts.time", Later(1.25 * 900))
        go(config, retry=False)
        assert broken.count(HARBOUR) == RUN_TRIES
        go(config)
        assert (broken.count(HARBOUR), broken.count(GARDEN)) == (2 * RUN_TRIES, 1)
    with Ledger(store.ledger, "audio") as ledger:
        assert [ledger.job_videos(job) for job in (0, 1, FIRST_RETRY_JOB)] == [
            *([], [(VideoKey("id990001", GARDEN), "gone")]),
            [(VideoKey("id990001", HARBOUR), "transient")],
        ]
        assert ledger.open_jobs() == []


@pytest.mark.parametrize(("status", "found"), [(401, "credentials"), (429, "rate-limited")])
def test_a_run_ends_although_a_video_may_be_asked_for_at_once(
    status: int, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no fault of a video is for the next run; this one must not go round for ever."""
    # A limit that is about one video alone: the address goes on with others.
    monkeypatch.setattr(RateLimiter, "pause", lambda *_, **__: None)
    with MediaSite(MEDIA, faults={HARBOUR: status}) as broken:
        config = request(tmp_path, selection=ONE_SPEAKER, source=broken.url_template)
        store = go(config)
        assert statuses(store) == {HARBOUR: found, GARDEN: "done"}
        tries = 1 if status == 401 else RUN_TRIES
        assert broken.count(HARBOUR) == tries
        go(config)
        assert broken.count(HARBOUR) == 2 * tries, "the next run asks for it again"


def test_another_source_is_asked_for_what_the_first_one_lacks(tmp_path: Path) -> None:
    faults = {HARBOUR: 404, GARDEN: 451}
    with MediaSite(MEDIA, faults=faults) as one, MediaSite(MEDIA, faults={GARDEN: 404}) as other:
        store = go(request(tmp_path, selection=ONE_SPEAKER, source=one.url_template))
        assert statuses(store) == {HARBOUR: "gone", GARDEN: "geo"}
        go(request(tmp_path, selection=ONE_SPEAKER, source=other.url_template))
        # What the other source says is no better, so users see the first one's answer.
        assert statuses(store) == {HARBOUR: "done", GARDEN: "geo"}
        go(request(tmp_path, selection=ONE_SPEAKER, source=other.url_template))
        assert (one.count(GARDEN), other.count(GARDEN)) == (1, 1)
        asked = other.count(HARBOUR)
    go(request(tmp_path, selection=ONE_SPEAKER))
    assert statuses(store) == {HARBOUR: "done", GARDEN: "done"}
    assert other.count(HARBOUR) == asked


def test_a_folder_is_looked_up_again_and_its_unusable_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "media" / "id990001"
    folder.mkdir(parents=True)
    (folder / f"{HARBOUR}.mp4").write_bytes(b"")
    config = request(tmp_path, selection=ONE_SPEAKER, source=str(tmp_path / "media"))
    store = go(config)
    assert statuses(store) == {HARBOUR: "media-unusable", GARDEN: "gone"}
    whole = next((MEDIA / "id990001").glob(f"{GARDEN}.*"))
    shutil.copy(whole, folder)
    go(config, retry=False)
    assert statuses(store) == {HARBOUR: "media-unusable", GARDEN: "gone"}
    go(config)
    assert statuses(store) == {HARBOUR: "media-unusable", GARDEN: "done"}
    assert [one.attempts for one in missing_videos(store, "audio")] == [1]
    # Another folder may have a better file.
    go(request(tmp_path, selection=ONE_SPEAKER))
    assert statuses(store) == {HARBOUR: "done", GARDEN: "done"}


def test_the_same_plan_is_not_compared_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    def counting(*tables: pa.Table) -> PlanDiff:
        nonlocal compared
        compared += 1
        return diff_plan(*tables)

    monkeypatch.setattr("voxblink2_lib.materialize.planning.diff_plan", counting)
    small = Selection.of(max_speakers=1, max_videos_per_speaker=1)
    for selection, times in ((small, 1), (small, 1), (ONE_SPEAKER, 2), (ONE_SPEAKER, 2)):
        store = go(request(tmp_path, selection=selection))
        assert compared == times
    assert read_status(store, "audio").videos == {"done": 2}
    # Another selection is another plan, also a smaller one, of which nothing is left to do.
    go(request(tmp_path, selection=small))
    assert compared == 3
    assert read_status(store, "audio").videos == {"done": 2}


def test_a_run_that_was_stopped_before_its_plan_was_whole_plans_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add_jobs", killed)
        with pytest.raises(KeyboardInterrupt):
            go(request(tmp_path, selection=ONE_SPEAKER))
    store = go(request(tmp_path, selection=ONE_SPEAKER))
    assert read_status(store, "audio").videos == {"done": 2}


def test_videos_that_are_left_out_are_told_and_may_be_wanted_again(tmp_path: Path) -> None:
    smaller = Selection.of(speakers=["id990001"], exclude=[GARDEN])
    store = go(request(tmp_path, selection=smaller))
    assert read_status(store, "audio").videos == {"done": 1, "excluded": 1}
    assert read_status(store, "audio").speakers.complete == 1
    assert not missing_videos(store, "audio")
    go(request(tmp_path, selection=ONE_SPEAKER))
    assert read_status(store, "audio").videos == {"done": 2}


def test_retry_asks_for_some_classes_and_adds_no_video(tmp_path: Path) -> None:
    faults = {HARBOUR: 451, GARDEN: 404}
    with MediaSite(MEDIA, faults=faults) as broken:
        store = go(request(tmp_path, selection=ONE_SPEAKER, source=broken.url_template))
        # Nothing but the store and the classes are looked at; the source is that of before.
        config = MaterializeRequest(store=str(store.root), workers=1)
        assert retry_videos(config, ["private", "transient"]) == (store, 0)
        assert retry_videos(config, ["geo"]) == (store, 1)
        assert (broken.count(HARBOUR), broken.count(GARDEN)) == (2, 1)
        assert statuses(store) == {HARBOUR: "geo", GARDEN: "gone"}
    config = MaterializeRequest(store=str(store.root), source=str(MEDIA), workers=1)
    assert retry_videos(config, ["geo", "gone"]) == (store, 2)
    assert read_status(store, "audio").videos == {"done": 2}


def test_retry_wants_a_store_that_is_there(tmp_path: Path) -> None:
    config = MaterializeRequest(store=str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"There is no store at .*nowhere\. Name another with"):
        retry_videos(config, ["gone"])
    assert not (tmp_path / "nowhere").exists()


def full(task: VideoTask) -> None:
    raise StoreFullError(f"No space is left for {task.part}.")


@pytest.mark.parametrize("config", ["audio", "audio-visual"])
def test_stopped_between_fetching_and_cutting_nothing_is_fetched_again(
    config: str, tmp_path: Path, site: MediaSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = request(tmp_path, config=config, selection=ONE_SPEAKER, source=site.url_template)
    kept = tmp_path / "store" / "media" / config
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.croppers.run_video", full)
        with pytest.raises(StoreFullError, match="No space is left for"):
            go(one)
    there = {path.name.split("_", 1)[1] for path in kept.iterdir()}
    assert there
    counts = {video: site.count(video) for video in there}
    assert all(counts.values())
    go(one)
    assert {video: site.count(video) for video in there} == counts
    assert read_status(Store(tmp_path / "store"), config).videos == {"done": 2}
    assert not list(kept.glob("*")), "media are left after the run"


def test_half_a_folder_of_media_is_fetched_again(
    tmp_path: Path, site: MediaSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = request(tmp_path, selection=ONE_SPEAKER, source=site.url_template)
    kept = tmp_path / "store" / "media" / "audio"
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.croppers.run_video", full)
        with pytest.raises(StoreFullError, match="No space is left for"):
            go(one)
    folder = next(kept.iterdir())
    (folder / "fetched.json").unlink()
    video = folder.name.split("_", 1)[1]
    before = site.count(video)
    go(one)
    assert site.count(video) == 2 * before
    assert read_status(Store(tmp_path / "store"), "audio").videos == {"done": 2}


def test_media_of_videos_that_are_no_longer_wanted_are_removed(
    tmp_path: Path, site: MediaSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.croppers.run_video", full)
        with pytest.raises(StoreFullError, match="No space is left for"):
            go(request(tmp_path, selection=ONE_SPEAKER, source=site.url_template))
    kept = tmp_path / "store" / "media" / "audio"
    unwanted = next(kept.iterdir()).name.split("_", 1)[1]
    selection = Selection.of(speakers=["id990001"], exclude=[unwanted])
    store = go(request(tmp_path, selection=selection, source=site.url_template))
    assert read_status(store, "audio").videos == {"done": 1, "excluded": 1}
    assert not list(kept.glob("*"))


def test_planned_and_failed_videos_may_be_left_out_again(tmp_path: Path) -> None:
    with MediaSite(MEDIA, faults={"demo_Garden": 404}) as broken:
        selection = Selection.of(speakers=["id990001"])
        store = go(request(tmp_path, selection=selection, source=broken.url_template))
    smaller = Selection.of(speakers=["id990001"], exclude=["demo_Garden"])
    go(request(tmp_path, selection=smaller))
    assert read_status(store, "audio").videos == {"done": 1, "excluded": 1}


def test_other_format_and_other_release_are_refused(tmp_path: Path) -> None:
    selection = Selection.of(max_speakers=1, max_videos_per_speaker=1)
    store = go(request(tmp_path, selection=selection))
    before = cli_process.shards(store.root)
    with pytest.raises(
        StoreMismatchError, match="holds clips with audio_format='flac', requested is 'wav'"
    ):
        go(request(tmp_path, selection=selection, clips={"audio_format": "wav"}))
    folder = tmp_path / "release" / "meta" / "id990001" / "demoHarbour"
    folder.mkdir(parents=True)
    (folder / "00001.txt").write_text("FRAME X Y W H\n0 1 1 9 9\n1 1 1 9 9\n")
    with pytest.raises(StoreMismatchError, match="not the one that the store was made from"):
        go(request(tmp_path, data_dir=str(tmp_path / "release")))
    assert cli_process.shards(store.root) == before
    go(request(tmp_path, selection=selection))


def test_no_answer_at_all_stops_and_counts_no_video_as_tried(
    tmp_path: Path, site: MediaSite
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/{{video_id}}"
        with pytest.raises(StoppedError, match=r"source does not answer: .*[Cc]onnection refused"):
            go(request(tmp_path, source=nobody))
    status = read_status(Store(tmp_path / "store"), "audio")
    assert status.videos == {}, "nothing is written before the source has answered"
    store = go(request(tmp_path, source=site.url_template))
    assert read_status(store, "audio").videos == {"done": 16, "gone": 1, "transient": 1}


def test_media_that_cannot_be_cut_are_outcomes(tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(MEDIA / "id990001", media / "id990001")
    (media / "id990001" / "demoHarbour.mp4").write_bytes(b"")
    whole = (media / "id990001" / "demo_Garden.webm").read_bytes()
    (media / "id990001" / "demo_Garden.webm").write_bytes(whole[: len(whole) // 2])
    selection = Selection.of(speakers=["id990001"])
    store = go(request(tmp_path, selection=selection, source=str(media)))
    status = read_status(store, "audio")
    assert status.videos == {"done": 1, "media-unusable": 1}
    (missing,) = missing_videos(store, "audio")
    assert missing.reason == "the media file is empty"
    assert status.utterances + status.missing_utterances == 3
    assert status.missing_utterances > 0


def test_two_runs_on_one_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.locked(wait=False):
        result = cli_process.run("materialize", "--data-dir", "demo", "--store", store.root, code=3)
        assert "is working on the store" in result.stderr
        with pytest.raises(StoreBusyError, match=r"process \d+ on .* is working on the store"):
            index_release(request(tmp_path))


def test_a_lost_part_is_made_again(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            go(request(tmp_path))
    shutil.rmtree(tmp_path / "store" / "parts")
    store = go(request(tmp_path))
    assert [path.name for path in store.shards("audio").iterdir()]
    assert read_status(store, "audio").utterances == 48


def test_shards_without_a_ledger_are_not_written_over(tmp_path: Path) -> None:
    selection = Selection.of(max_speakers=1, max_videos_per_speaker=1)
    store = go(request(tmp_path, selection=selection))
    before = cli_process.shards(store.root)
    for path in store.root.glob("ledger.sqlite*"):
        path.unlink()
    with pytest.raises(StoreDamagedError, match="has 1 shards and a ledger that lists none"):
        go(request(tmp_path, selection=selection))
    assert cli_process.shards(store.root) == before


def test_a_lost_shard_is_told(tmp_path: Path) -> None:
    selection = Selection.of(max_speakers=1)
    store = go(request(tmp_path, selection=selection))
    (store.shards("audio") / "audio-00001.arrow").unlink()
    with pytest.raises(StoreDamagedError, match=r"1 of the 2 shards .* are missing, .*audio-00001"):
        go(request(tmp_path, selection=selection))


def test_other_annotations_are_refused_even_without_the_index(tmp_path: Path) -> None:
    release, media = tmp_path / "release", tmp_path / "media"
    meta = release / "meta" / "id990001" / "demoHarbour"
    meta.mkdir(parents=True)
    (meta / "00001.txt").write_text("FRAME X Y W H\n0 1 1 9 9\n50 1 1 9 9\n")
    shutil.copytree(MEDIA / "id990001", media / "id990001")
    config = request(tmp_path, data_dir=str(release), source=str(media))
    store = go(config)
    (meta / "00001.txt").write_text("FRAME X Y W H\n10 1 1 9 9\n60 1 1 9 9\n")
    shutil.rmtree(store.index)
    with pytest.raises(StoreMismatchError, match="1 videos cropped by other annotations"):
        go(config)


def test_pool_replaces_a_worker_that_died_idle() -> None:
    with WorkerPool(1) as pool:
        calls = iter([(double, 1)])
        assert [result for _, result in pool.run(calls.__next__)] == [2]
        (worker,) = pool._workers
        worker.process.kill()
        worker.process.wait()
        more = iter([(double, 2)])
        assert [result for _, result in pool.run(more.__next__)] == [4]


def test_pool_gives_its_workers_variables_but_the_users_go_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OF_THE_USER", "1")
    with WorkerPool(1, environment={"OF_THE_USER": "2", "OF_THE_POOL": "3"}) as pool:
        calls = iter([(os.getenv, name) for name in ("OF_THE_USER", "OF_THE_POOL")])
        assert [result for _, result in pool.run(calls.__next__)] == ["1", "3"]


def test_workers_that_cannot_run_stop_the_run() -> None:
    calls = iter([(leave, 0)])
    with WorkerPool(1) as pool, pytest.raises(StoppedError, match="ended with exit code 7"):
        list(pool.run(calls.__next__))


def test_errors_that_cannot_travel_arrive_as_text() -> None:
    calls = iter([(raise_unportable, 0)])
    with WorkerPool(1) as pool, pytest.raises(RuntimeError, match="UnportableError: 1 and 2"):
        list(pool.run(calls.__next__))


def test_wrong_input_leaves_no_store_behind(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nor an existing folder"):
        go(request(tmp_path, source=str(tmp_path / "nowhere")))
    with pytest.raises(SelectionError, match=r"1 of the 1 requested speakers .* id123456"):
        go(request(tmp_path, selection=Selection.of(speakers=["id123456"])))
    assert not (tmp_path / "store" / "shards").exists()


def test_pool_survives_a_worker_that_dies() -> None:
    calls = iter([(double, 1), (die, int(signal.SIGSEGV)), (double, 2), (double, 3)])
    with WorkerPool(2) as pool:
        results = [result for _, result in pool.run(calls.__next__)]
    died = [one for one in results if isinstance(one, WorkerDiedError)]
    assert [str(one) for one in died] == ["the worker process died of SIGSEGV"]
    assert sorted(one for one in results if isinstance(one, int)) == [2, 4, 6]


def test_pool_raises_what_a_call_raises_with_the_workers_traceback() -> None:
    calls = iter([(double, -1)])
    with WorkerPool(1) as pool, pytest.raises(ValueError, match="-1 is negative") as caught:
        list(pool.run(calls.__next__))
    assert "in double" in caught.value.__notes__[0]


def test_a_video_that_kills_its_worker_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", WorkerPool)
    monkeypatch.setattr("voxblink2_lib.materialize.croppers.run_video", die_on_task)
    selection = Selection.of(speakers=["id990001"])
    store = go(request(tmp_path, selection=selection))
    assert read_status(store, "audio").videos == {"transient": 2}
    for video in missing_videos(store, "audio"):
        assert video.reason.startswith("the worker process died of SIGKILL twice, the second time ")


NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def _can_mount() -> bool:
    words = [*NAMESPACE, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(
    not _can_mount(), reason="mounting in a namespace of its own is not allowed here"
)


@needs_mounts
@pytest.mark.parametrize("size", ["20k", "100k", "400k", "800k"])
def test_full_disk_keeps_what_is_finished(size: str, tmp_path: Path) -> None:
    """A small file system fills up in the middle; what is sealed by then is whole."""
    release = make_corpus(tmp_path / "release", video_ids(24))
    media = ("--source", str(release / "media"), "--workers", "1")
    small = tmp_path / "small"
    small.mkdir()
    script = (
        'mount -t tmpfs -o size="$0" tmpfs "$1"; shift; '
        '"$@" 2>&1; code=$?; cp -r "$SMALL/store" "$SMALL.kept"; exit $code'
    )
    words = [
        *(*NAMESPACE, "sh", "-c", script, size, str(small)),
        *(sys.executable, "-m", "voxblink2_lib.cli"),
        *("materialize", "--data-dir", str(release), "--store", str(small / "store"), *media),
    ]
    result = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=cli_process.environment({"SMALL": str(small)}),
    )
    assert result.returncode == 3, result.stdout
    assert "No space is left for" in result.stdout
    assert "free some space and run the same command again" in result.stdout
    kept = Path(f"{small}.kept")
    leftovers = [path.name for path in kept.rglob("*.tmp")]
    assert not leftovers, "half-written files are left"
    if not (kept / "shards").exists():
        return
    shutil.rmtree(kept / "tmp")
    sealed = cli_process.shards(kept)
    cli_process.run_inline("materialize", "--data-dir", release, "--store", kept, *media)
    assert sealed.items() <= cli_process.shards(kept).items()
    with Ledger(kept / "ledger.sqlite", "audio") as ledger:
        assert sum(shard.rows for shard in ledger.shards()) == 24
    cli_process.run_inline("verify", "--store", kept)


@needs_mounts
def test_clips_are_made_without_the_ffmpeg_of_the_system(tmp_path: Path) -> None:
    script = (
        "for one in $(ldconfig -p | grep -o '/[^ ]*/lib\\(av\\|sw\\)[^ ]*'); "
        'do mount --bind /dev/null "$one"; done; exec "$@"'
    )
    words = [
        *(*NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-m", "voxblink2_lib.cli"),
        *("materialize", "--data-dir", "demo", "--store", str(tmp_path / "store")),
    ]
    result = subprocess.run(
        words, capture_output=True, text=True, check=False, env=cli_process.environment()
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
