"""Download the beginning of a remote file: what some seconds of it need, and little more.

The index of an MP4 file gives the exact number of bytes. For other files the downloaded part is
read, and more is downloaded until it covers enough seconds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from yt_dlp import YoutubeDL

from voxblink2_lib.errors import FetchError
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.sources.mp4_index import (
    MAX_INDEX_BYTES,
    Box,
    is_plain_index,
    moved_index,
    needed_bytes,
    read_layout,
)
from voxblink2_lib.sources.range_reader import RangeReader, twice_if_changed
from voxblink2_lib.sources.transfer_meter import TransferMeter

# Enough to recognize the format, and to estimate the bytes a second.
_HEAD_BYTES = 128 << 10

# Covers of albums and the like are stored before anything that can be played.
_FIRST_BYTES = 1 << 20

# Estimates are a little high: one request too many costs more than some bytes.
_MARGIN = 1.1
_MARGIN_BYTES = 64 << 10

# An estimate from a small part is inaccurate.
_MAX_GROWTH = 8

# Without progress, at most this much of a body of unknown length is read.
_MAX_USELESS_BYTES = 64 << 20
_HTML_STARTS = (b"<!doctype html", b"<html")

# Enough to tell a page from media.
PAGE_BYTES = 512
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_START = b"\x1f\x8b"


class Requirement(NamedTuple):
    """What a prefix must cover.

    Attributes:
        seconds: from the start of the video.
        audio: whether audio is needed.
        video: whether video is needed.
    """

    seconds: float
    audio: bool
    video: bool


def download_prefix(
    ydl: YoutubeDL,
    info: dict[str, Any],
    target: Path,
    requirement: Requirement,
    *,
    meter: TransferMeter,
) -> None:
    """Download a file until it covers the requirement, or is complete.

    Args:
        ydl: its networking is used.
        info: yt-dlp's description of the format.
        target: the local file, which is overwritten.
        requirement: what it must cover.
        meter: counts the bytes; the local file may be smaller.

    Raises:
        FetchError: the server sends something other than media, or too little.
        HTTPError: the server refuses.
        TransportError: the server does not answer.
    """
    twice_if_changed(lambda: _download(RangeReader(ydl, info, meter), info, target, requirement))


def _download(
    reader: RangeReader, info: dict[str, Any], target: Path, requirement: Requirement
) -> None:
    with contextlib.closing(reader), open(target, "wb+") as file:
        prefix = PrefixFile(reader, target, file, requirement)
        prefix.grow(_HEAD_BYTES)
        prefix.refuse_pages()
        if not prefix.is_complete and not prefix.read_by_index():
            prefix.read_by_estimate(_first_guess(info, requirement.seconds))


class PrefixFile:
    """A local file that grows by the first bytes of a remote one.

    Args:
        reader: the remote file.
        path: the local file.
        file: the same, open for reading and writing.
        requirement: what it must cover.
    """

    def __init__(
        self, reader: RangeReader, path: Path, file: BinaryIO, requirement: Requirement
    ) -> None:
        self._reader = reader
        self._path = path
        self._file = file
        self._requirement = requirement
        self._size = 0
        # Bytes of the index that were inserted before the data, and so move the rest.
        self._inserted = 0
        # The remote file is useful up to here.
        self._useful_end: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the rest of the remote file is of no use."""
        return self._size == self._useful_end or self._reader.is_end(self._size)

    def grow(self, size: int) -> None:
        """Download up to a size of the remote file."""
        if self._useful_end is not None:
            size = min(size, self._useful_end)
        self._file.seek(self._size + self._inserted)
        self._size = self._reader.read_into(self._file.write, self._size, size)
        self._file.flush()

    def refuse_pages(self) -> None:
        """Refuse a file that does not begin like media.

        Raises:
            FetchError: it is an HTML page, a gzip archive, or empty.
        """
        self._file.seek(0)
        refuse_pages(self._file.read(PAGE_BYTES))

    def read_by_index(self) -> bool:
        """Download what the file's index states; return whether that covers the requirement."""
        layout = read_layout(self._file, self._size)
        if layout is None:
            return False
        if layout.index is not None:
            self.grow(layout.index.end)
            self._file.seek(layout.index.start)
            is_plain = is_plain_index(self._file.read(layout.index.end - layout.index.start))
        else:
            is_plain = layout.data is not None and self._put_index_first(layout.data)
        if not is_plain or self.is_complete:
            return self.is_complete
        seconds, audio, video = self._requirement
        needed = needed_bytes(self._path, seconds=seconds, audio=audio, video=video)
        if needed is None:
            return False
        end = needed.end_bytes - self._inserted
        self._reader.meter.allow(max(0, end - self._size))
        self.grow(end)
        return self.is_complete or needed.is_all or self._covered_seconds() >= seconds

    def _put_index_first(self, data: Box) -> bool:
        """Download the index from behind the data and insert it before; return whether it fits."""
        total = self._reader.total
        if not self._reader.sends_ranges or total is None or not self._size < data.end < total:
            return False
        if total - data.end > MAX_INDEX_BYTES:
            return False
        tail = bytearray()
        if self._reader.read_into(tail.extend, data.end, total) != total:
            return False
        index = moved_index(bytes(tail), data)
        if index is None:
            return False
        self._file.seek(data.start)
        first = self._file.read(self._size - data.start)
        self._file.seek(data.start)
        self._file.write(index + first)
        self._file.flush()
        self._inserted, self._useful_end = len(index), data.end
        return True

    def read_by_estimate(self, size: int) -> None:
        """Download until the local file covers the requirement.

        Args:
            size: the first estimate.

        Raises:
            FetchError: a body of unknown length contains nothing that can be played.
        """
        best_seconds, best_size = 0.0, 0
        while not self.is_complete:
            self.grow(size)
            covered = self._covered_seconds()
            if covered >= self._requirement.seconds:
                return
            if covered > best_seconds:
                best_seconds, best_size = covered, self._size
            # A body of unknown length may never end.
            is_useless = self._reader.total is None and (
                self._size - best_size >= _MAX_USELESS_BYTES
            )
            if is_useless and not best_seconds:
                raise FetchError(
                    f"nothing can be played of the first {self._size} bytes, "
                    "and the server does not state the file's length",
                    status="media-unusable",
                )
            if is_useless:
                return
            size = self._next_size(covered)

    def _next_size(self, covered_seconds: float) -> int:
        if not covered_seconds:
            # Nothing can be played yet: there is no basis for an estimate.
            return max(_FIRST_BYTES, 2 * self._size)
        bytes_a_second = self._size / covered_seconds
        estimate = int(bytes_a_second * self._requirement.seconds * _MARGIN) + _MARGIN_BYTES
        least, most = self._size + _MARGIN_BYTES, self._size * _MAX_GROWTH
        if self._reader.total is None:
            most = min(most, self._size + _MAX_USELESS_BYTES)
        return max(least, min(estimate, most))

    def _covered_seconds(self) -> float:
        return covered_seconds(
            self._path, audio=self._requirement.audio, video=self._requirement.video
        )


def refuse_pages(start: bytes) -> None:
    """Refuse a body that does not begin like media.

    Args:
        start: its first bytes, :data:`PAGE_BYTES` of them or all.

    Raises:
        FetchError: it is an HTML page, a gzip archive, or empty.
    """
    if not start:
        raise FetchError("The downloaded file is empty")
    if start.removeprefix(_BYTE_ORDER_MARK).lstrip().lower().startswith(_HTML_STARTS):
        raise FetchError("the server sent a page of HTML instead of media", status="ambiguous")
    if start.startswith(_GZIP_START):
        raise FetchError("the server sent a gzip archive instead of media", status="ambiguous")


def _first_guess(info: dict[str, Any], needed_seconds: float) -> int:
    """Return how many bytes to download first, or 0 without a basis for an estimate."""
    size = info.get("filesize") or info.get("filesize_approx")
    duration, kilobits = info.get("duration"), info.get("tbr")
    if size and duration:
        bytes_a_second = size / duration
    elif kilobits:
        bytes_a_second = kilobits * 125
    else:
        return 0
    return int(bytes_a_second * needed_seconds * _MARGIN) + _MARGIN_BYTES
