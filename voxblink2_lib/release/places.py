"""Places that have files of the release: buckets, repositories of the Hub, sites, folders.

What they share with the authors' folder (``voxblink2_lib/release/drive.py``) is the protocol
:class:`Place`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from voxblink2_lib.archive.remote import RemoteFile, RemoteFolder, find_remote, is_url, local_path
from voxblink2_lib.archive.remote_reader import RemoteReader
from voxblink2_lib.archive.urls import is_web
from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.records import is_speaker_id
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.release.release_parts import PARTS, part_of

_BLOCK_BYTES = 1 << 20
_MOST_LEVELS = 8
_UNPACKED = ("meta", "spk_info", "asr_res")
_HUB_PAGE = re.compile(r"https://huggingface\.co/datasets/([^/]+/[^/]+)(?:/tree/([^/]+))?/?")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Offer:
    """A file that a place has.

    Attributes:
        part: name of its part of the release.
        path: its place in a folder of the release.
        address: where it is, for people.
        key: where it is, for the place; may hold secrets.
        size_bytes: its size; ``None`` if the place does not say.
        version: changes with its content; may be empty.
        checksums: what the place says of its content: ``md5``, ``sha256``, ``git`` (the id that
            git gives it), or ``etag``, which in buckets is often, but not always, its MD5.
    """

    part: str
    path: str
    address: str
    key: str = field(repr=False)
    size_bytes: int | None
    version: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)


class Digests:
    """Checksums of a file that comes in pieces.

    Args:
        git_bytes: size of the file, where the id that git gives it is wanted.
    """

    def __init__(self, git_bytes: int | None = None) -> None:
        self.size_bytes = 0
        self._digests = {
            name: hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha256")
        }
        if git_bytes is not None:
            begin = b"blob %d\0" % git_bytes
            self._digests["git"] = hashlib.sha1(begin, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take the next piece."""
        self.size_bytes += len(data)
        for digest in self._digests.values():
            digest.update(data)

    def __getitem__(self, name: str) -> str:
        return self._digests[name].hexdigest()

    def take_file(self, path: Path, advance: Callable[[int], object] = lambda _: None) -> None:
        """Take all of a file."""
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                self.update(block)
                advance(len(block))


class Place(Protocol):
    """Where files of the release are.

    Attributes:
        name: its address, without secrets.
    """

    @property
    def name(self) -> str:
        """Its address, without secrets."""

    def offers(self, parts: Sequence[str]) -> list[Offer]:
        """Return the files of some parts that it has.

        Raises:
            SourceError, ReleaseError: it cannot be read.
        """

    def kept_bytes(self, partial: Path) -> int:
        """Return how much an earlier run kept of a file."""

    def save(
        self, offer: Offer, partial: Path, digests: Digests | None, advance: Callable[[int], object]
    ) -> None:
        """Download a file, from where an earlier run was.

        Args:
            offer: the file.
            partial: where to put it; may be there in part.
            digests: take what comes; ``None`` if there is something already.
            advance: counts bytes that come.

        Raises:
            SourceError, ReleaseError: it is not sent.
        """


class UrlPlace:
    """A place that fsspec reads.

    Args:
        named: a URL of a folder or of one file, which may hold secrets; or a local folder.
    """

    def __init__(self, named: str) -> None:
        if page := _HUB_PAGE.fullmatch(named):  # as copied from a browser
            named = f"hf://datasets/{page[1]}@{page[2] or 'main'}"
        self._url = named if is_url(named) else f"file://{local_path(named).absolute()}"

    @property
    def name(self) -> str:
        """Its address, without secrets."""
        return redacted_source(self._url)

    def offers(self, parts: Sequence[str]) -> list[Offer]:
        """Return the files of some parts that it has. Of a site, those of the usual names."""
        named = ((part_of(path), file) for path, file in self._files(parts))
        return [_offer(*known, file) for known, file in named if known and known[0] in parts]

    def _files(self, parts: Sequence[str]) -> Iterator[tuple[str, RemoteFile]]:
        place = self._site() if is_web(self._url) else find_remote(self._url)
        if isinstance(place, RemoteFile):
            yield place.name, place
        elif place is None:
            raise ReleaseError(f"There is nothing at {self.name}. Check the address.")
        elif is_web(self._url):
            yield from _usual_files(place, parts)
        else:
            yield from place.walk(_may_have_parts, levels=_MOST_LEVELS)

    def _site(self) -> RemoteFile | RemoteFolder:
        """Return a site's folder, which need not have a page, or its file."""
        folder = RemoteFolder(self._url.rstrip("/"))
        if part_of(folder.name) is None:
            return folder
        return find_remote(self._url) or folder

    def kept_bytes(self, partial: Path) -> int:
        """Return how much an earlier run kept of a file."""
        return partial.stat().st_size if partial.exists() else 0

    def save(
        self, offer: Offer, partial: Path, digests: Digests | None, advance: Callable[[int], object]
    ) -> None:
        """Download a file; see :class:`Place`."""
        assert offer.size_bytes is not None
        # Each write is complete when it returns: what is killed has all that it wrote.
        with (
            open(partial, "ab", buffering=0) as file,
            RemoteReader(offer.key, offer.size_bytes, offset=file.tell()) as reader,
        ):
            while block := reader.read(_BLOCK_BYTES):
                file.write(block)
                if digests is not None:
                    digests.update(block)
                advance(len(block))


def _may_have_parts(folder: str) -> bool:
    """Return whether a folder may have files that are asked for: not the millions of a speaker."""
    return not (is_speaker_id(folder) or folder in _UNPACKED)


def _usual_files(folder: RemoteFolder, parts: Sequence[str]) -> Iterator[tuple[str, RemoteFile]]:
    """Yield what a site has under the usual names: pages of links would lead anywhere."""
    for path in (path for name in parts for path in PARTS[name].files):
        for inner in dict.fromkeys((path, path.removeprefix("data/"))):
            file = find_remote(folder.child(inner))
            if isinstance(file, RemoteFile):
                yield inner, file
                break


def _offer(part: str, path: str, file: RemoteFile) -> Offer:
    checksums = _checksums(file.facts)
    return Offer(part, path, str(file), file.url, file.size_bytes, file.version, checksums)


def _checksums(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums among the facts that a file system of fsspec has."""
    checksums = {}
    lfs = facts.get("lfs")
    if sha256 := getattr(lfs, "sha256", None):
        checksums["sha256"] = str(sha256)
    elif blob_id := facts.get("blob_id"):
        checksums["git"] = str(blob_id)
    for name in ("md5Hash", "Content-MD5"):  # of Google's buckets, of HTTP; in Base64
        try:
            md5 = base64.b64decode(str(facts.get(name, "")), validate=True).hex()
        except (binascii.Error, ValueError):
            continue
        if _MD5.fullmatch(md5):
            checksums["md5"] = md5
    etag = str(facts.get("ETag") or facts.get("etag") or "").strip('"')
    if _MD5.fullmatch(etag):
        checksums["etag"] = etag
    return checksums
