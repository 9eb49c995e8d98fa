"""Measure reading from a bucket whose server takes 30 ms for each request, and the cache of pieces.

A server on this machine speaks as much of the S3 protocol as reading needs; it has a catalogue of
2,000 shards with 9.9 million utterances, and any bytes of these. First batches begin with empty
caches, but for the catalogue, whose download is a matter of the line. Beside them, a bare loop
fetches the same ranges, 16 at a time. What a miss costs is CPU time, beside that of writing the
file that it stores.

Example:
    python benchmarks/remote_read.py
    python benchmarks/remote_read.py --quick --json
"""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from figures import Figure, cpu_seconds_of, figure, run_benchmark, seconds_of
from s3_server import running_server

from voxblink2_lib.store.catalogue import Catalogue, Shard
from voxblink2_lib.training import Corpus, Reader, ShuffleSampler
from voxblink2_lib.training.piece_cache import PieceCache
from voxblink2_lib.training.remote_shards import PIECE_BYTES, RemoteShards

SHARDS, ROWS_PER_SHARD, ROWS_PER_SPEAKER = 2_000, 4_950, 89
QUICK_SHARDS = 20
CLIP_BYTES = 130_000  # six seconds of FLAC
BATCH, AT_ONCE = 64, 16
ROUNDS, QUICK_ROUNDS = 5, 1
MANY, FEW, MISSES = 50_000, 1_000, 200
URL = "s3://bucket/store"
_SERVER = r"""
import re, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

catalogue, shard_bytes, log = Path(sys.argv[1]), int(sys.argv[2]), open(sys.argv[3], "a")
zeros, content = bytes(64 << 20), catalogue.read_bytes()
empty = (b"<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount>"
         b"<IsTruncated>false</IsTruncated></ListBucketResult>")

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self):
        time.sleep(0.03)
        path = self.path.partition("?")[0]
        log.write(f"{self.command} {path}\n")
        log.flush()
        if "list-type=2" in self.path:
            return self.reply(200, empty, {"Content-Type": "application/xml"})
        is_shard = path.startswith("/bucket/store/shards/")
        if not is_shard and path != "/bucket/store/catalogue/audio.arrow":
            return self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
        size = shard_bytes if is_shard else len(content)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(span[1]), min(int(span[2]) + 1, size)) if span else (0, size)
        body = memoryview(zeros)[: stop - start] if is_shard else memoryview(content)[start:stop]
        about = {"ETag": '"1"', "Last-Modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
        if span:
            about["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        body = body if self.command == "GET" else b""
        self.reply(206 if span else 200, body, about, stop - start)

    do_HEAD = do_GET

    def reply(self, status, body, headers, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def write_catalogue(path: Path, shards: int) -> None:
    """Write a catalogue of clips of equal size, speaker after speaker."""
    rows = np.arange(shards * ROWS_PER_SHARD)
    speakers = [f"id{number:06}" for number in range(-(-len(rows) // ROWS_PER_SPEAKER))]
    videos = pa.array([f"v{number:010}" for number in range(-(-len(rows) // 5))])
    columns = {
        "speaker_id": pa.DictionaryArray.from_arrays(
            pa.array(rows // ROWS_PER_SPEAKER, pa.int32()), pa.array(speakers)
        ),
        "video_id": videos.take(pa.array(rows // 5)),
        "utterance_id": pa.array([f"{number:05}" for number in range(5)]).take(pa.array(rows % 5)),
        "samples": pa.array(np.full(len(rows), 96_000, np.int32)),
        "offset": pa.array(rows % ROWS_PER_SHARD * CLIP_BYTES),
        "size": pa.array(np.full(len(rows), CLIP_BYTES, np.int32)),
    }
    sealed = tuple(
        Shard(f"audio-{number:05}.arrow", ROWS_PER_SHARD * CLIP_BYTES, ROWS_PER_SHARD)
        for number in range(shards)
    )
    Catalogue(pa.table(columns), sealed).write(path)


@contextmanager
def logging_server(folder: Path, catalogue: Path) -> Iterator[Path]:
    """Run the server; yield the file to which it writes a line for each request."""
    log = folder / "requests"
    shard_bytes = str(ROWS_PER_SHARD * CLIP_BYTES)
    with running_server(_SERVER, str(catalogue), shard_bytes, str(log)):
        yield log


def pieces_of(corpus: Corpus, rows: list[int]) -> set[tuple[str, int]]:
    """Return shard and first byte of each piece that some clips touch."""
    pieces = set()
    for place in map(corpus.place, rows):
        for number in range(
            place.offset // PIECE_BYTES, (place.offset + place.size - 1) // PIECE_BYTES + 1
        ):
            pieces.add((place.shard, number * PIECE_BYTES))
    return pieces


def fetch_bare(pieces: set[tuple[str, int]]) -> None:
    """Fetch pieces with nothing but a connection for each thread's request."""
    address = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc

    def fetch(piece: tuple[str, int]) -> None:
        connection = http.client.HTTPConnection(address)
        span = {"Range": f"bytes={piece[1]}-{piece[1] + PIECE_BYTES - 1}"}
        connection.request("GET", f"/bucket/store/shards/audio/{piece[0]}", headers=span)
        connection.getresponse().read()
        connection.close()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(fetch, pieces))


def read_batch(reader: Reader, rows: list[int]) -> None:
    reader.prefetch(rows)
    for row in rows:
        reader.encoded(row)


def first_batches(folder: Path, log: Path, rounds: int) -> Iterator[Figure]:
    """Measure batches of the sampler and of random rows, each from an empty cache of pieces."""
    corpus = Corpus.open(URL, cache_dir=folder / "cache")  # the catalogue is there from now on
    generator = np.random.default_rng(0)
    for name in ("of the sampler", "of random rows"):
        seconds, requests, ratios, used = [], [], [], []
        for seed in range(rounds):
            rows = generator.integers(len(corpus), size=BATCH).tolist()
            if name == "of the sampler":
                rows = [
                    int(row)
                    for row in next(iter(ShuffleSampler(corpus, batch_size=BATCH, seed=seed)))
                ]
            assert isinstance(corpus.shards, RemoteShards)
            for path in corpus.shards.cache.glob("*.arrow.*"):
                path.unlink()
            before = len(log.read_text(encoding="utf-8").splitlines())
            start = time.perf_counter()
            read_batch(Reader(Corpus.open(URL, cache_dir=folder / "cache")), rows)
            seconds.append(time.perf_counter() - start)
            requests.append(float(len(log.read_text(encoding="utf-8").splitlines()) - before))
            pieces = pieces_of(corpus, rows)
            ratios.append(seconds[-1] / seconds_of(lambda pieces=pieces: fetch_bare(pieces)))  # type: ignore[misc]  # mypy takes no lambdas with defaults
            used.append(len(pieces) * PIECE_BYTES / (BATCH * CLIP_BYTES))
        limits = {"at_most": 20.0} if name == "of the sampler" else {}
        yield figure(f"open, first batch {name}", seconds, unit="s", at_most=3.0)
        yield figure(f"open, first batch {name}: requests", requests, unit="", **limits)
        yield figure(f"open, first batch {name} / a bare loop", ratios)
        yield figure(f"first batch {name}: bytes fetched / used", used)


def misses(folder: Path, pieces: int, count: int) -> tuple[float, float]:
    """Return milliseconds of CPU for a miss in a full cache, and for writing the same file."""
    data = bytes(4096)
    cache = PieceCache(folder / str(pieces), pieces * len(data))
    names = [f"x.arrow.1.{number:06}" for number in range(pieces + count)]
    cache.folder.mkdir(parents=True)
    for name in names[: pieces - 1]:
        cache.folder.joinpath(name).write_bytes(data)
    cache.keep(names[pieces - 1], data)  # counts the others

    def miss() -> None:
        for name in names[pieces:]:
            assert not cache.has(name, len(data))
            cache.keep(name, data)

    def write() -> None:
        for name in names[pieces:]:
            (folder / "plain").joinpath(name).write_bytes(data)

    (folder / "plain").mkdir(parents=True, exist_ok=True)
    return cpu_seconds_of(miss) / count * 1e3, cpu_seconds_of(write) / count * 1e3


def bookkeeping(folder: Path, many: int, rounds: int) -> Iterator[Figure]:
    few_ms: list[float] = []
    many_ms: list[float] = []
    plain = []
    for _ in range(rounds):
        for pieces, times in ((FEW, few_ms), (many, many_ms)):
            miss, write = misses(folder / "misses", pieces, MISSES)
            times.append(miss)
            plain.append(miss / write)
            shutil.rmtree(folder / "misses")
    yield figure(f"a miss in a full cache of {FEW:,} pieces", few_ms, unit="ms")
    yield figure(f"a miss in a full cache of {many:,} pieces", many_ms, unit="ms")
    ratios = [many / few for many, few in zip(many_ms, few_ms, strict=True)]
    yield figure(f"{many:,} pieces / {FEW:,} pieces", ratios, at_most=2.0)
    yield figure("a miss / writing the file", plain)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    os.environ["VOXBLINK2_HOME"] = str(folder / "home")
    catalogue = folder / "audio.arrow"
    write_catalogue(catalogue, QUICK_SHARDS if quick else SHARDS)
    with logging_server(folder, catalogue) as log:
        yield from first_batches(folder, log, rounds)
    yield from bookkeeping(folder, 5 * FEW if quick else MANY, min(rounds, 3))


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
