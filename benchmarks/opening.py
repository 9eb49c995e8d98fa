"""Measure the opening of a store at an s3:// URL, of 2,000 shards and 10 million utterances.

An S3 server on this machine, in a process of its own, has what such a store publishes: manifest,
ledger of 2 million videos, index, catalogue, and the first shard, which is real and the only one
that anybody reads before the first batch. Each opening is in a fresh process with empty caches.
Requests are counted by the server. Times are those of that server, which is slow: the download of
the catalogue by itself is measured beside them.

Example:
    python benchmarks/opening.py
    python benchmarks/opening.py --quick --json
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from figures import Figure, figure, run_benchmark
from ledger import VIDEOS_PER_SPEAKER
from s3_server import running_server
from view import VIDEOS_PER_SHARD, make_store

from voxblink2_lib.files import sha256_of
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.published.manifest import LEDGER, Manifest, PublishedFile, new_attempt
from voxblink2_lib.published.place import Place
from voxblink2_lib.records import SAMPLES_PER_FRAME, Clip, SealedShard, Utterance, VideoKey
from voxblink2_lib.store.catalogue import Catalogue, update_catalogue
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_database import make_ledger
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import make_rows, seal_shard, write_part
from voxblink2_lib.store.status import summary_of

VIDEOS, QUICK_VIDEOS = 2_000_000, 50_000
ROWS_PER_VIDEO = 5
ROUNDS, QUICK_ROUNDS = 3, 1
MOST_REQUESTS = 20.0
_TARGET: dict[str, Any] = {"unit": "s", "at_most": 3.0}
URL = "s3://bucket/store"
_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
app = server._server.app

def counted(environment, start_response):
    with open(sys.argv[1], "a") as file:
        file.write(environment["REQUEST_METHOD"] + " " + environment["PATH_INFO"] + "\\n")
    return app(environment, start_response)

server._server.app = counted
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_OPENINGS = {
    "stream": """
import time, datasets, s3fs, torch, voxblink2
started = time.perf_counter(), time.process_time()
rows = datasets.load_dataset("voxblink2", "audio", store=URL, split="train", streaming=True)
next(iter(rows.with_format("arrow").iter(32)))
print(time.perf_counter() - started[0], time.process_time() - started[1])
""",
    "corpus": """
import time, s3fs, torch
from voxblink2_lib.training import Corpus, Reader
started = time.perf_counter(), time.process_time()
Reader(Corpus.open(URL)).encoded(0)
print(time.perf_counter() - started[0], time.process_time() - started[1])
""",
    "catalogue": """
import time, s3fs, torch
from pathlib import Path
from voxblink2_lib.published.opening import open_place
place = open_place(URL)
file = place.read().manifest.files["catalogue/audio.arrow"]
started = time.perf_counter(), time.process_time()
place.download(file.name, Path("copy"), size_bytes=file.size_bytes, sha256=file.sha256)
print(time.perf_counter() - started[0], time.process_time() - started[1])
""",
}


class Opened(NamedTuple):
    """An opening: time until the first batch, that of its processor, and all requests."""

    seconds: float
    cpu_seconds: float
    requests: list[str]

    @property
    def requests_beside(self) -> float:
        """Requests beyond those for the catalogue."""
        return float(sum("/catalogue/" not in name for name in self.requests))


@contextmanager
def logging_server(folder: Path) -> Iterator[Path]:
    """Run an S3 server; yield the file to which it writes a line for each request."""
    log = folder / "requests"
    log.touch()
    with running_server(_SERVER, str(log)):
        yield log


def write_shard(folder: Path) -> SealedShard:
    """Seal the first shard: the first rows of the catalogue, with short clips."""
    sound = encode(np.zeros(2 * SAMPLES_PER_FRAME, np.float32), audio_format="flac")
    schema, part = arrow_schema("audio"), folder / "part"
    clips = [
        Clip(Utterance(_speaker(video), f"v{video:010}", f"{number:05}", number, number + 1), sound)
        for video in range(VIDEOS_PER_SHARD)
        for number in range(ROWS_PER_VIDEO)
    ]
    key = VideoKey(_speaker(0), "v0000000000")
    rows = make_rows(clips, schema=schema, audio_format="flac", source="files")
    write_part(part, rows, Outcome(key, "done", clips=len(clips)))
    folder.joinpath("shards", "audio").mkdir(parents=True)
    return seal_shard(0, [part], folder / "shards" / "audio" / "audio-00000.arrow", schema)


def _speaker(video: int) -> str:
    return f"id{video // VIDEOS_PER_SPEAKER:06}"


def write_ledger(store: Store, shards: list[SealedShard], videos: int) -> None:
    """Write a ledger in which all videos are done."""
    jobs = ((each.job, each.name, each.sha256, each.rows, each.size_bytes) for each in shards)
    rows = (
        (_speaker(video), f"v{video:010}", video // VIDEOS_PER_SHARD, video)
        for video in range(videos)
    )
    with closing(sqlite3.connect(store.ledger)) as connection:
        connection.execute("pragma journal_mode = delete")
        connection.executemany(
            "insert into jobs (config, job, shard, sha256, rows, bytes) "
            "values ('audio', ?, ?, ?, ?, ?)",
            jobs,
        )
        connection.executemany(
            "insert into videos (config, speaker_id, video_id, job, status, attempts, clips, "
            "samples, digest, updated_at) "
            "values ('audio', ?, ?, ?, 'done', 1, 5, 480000, ?, 1.8e9)",
            rows,
        )
        connection.commit()


def publish(folder: Path, videos: int) -> None:
    """Publish a synthetic store at the URL."""
    store, shards = make_store(folder / "store", videos)
    make_ledger(store.ledger)
    first = write_shard(folder / "store")
    # Of the first shard, the catalogue has the places of its clips.
    real = folder / "real.arrow"
    update_catalogue(real, store.shards("audio"), {first.name: first.size_bytes})
    path = store.root / "catalogue" / "audio.arrow"
    synthetic, table = Catalogue.read(path), Catalogue.read(real)
    rows = [table.table, synthetic.table.slice(first.rows)]
    plain = [each.replace_schema_metadata(None) for each in rows]
    Catalogue(pa.concat_tables(plain), (*table.shards, *synthetic.shards[1:])).write(path)
    shards = [first, *shards[1:]]
    write_ledger(store, shards, videos)
    with Ledger(store.ledger, "audio", readonly=True) as ledger:
        summary = summary_of(store, ledger)
    place = Place(URL)
    names = [LEDGER, "index/index.json", "index/videos.parquet", "catalogue/audio.arrow"]
    names.append(f"shards/audio/{first.name}")
    files = {name: upload(place, store.root, name) for name in names}
    for shard in shards[1:]:
        name = f"shards/audio/{shard.name}"
        files[name] = PublishedFile(name, new_attempt(), shard.size_bytes, shard.sha256)
    manifest = Manifest(1, new_attempt(), "a benchmark", time.time(), files)
    manifest = replace(manifest, summaries={"audio": summary})
    place.commit(manifest, place.read())


def upload(place: Place, root: Path, name: str) -> PublishedFile:
    """Upload a file of a store, and return what a manifest says of it."""
    size_bytes = (root / name).stat().st_size
    with open(root / name, "rb") as source:
        sha256 = sha256_of(root / name)
        file = PublishedFile(name, new_attempt(), size_bytes, sha256)
        place.upload(source, file.name, size_bytes)
    return file


def open_store(what: str, folder: Path, log: Path) -> Opened:
    """Open the store in a fresh process with empty caches."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    before = len(log.read_text(encoding="utf-8").splitlines())
    environment = {
        **os.environ,
        "VOXBLINK2_HOME": str(home),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "1",
    }
    script = f"URL = {URL!r}\n{_OPENINGS[what]}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
    )
    requests = log.read_text(encoding="utf-8").splitlines()[before:]
    seconds, cpu_seconds = map(float, done.stdout.split())
    return Opened(seconds, cpu_seconds, requests)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with logging_server(folder) as log:
        Place(URL)._system.mkdir("bucket")
        publish(folder, QUICK_VIDEOS if quick else VIDEOS)
        opened: dict[str, list[Opened]] = {what: [] for what in _OPENINGS}
        for _ in range(rounds):
            for what, before in opened.items():
                before.append(open_store(what, folder, log))
    pairs = list(zip(opened["corpus"], opened["catalogue"], strict=True))
    beyond = [max(0.0, corpus.seconds - table.seconds) for corpus, table in pairs]
    cpu_beyond = [max(0.0, corpus.cpu_seconds - table.cpu_seconds) for corpus, table in pairs]
    stream = opened["stream"]
    yield figure("streaming load: first batch", [each.seconds for each in stream], **_TARGET)
    yield figure("the same, CPU time", [each.cpu_seconds for each in stream], unit="s")
    yield figure("Corpus.open and a clip, beyond the catalogue", beyond, **_TARGET)
    yield figure("the same, CPU time", cpu_beyond, unit="s")
    alone = [each.seconds for each in opened["catalogue"]]
    yield figure("the catalogue alone, from this server", alone, unit="s")
    for what, name in (("stream", "streaming load"), ("corpus", "Corpus.open and a clip")):
        requests = [each.requests_beside for each in opened[what]]
        yield figure(
            f"{name}: requests beyond the catalogue", requests, unit="", at_most=MOST_REQUESTS
        )


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
