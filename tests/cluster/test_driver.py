"""Jobs on nodes that die, are refused or are stopped: what the driver makes of it."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from support.file_server import FileServer
from support.inline_nodes import InlineCluster, InlineNodes, KilledError, node
from support.inline_pool import InlinePool

from voxblink2_lib.cluster import commit
from voxblink2_lib.cluster.driver import Driver
from voxblink2_lib.cluster.records import ClusterRun, JobWork, Node
from voxblink2_lib.cluster.versions import versions_here
from voxblink2_lib.errors import DependencyError, StoppedError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.published import session
from voxblink2_lib.published.manifest import Manifest
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.published.session import publishing
from voxblink2_lib.store.ledger import Ledger


class CountingPool(InlinePool):
    """Counts how often each video is cropped, and may kill its node before one of them."""

    crops: ClassVar[Counter[str]] = Counter()
    fatal: ClassVar[set[int]] = set()

    def submit(self, call: Any) -> None:
        if call[0].__name__ == "run_video":
            CountingPool.crops[call[1].key.video_id] += 1
            if CountingPool.crops.total() in CountingPool.fatal:
                CountingPool.fatal.discard(CountingPool.crops.total())
                raise KilledError
        super().submit(call)


@pytest.fixture(autouse=True)
def counted() -> None:
    CountingPool.crops, CountingPool.fatal = Counter(), set()


def request_of(corpus: Path, url: str) -> MaterializeRequest:
    return MaterializeRequest.of(data_dir=corpus, source=corpus / "media", store=url)


def run_local(request: MaterializeRequest, pool: type[InlinePool] = InlinePool) -> None:
    """Run it on this machine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", pool)
        materialize(request, retry=True, wait=False)


def manifest_at(url: str) -> Manifest:
    manifest = Place(url).read().manifest
    assert manifest is not None
    return manifest


def shards_at(url: str) -> dict[str, bytes]:
    copy = open_published(url)
    fetch_shards(url, copy, "audio", [*manifest_at(url).shards("audio")])
    return {path.name: path.read_bytes() for path in copy.shards("audio").glob("*.arrow")}


def check_whole(url: str, alone: dict[str, bytes]) -> None:
    """Every video has one outcome, and the shards are those of one machine."""
    assert shards_at(url) == alone
    with Ledger(open_published(url).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": 60}
        shards = [shard.job for shard in ledger.shards()]
        assert shards == sorted(set(shards))
    assert not Place(url).sizes("jobs")
    assert not manifest_at(url).below("parts/")


def test_nodes_make_the_shards_of_one_machine(
    corpus: Path, alone: dict[str, bytes], s3: str, tmp_path: Path
) -> None:
    cluster = InlineCluster(request_of(corpus, s3), tmp_path, [node("a"), node("b")])
    store = cluster.materialize(CountingPool)
    check_whole(s3, alone)
    assert CountingPool.crops.total() == 60
    assert not [*store.shards("audio").glob("*.arrow")]
    assert {name for name, _ in cluster.used[0].done} == {"a", "b"}


_SLOW = [
    pytest.param(crop, marks=pytest.mark.slow) for crop in range(2, 61) if crop not in {19, 40}
]


@pytest.mark.parametrize("crop", [1, 19, *_SLOW])
def test_a_killed_node_costs_at_most_the_videos_that_had_not_left_it(
    crop: int, corpus: Path, alone: dict[str, bytes], memory: str, tmp_path: Path
) -> None:
    CountingPool.fatal = {crop}
    InlineCluster(request_of(corpus, memory), tmp_path, [node("a"), node("b")]).materialize(
        CountingPool
    )
    check_whole(memory, alone)
    assert 60 < CountingPool.crops.total() <= 60 + 32
    assert max(CountingPool.crops.values()) == 2


def test_failures_leave_a_node_too(corpus: Path, memory: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    for path in sorted(copy.glob("media/*/*.wav"))[::2]:
        path.write_bytes(b"no medium")
    CountingPool.fatal = {35}
    InlineCluster(request_of(copy, memory), tmp_path, [node("a"), node("b")]).materialize(
        CountingPool
    )
    assert CountingPool.crops.total() <= 60 + 32
    with Ledger(open_published(memory).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": 30, "media-unusable": 30}
        known = [ledger.outcomes.read(job) for job in ledger.jobs()]
        assert {len(video.attempts) for job in known if job for video in job.videos} == {1}


# -- The driver ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        "commit.write_outcomes",
        *(
            pytest.param(step, marks=pytest.mark.slow)
            for step in ("commit.note_upload", "commit._take", "driver.commit_sealed")
        ),
    ],
)
def test_a_killed_driver_goes_on_where_it_was(
    step: str, corpus: Path, alone: dict[str, bytes], s3: str, tmp_path: Path
) -> None:
    def die(*_: object, **__: object) -> NoReturn:
        raise SystemExit("killed")

    cluster = InlineCluster(request_of(corpus, s3), tmp_path, [node("a"), node("b")])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"voxblink2_lib.cluster.{step}", die)
        patched.setattr(session, "_publish_rest", lambda *_: None)
        with pytest.raises(SystemExit):
            cluster.materialize(CountingPool)
    cluster.materialize(CountingPool)
    check_whole(s3, alone)
    # The job that was done was sealed only: all of it had left its node, or was committed.
    assert CountingPool.crops.total() <= 60 + 32


def test_what_was_committed_outlives_a_kill_before_it_was_published(
    corpus: Path, alone: dict[str, bytes], memory: str, tmp_path: Path
) -> None:
    def die(name: Node, work: JobWork) -> None:
        if work.known.job == 2:
            raise SystemExit("killed")

    request = request_of(corpus, memory)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session, "_publish_rest", lambda *_: None)
        with pytest.raises(SystemExit):
            InlineCluster(request, tmp_path, [node("a")], before=die).materialize(CountingPool)
    assert Place(memory).read().manifest is None
    assert CountingPool.crops.total() == 40
    InlineCluster(request, tmp_path, [node("a")]).materialize(CountingPool)
    check_whole(memory, alone)
    assert CountingPool.crops.total() == 60


def test_a_lost_scratch_store_costs_what_was_not_published(
    corpus: Path, alone: dict[str, bytes], memory: str, tmp_path: Path, home: Path
) -> None:
    CountingPool.fatal = {50}
    request = request_of(corpus, memory)
    with pytest.raises(StoppedError, match="The cluster has no node with a core"):
        InlineCluster(request, tmp_path, [node("a")]).materialize(CountingPool)
    shutil.rmtree(home)
    InlineCluster(request, tmp_path, [node("a")]).materialize(CountingPool)
    check_whole(memory, alone)
    assert CountingPool.crops.total() <= 60 + 32


def test_ctrl_c_loses_nothing(
    corpus: Path, alone: dict[str, bytes], memory: str, tmp_path: Path
) -> None:
    request = request_of(corpus, memory)

    class InterruptedPool(CountingPool):
        def submit(self, call: Any) -> None:
            super().submit(call)
            if CountingPool.crops.total() == 27:
                CountingPool.crops["Ctrl-C"] += 1
                cluster.used[0].is_stopping = True  # as the driver does after Ctrl-C
                signal.raise_signal(signal.SIGINT)

    cluster = InlineCluster(request, tmp_path, [node("a")])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.cluster.job._REPORT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            cluster.materialize(InterruptedPool)
    done_before = CountingPool.crops.total() - 1
    assert 20 < done_before < 60
    InlineCluster(request, tmp_path, [node("a")]).materialize(CountingPool)
    check_whole(memory, alone)
    assert CountingPool.crops.total() - 1 == 60


def test_the_first_result_of_a_job_wins_and_the_other_is_swept(
    corpus: Path, alone: dict[str, bytes], s3: str, tmp_path: Path
) -> None:
    class DoubleNodes(InlineNodes):
        """Gives each job to two nodes, and both results to the driver."""

        def results(self, *, timeout_seconds: float) -> Any:
            for place, work in [*self._started]:
                again = self._do(place, work)
                results = super().results(timeout_seconds=timeout_seconds)
                assert commit.commit_sealed(store, ledger_of[0], again)
                return results
            return []

    ledger_of: list[Ledger] = []
    store = scratch_store(s3, None)

    def engine(context: RunContext, jobs: list[int]) -> None:
        ledger_of.append(context.ledger)
        run = ClusterRun.of(request, context.source, context.options)
        nodes = DoubleNodes(run, [node("a")], tmp_path / "limits.sqlite")
        Driver(context, Place(s3), nodes, versions=versions_here()).run(jobs)

    request = request_of(corpus, s3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", CountingPool)
        materialize(request, retry=True, wait=False, engine=engine)
    assert shards_at(s3) == alone
    losers = [*Place(s3).sizes("shards")]
    assert len([name for name in losers if name.endswith(".arrow")]) == 6
    with publishing(s3, store):
        pass
    check_whole(s3, alone)
    assert len([name for name in Place(s3).sizes("shards") if name.endswith(".arrow")]) == 3


# -- Nodes that cannot go on -----------------------------------------------------------------------


def test_a_node_with_other_versions_is_not_used(
    corpus: Path,
    alone: dict[str, bytes],
    memory: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes = [node("old", "soxr 0.3"), node("a")]
    cluster = InlineCluster(request_of(corpus, memory), tmp_path, nodes)
    cluster.materialize()
    check_whole(memory, alone)
    assert {name for name, _ in cluster.used[0].done} == {"a"}
    (message,) = [text for text in caplog.messages if "not used" in text]
    assert message.startswith("The node old is not used: it has soxr 0.3; the clips of this store")
    assert versions_here() in message


def test_a_cluster_of_other_versions_alone_is_refused(
    corpus: Path, memory: str, tmp_path: Path
) -> None:
    cluster = InlineCluster(request_of(corpus, memory), tmp_path, [node("old", "soxr 0.3")])
    with pytest.raises(DependencyError, match=r"No node can go on\. 3 jobs .* it has soxr 0\.3"):
        cluster.materialize()


def test_a_node_without_the_source_leaves_its_job_to_others(
    corpus: Path, alone: dict[str, bytes], memory: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))

    def unmount(place: Node, work: JobWork) -> None:
        moved, media = copy / "elsewhere", copy / "media"
        if place.name == "b":
            media.rename(moved)
        elif moved.exists():
            moved.rename(media)

    cluster = InlineCluster(
        request_of(copy, memory), tmp_path, [node("a"), node("b")], before=unmount
    )
    cluster.materialize()
    check_whole(memory, alone)
    assert [name for name, _ in cluster.used[0].done].count("b") == 1


def test_a_source_that_refuses_all_nodes_ends_the_run_as_it_ends_a_local_one(
    corpus: Path, memory: str, tmp_path: Path
) -> None:
    with FileServer({}) as server:
        server.refusal, server.refuses = 407, 1 << 30
        source = f"{server.url}/{{video_id}}.wav"
        request = MaterializeRequest.of(data_dir=corpus, source=source, store=memory)
        with pytest.raises(StoppedError) as local:
            run_local(replace(request, store=str(tmp_path / "store")))
        asked = len(server.journal)
        cluster = InlineCluster(request, tmp_path, [node("a"), node("b")])
        with pytest.raises(type(local.value), match=r"No node can go on\. 3 jobs are left"):
            cluster.materialize()
        assert len(server.journal) <= 3 * asked


# -- Clips that are here, and videos that come back ------------------------------------------------


def test_clips_of_a_run_on_this_machine_are_not_made_again(
    corpus: Path, alone: dict[str, bytes], memory: str, tmp_path: Path
) -> None:
    class StoppedPool(CountingPool):
        def submit(self, call: Any) -> None:
            if CountingPool.crops.total() == 30:
                raise KeyboardInterrupt
            super().submit(call)

    request = request_of(corpus, memory)
    with pytest.raises(KeyboardInterrupt):
        run_local(request, StoppedPool)
    InlineCluster(request, tmp_path, [node("a")]).materialize(CountingPool)
    check_whole(memory, alone)
    assert CountingPool.crops.total() == 60


def test_videos_that_come_back_are_gathered_as_on_one_machine(
    corpus: Path, memory: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    late = sorted(copy.glob("media/*/*.wav"))[::7]
    contents = {path: path.read_bytes() for path in late}
    local = replace(request_of(copy, memory), store=str(tmp_path / "local"))

    def rounds(run: Callable[[], object]) -> None:
        for path in late:
            path.unlink()
        run()
        for path in late[:4]:
            path.write_bytes(contents[path])
        run()
        for path in late[4:]:
            path.write_bytes(contents[path])
        run()

    rounds(lambda: run_local(local))
    rounds(InlineCluster(request_of(copy, memory), tmp_path, [node("a"), node("b")]).materialize)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("local/shards/audio/*.arrow")}
    assert len(made) == 4
    assert shards_at(memory) == made
