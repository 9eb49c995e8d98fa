"""The manifest of a published store: which files make it up, and under which names they lie.

::

    manifest.json                                        the present generation
    ledger.4f1b0c9d2a7e.sqlite                           a copy of the ledger
    shards/audio/audio-00007.9c3e5a1f0b42.arrow          file, name of the attempt to upload it

A file is uploaded under a name of its own, and part of the store once a manifest names it. So who
reads one manifest reads the files of one moment, each of them whole, whatever is published or goes
wrong meanwhile. Anybody may have written a manifest: it is checked before it is used.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.store.summary import Summary

MANIFEST = "manifest.json"
LEDGER, TOMBSTONES = "ledger.sqlite", "tombstones.json"
# What a status needs; what a load of all rows needs, which knows the shards by the manifest; what a
# load with a selection needs; what a report has besides; what is verified.
LEDGER_ONLY = (LEDGER, TOMBSTONES)
ABOUT_ROWS = ("index/index.json", "index/speakers.", "index/transcripts.")
TABLES = (*LEDGER_ONLY, *ABOUT_ROWS, "index/videos.", "catalogue/")
DURATIONS = "index/utterances."
ALL_BUT_SHARDS = (*LEDGER_ONLY, "index/", "catalogue/", "shards/", "parts/", "archive/")
_FORMAT = 1
_MOST_BYTES = 1 << 28
_LONGEST_PATH = 300

# Neither a hidden file nor a way out of the folder.
_PATH = re.compile(
    r"(ledger\.sqlite|tombstones\.json|(index|catalogue|shards|parts|archive)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+)"
)
_ATTEMPT = re.compile(r"[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STORE_ID = re.compile(r"[0-9a-f]{32}")
_FOLDER = re.compile(r"(slices/[0-9]{3,4}-of-[0-9]{3,4}/)?")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of a published store.

    Attributes:
        path: its path in a store.
        attempt: of the upload.
        size_bytes: its size.
        sha256: of its content.
        folder: of the slice that it is in, with a slash at its end; empty in any other store.
    """

    path: str
    attempt: str
    size_bytes: int
    sha256: str
    folder: str = ""

    def __post_init__(self) -> None:
        is_number = isinstance(self.size_bytes, int) and not isinstance(self.size_bytes, bool)
        if not (_PATH.fullmatch(self.path) and len(self.path) <= _LONGEST_PATH):
            raise ValueError(f"{shortened(self.path)} is no path in a store")
        if not (_ATTEMPT.fullmatch(self.attempt) and _SHA256.fullmatch(self.sha256)):
            raise ValueError(f"{self.path} has no attempt, or no SHA-256")
        if not _FOLDER.fullmatch(self.folder):
            raise ValueError(f"{shortened(self.folder)} is no folder of a slice")
        if not is_number or self.size_bytes < 0:
            raise ValueError(f"{self.path} has no size")

    @property
    def name(self) -> str:
        """Its path at the URL.

        >>> PublishedFile("index/videos.parquet", "0" * 12, 4, "0" * 64).name
        'index/videos.000000000000.parquet'
        """
        path = PurePosixPath(self.path)
        return f"{self.folder}{path.with_name(f'{path.stem}.{self.attempt}{path.suffix}')}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a published store at one moment.

    Attributes:
        generation: grows by one with each manifest.
        attempt: a text that no other manifest has.
        writer: the process that published it.
        written_at: Unix time.
        files: by their paths in a store.
        former: names of files of earlier generations, which readers may still read, and the Unix
            time at which they were left out.
        store_id: of the store; empty of one that was published before there were ids.
        summaries: what a load has to know of each configuration; none of an earlier version.
    """

    generation: int
    attempt: str
    writer: str
    written_at: float
    files: Mapping[str, PublishedFile] = field(repr=False)
    former: Mapping[str, float] = field(default_factory=dict, repr=False)
    store_id: str = ""
    summaries: Mapping[str, Summary] = field(default_factory=dict, repr=False)

    def below(self, *places: str) -> list[PublishedFile]:
        """Return files of some folders, which end with a slash, and single files; no shards."""
        paths = [path for path in self.files if path.startswith(places) and not _is_shard(path)]
        return [self.files[path] for path in sorted(paths)]

    def shards(self, config: str) -> dict[str, PublishedFile]:
        """Return the shards of a configuration by their names."""
        paths = [path for path in self.files if path.startswith(f"shards/{config}/")]
        shards = [self.files[path] for path in sorted(paths) if _is_shard(path)]
        return {PurePosixPath(file.path).name: file for file in shards}

    def names(self) -> set[str]:
        """Return all that may be at the URL beside the manifest."""
        return {file.name for file in self.files.values()} | set(self.former)

    def as_json(self) -> bytes:
        """Return the content of the file."""
        files = {
            path: [file.attempt, file.size_bytes, file.sha256, file.folder][: 3 + bool(file.folder)]
            for path, file in sorted(self.files.items())
        }
        record = {
            "format": _FORMAT,
            "generation": self.generation,
            "attempt": self.attempt,
            "writer": self.writer,
            "written_at": self.written_at,
            "files": files,
            "former": dict(self.former),
            "store_id": self.store_id,
            "summaries": {name: each.as_record() for name, each in self.summaries.items()},
        }
        return json.dumps(record, separators=(",", ":")).encode()


def _is_shard(path: str) -> bool:
    return path.startswith("shards/") and path.endswith(".arrow")


def new_attempt() -> str:
    """Return a text that nobody else has."""
    return secrets.token_hex(6)


def read_manifest(content: bytes, place: str) -> Manifest:
    """Return what a manifest says.

    Args:
        content: of the file.
        place: its URL without secrets, for messages.

    Raises:
        StoreDamagedError: it is no manifest.
    """
    advice = "Check the address; if it is right, publish the store again under another URL."
    with as_own_error(StoreDamagedError, f"The manifest {place} cannot be used", advice):
        if len(content) > _MOST_BYTES:
            raise ValueError("it is too large for a manifest")
        record = json.loads(content)
        if record["format"] != _FORMAT:
            raise ValueError(f"it has format {shortened(record['format'])}, expected is {_FORMAT}")
        return _manifest(record)


def _manifest(record: Mapping[str, Any]) -> Manifest:
    if not (_ATTEMPT.fullmatch(record["attempt"]) and isinstance(record["writer"], str)):
        raise ValueError("its attempt or its writer is no such text")
    files = {path: PublishedFile(path, *values) for path, values in record["files"].items()}
    if LEDGER not in files:
        raise ValueError(f"it names no {LEDGER}")
    return Manifest(
        generation=int(record["generation"]),
        attempt=record["attempt"],
        writer=visible(shortened(record["writer"], quoted=False)),
        written_at=float(record["written_at"]),
        files=files,
        former=dict(_former(record["former"])),
        store_id=_store_id(record.get("store_id", "")),
        summaries=dict(_summaries(record.get("summaries", {}), files)),
    )


def _summaries(record: Mapping[str, Any], files: Collection[str]) -> Iterator[tuple[str, Summary]]:
    for config in CONFIG_NAMES:
        if config not in record:
            continue
        summary = Summary.of(record[config])
        # No name may lead out of the store.
        for shard in summary.shards:
            if f"shards/{config}/{shard.name}" not in files:
                raise ValueError(f"{shortened(shard.name)} is no shard of it")
        yield config, summary


def _store_id(text: Any) -> str:
    if not (text == "" or _STORE_ID.fullmatch(text)):
        raise ValueError("the id of its store is no such text")
    return str(text)


def _former(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, dropped_at in record.items():
        # Such files are removed: no name may lead out of the store.
        if not is_own_name(name):
            raise ValueError(f"{shortened(name)} is no file of a store")
        yield name, float(dropped_at)


def _without_attempt(name: str) -> str:
    path = PurePosixPath(name)
    stem, _, attempt = path.stem.rpartition(".")
    return str(path.with_name(stem + path.suffix)) if _ATTEMPT.fullmatch(attempt) else ""


def is_own_name(name: str) -> bool:
    """Return whether a name at the URL is one that a file of a store is uploaded under."""
    return bool(_PATH.fullmatch(_without_attempt(name)))
