"""Stores of both configurations with everything a store can have, and seeded damages to them.

A damage is felt: a flipped bit that changes nothing of what a file says is none (SQLite and Arrow
leave some bytes unused, and do not read what a log has after its end).
"""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from support.inline_pool import InlinePool
from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.records import ConfigName
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.catalogue import Catalogue
from voxblink2_lib.store.shards import read_part_outcome

SEEDS = range(200)
Way = Literal["bit flipped", "truncated", "deleted"]
_ALL: tuple[Way, ...] = ("bit flipped", "truncated", "deleted")

# Each kind of file: a pattern below the store, and what may happen to it. A catalogue that is not
# there is made at the next use.
TARGETS: dict[str, tuple[str, tuple[Way, ...]]] = {
    "shard": ("shards/*/*.arrow", _ALL),
    "sum": ("shards/*/*.arrow.sha256", _ALL),
    "outcomes": ("shards/*/*.outcomes.parquet*", _ALL),
    "ledger": ("ledger.sqlite", _ALL),
    "log": ("ledger.sqlite-wal", _ALL),
    "index": ("index/*", _ALL),
    "catalogue": ("catalogue/*.arrow", ("bit flipped", "truncated")),
    "part": ("parts/*/*/*.arrow", _ALL),
}

# -- Stores ----------------------------------------------------------------------------------------

# Came back in a retry, so it is in a shard of recovered videos.
LATE = "demoChess_1.m4a"
SPEAKERS = ["id990001", "id990002", "id990003"]
FACES: Mapping[str, Any] = {"video_size": 32}


@dataclass(frozen=True, slots=True)
class DamagedCorpus:
    """A store that is not to be changed, and what it was made from.

    Attributes:
        store: with sealed shards of both configurations, one of them of a video that came back, a
            job that is not sealed but has parts, and a log that is not merged into the ledger.
        media: the source.
    """

    store: Path
    media: Path

    def copy(self, target: Path) -> Path:
        """Copy the store to a folder that does not exist yet, and return it."""
        return Path(shutil.copytree(self.store, target))

    def request(self, store: Path, config: ConfigName) -> MaterializeRequest:
        """Return the request that finishes a copy of the store."""
        return _request(store, self.media, config, [*SPEAKERS, "id990004"])


def _request(
    store: Path, media: Path, config: ConfigName, speakers: list[str]
) -> MaterializeRequest:
    return MaterializeRequest(
        config=config,
        data_dir="demo",
        source=str(media),
        store=str(store),
        workers=1,
        selection=Selection.of(speakers=speakers),
        clips=FACES if config == "audio-visual" else {},
    )


class _StoppedError(Exception):
    pass


def _stop(*_: object) -> None:
    raise _StoppedError


def make_corpus(folder: Path) -> DamagedCorpus:
    """Make the store by runs in this process."""
    media, growing = folder / "media", folder / "growing"
    shutil.copytree(MEDIA, media)
    late = next(media.rglob(LATE))
    late.rename(folder / LATE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", InlinePool)
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 2)
        _run(_request(growing, media, "audio", SPEAKERS))
        (folder / LATE).rename(late)
        _run(_request(growing, media, "audio", SPEAKERS))
        _run(_request(growing, media, "audio-visual", SPEAKERS[:2]))
        # Whoever has the ledger open last merges the log: not the run.
        with closing(sqlite3.connect(growing / "ledger.sqlite")) as reader:
            reader.execute("select count(*) from videos").fetchone()
            patched.setattr("voxblink2_lib.materialize.scheduler.seal_call", _stop)
            with pytest.raises(_StoppedError):
                _run(_request(growing, media, "audio", [*SPEAKERS, "id990004"]))
            store = Path(shutil.copytree(growing, folder / "store"))
    (store / "ledger.sqlite-shm").unlink(missing_ok=True)  # SQLite makes it of the log
    return DamagedCorpus(store, media)


def _run(request: MaterializeRequest) -> None:
    materialize(request, retry=True, wait=False)


def files_of(store: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a store, by its path in it."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


# -- Damages ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to a file.

    Attributes:
        kind: of the file, one of :data:`TARGETS`.
        path: of the file, in the store.
        way: what was done.
    """

    kind: str
    path: str
    way: Way


def damages(store: Path, seed: int) -> list[Damage]:
    """Damage a file of a store, or two files, and return how.

    Args:
        store: a copy that nobody has open.
        seed: decides which and how: even seeds damage one file, odd ones two.
    """
    chooser = random.Random(seed)  # no secret
    done: list[Damage] = []
    while len(done) < 1 + seed % 2:
        kind = chooser.choice(list(TARGETS))
        pattern, ways = TARGETS[kind]
        paths = sorted(store.glob(pattern))
        way = chooser.choice(ways)
        if not paths:  # deleted just now, or of a version that does not write them
            continue
        path = chooser.choice(paths)
        name = str(path.relative_to(store))
        if name not in {damage.path for damage in done}:
            damage_file(store, path, way, chooser)
            done.append(Damage(kind, name, way))
    return done


def damage_file(store: Path, path: Path, way: Way, chooser: random.Random) -> None:
    """Damage a file so that it says something else, or nothing."""
    data, before = path.read_bytes(), _meaning(store, path)
    while True:
        if way == "deleted":
            path.unlink()
        elif way == "truncated":
            path.write_bytes(data[: chooser.randrange(len(data))])
        else:
            flipped = bytearray(data)
            flipped[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
            path.write_bytes(flipped)
        # Of a pair, the first may have left nothing to read.
        if before is None or _meaning(store, path) != before:
            return


def _meaning(store: Path, path: Path) -> object:
    """Return what a reader takes from a file; ``None`` if it cannot be read."""
    read: Callable[[Path], object] = Path.read_bytes
    if path.name.startswith("ledger.sqlite"):
        read, path = _ledger_lines, store / "ledger.sqlite"
    elif path.parent.parent.parent.name == "parts":
        read = _part_rows
    elif path.parent.name == "catalogue":
        read = _catalogue_rows
    try:
        return read(path)
    except (OSError, VoxBlink2Error, sqlite3.Error, ValueError):
        return None


def _ledger_lines(path: Path) -> object:
    # SQLite merges the log into the file when it closes it.
    with tempfile.TemporaryDirectory() as folder:
        for file in path.parent.glob("ledger.sqlite*"):
            shutil.copy(file, folder)
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(f"{copy.as_uri()}?mode=rw", uri=True)) as database:
            (problem,) = database.execute("pragma integrity_check(1)").fetchone()
            return None if problem != "ok" else list(database.iterdump())


def _part_rows(path: Path) -> object:
    rows = [row for batch in open_stream(path).batches() for row in batch.to_pylist()]
    outcome = read_part_outcome(path)
    return rows, outcome and outcome.as_dict()


def _catalogue_rows(path: Path) -> object:
    catalogue = Catalogue.read(path)
    return catalogue.shards, catalogue.table.to_pylist()
