"""A real Ray cluster on this machine, whose nodes and whose driver are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from support.bucket import bucket_server
from support.cli_process import DEADLINE_SECONDS, Process, run_inline, stop, wait_for
from support.file_server import FileServer
from support.plain_corpus import make_corpus, video_ids, wav
from support.ray_cluster import RayCluster, ray_cluster

from voxblink2_lib.materialize import jobs
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.store.ledger import Ledger

# Ray leaves the handles of the processes of its nodes to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

VIDEOS = 60
USER, PASSWORD, TOKEN = "b0buser", "p4ssw0rd-of-bob", "t0k3n-value"


class Media(FileServer):
    """The media of the corpus, at a URL with secrets."""

    def __init__(self, videos: int) -> None:
        super().__init__({f"{video}.wav": wav() for video in video_ids(videos)})

    @property
    def source(self) -> str:
        return f"http://{USER}:{PASSWORD}@{self.host}/{{video_id}}.wav?token={TOKEN}"

    def asked(self) -> Counter[str]:
        """How often each video was asked for."""
        return Counter(served.path for served in self.journal if served.start == 0)


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server, and the environment of nodes and driver."""
    with pytest.MonkeyPatch.context() as patched, bucket_server(patched) as system:
        system.mkdir("bucket")
        named = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        yield {**named, "VOXBLINK2_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def cluster(variables: dict[str, str]) -> Iterator[RayCluster]:
    with ray_cluster(2, variables) as cluster:
        yield cluster


def shards_at(url: str) -> dict[str, bytes]:
    copy = open_published(url)
    manifest = Place(url).read().manifest
    assert manifest is not None
    fetch_shards(url, copy, "audio", [*manifest.shards("audio")])
    return {path.name: path.read_bytes() for path in copy.shards("audio").glob("*.arrow")}


def check_ledger(url: str, videos: int, shards: int) -> None:
    """Every video has one outcome, and every job one shard."""
    with Ledger(open_published(url).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": videos}
        assert [shard.job for shard in ledger.shards()] == [*range(shards)]
    assert not Place(url).sizes("jobs")


def clips_of(shards: dict[str, bytes]) -> dict[str, list[bytes]]:
    """Return the clips of shards, which say besides from what kind of source they are."""
    tables = {name: pa.ipc.open_stream(data).read_all() for name, data in shards.items()}
    return {
        name: [row["bytes"] for row in rows["audio"].to_pylist()] for name, rows in tables.items()
    }


def finish(process: Process) -> str:
    """Wait for the end of a run, and return its messages."""
    _, messages = process.communicate(timeout=2 * DEADLINE_SECONDS)
    assert process.returncode == 0, messages
    return messages


def alone_by_url(corpus: Path, media: Media, root: Path) -> dict[str, bytes]:
    """Return the shards that one machine makes of the media at a URL."""
    run_inline("materialize", "--data-dir", corpus, "--source", media.source, "--store", root)
    return {path.name: path.read_bytes() for path in root.glob("shards/audio/*.arrow")}


def test_a_node_is_killed_and_no_secret_is_in_the_logs_of_ray(
    corpus: Path, alone: dict[str, bytes], cluster: RayCluster, tmp_path: Path
) -> None:
    url = "s3://bucket/killed/store"
    with Media(VIDEOS) as media:
        media.serve_only(25 * len(wav()))
        words = ("--data-dir", corpus, "--source", media.source, "--store", url, "--fetches", 4)
        with cluster.start(*words, shards=3) as process:
            # Each node has begun a job, and downloads.
            assert wait_for(lambda: len(media.journal) >= 25, process)
            cluster.kill_node()
            media.serve_on()
            messages = finish(process)
        # Each video is asked for twice: whether it can be played, and for its bytes.
        again = [video for video, count in media.asked().items() if count > 2]
    assert "was lost" in messages
    assert 0 < len(again) <= 32
    made = shards_at(url)
    check_ledger(url, VIDEOS, len(alone))
    assert clips_of(made) == clips_of(alone)
    secrets = [text.encode() for text in (USER, PASSWORD, TOKEN)]
    files = [path for path in cluster.session.rglob("*") if path.is_file()]
    assert len(files) > 10
    leaks = [path for path in files if any(secret in path.read_bytes() for secret in secrets)]
    assert not leaks


@pytest.mark.slow
def test_nodes_and_drivers_are_killed(
    variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, videos, url = tmp_path_factory.mktemp("slow"), 300, "s3://bucket/slow/store"
    corpus = make_corpus(root, video_ids(videos))
    with Media(videos) as media, pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "_SMALL_CORPUS_SHARDS", 6)
        alone = alone_by_url(corpus, media, root / "alone")
        usual = media.asked()
        media.journal.clear()
        words = ("--data-dir", corpus, "--source", media.source, "--store", url, "--fetches", 4)
        with ray_cluster(3, variables) as cluster:
            with cluster.start(*words, shards=6) as process:
                assert wait_for(lambda: len(media.journal) >= 60, process)
                cluster.kill_node()
                assert wait_for(lambda: len(media.journal) >= 120, process)
                before = media.asked().total()
                stop(process, signal.SIGKILL)
            with cluster.start(*words, shards=6) as process:
                assert wait_for(lambda: media.asked().total() >= before + 60, process)
                cluster.kill_node()
                finish(process)
        again = media.asked() - usual
    assert shards_at(url) == alone
    check_ledger(url, videos, len(alone))
    # Each node that was killed, and each that worked when the driver was, costs 32 at most.
    assert 0 < len(again) <= 4 * 32
