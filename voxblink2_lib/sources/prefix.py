"""The beginning of a remote file, as much as some seconds of it need, and hardly a byte more.

An MP4 file's index tells which bytes those are. Of other files what is here is read, and more is
fetched as long as it does not reach far enough.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from yt_dlp import YoutubeDL

from voxblink2_lib.errors import FetchError, MediaError
from voxblink2_lib.media.timeline import read_timeline
from voxblink2_lib.media.video_index import read_frame_times
from voxblink2_lib.sources.mp4_index import (
    MAX_INDEX_BYTES,
    Box,
    is_plain_index,
    moved_index,
    needed_bytes,
    read_layout,
)
from voxblink2_lib.sources.range_reader import FileChangedError, RangeReader, TransferMeter

# Enough to tell what a file is, and how many bytes a second it takes.
_HEAD_BYTES = 128 << 10

# Covers of albums and the like come before anything that can be played.
_FIRST_BYTES = 1 << 20

# Estimates run a little high: one request too many costs more than some bytes.
_MARGIN = 1.1
_MARGIN_BYTES = 64 << 10

# An estimate from little is a bad one.
_MOST_GROWTH = 8

# So much of a body without an end is read in vain.
_VAIN_BYTES = 64 << 20
_PAGE_STARTS = (b"<!doctype html", b"<html")
_GZIP_START = b"\x1f\x8b"


class Requirement(NamedTuple):
    """How far a file must reach, and what it must hold."""

    seconds: float
    sound: bool
    pictures: bool


class Prefix:
    """The beginning of a remote file, growing in a local one.

    Args:
        ydl: its networking is used.
        info: yt-dlp's description of the format.
        target: the local file, made anew.
        needs: how far it must reach.
        limit_rate: bytes a second at most; ``None`` means no limit.
        clock: seconds that only grow.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        ydl: YoutubeDL,
        info: dict[str, Any],
        target: Path,
        needs: Requirement,
        *,
        limit_rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._ydl = ydl
        self._info = info
        self._target = target
        self._needs = needs
        self._meter = TransferMeter(limit_rate=limit_rate, clock=clock, sleep=sleep)

    def read(self) -> int:
        """Read until the file covers enough, or is whole.

        Returns:
            The bytes that came over the network; the local file may be smaller.

        Raises:
            FetchError: the server sends something else than media, or not enough of them.
            HTTPError: the server refuses.
            TransportError: no answer came.
        """
        try:
            self._read()
        except FileChangedError:
            # Once may be chance: a file that is put in place just now.
            self._read()
        return self._meter.received

    def _read(self) -> None:
        remote = RangeReader(self._ydl, self._info, self._meter)
        with contextlib.closing(remote), open(self._target, "wb+") as file:
            growing = PrefixFile(remote, self._target, file, self._needs)
            growing.grow(_HEAD_BYTES)
            growing.refuse_pages()
            if not growing.is_whole and not growing.read_by_index():
                growing.read_by_estimate(_first_guess(self._info, self._needs.seconds))


class PrefixFile:
    """A local file that holds the first bytes of a remote one."""

    def __init__(self, remote: RangeReader, path: Path, file: BinaryIO, needs: Requirement) -> None:
        self._remote = remote
        self._path = path
        self._file = file
        self._needs = needs
        self._have = 0
        # So many bytes further on does the local file hold what the remote one holds.
        self._shift = 0
        # Nothing of the remote file from here on is of use.
        self._useful: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing more of the remote file is of use."""
        return self._have == self._useful or self._remote.is_end(self._have)

    def grow(self, wanted: int) -> None:
        """Read up to a size."""
        if self._useful is not None:
            wanted = min(wanted, self._useful)
        self._file.seek(self._have + self._shift)
        self._have = self._remote.fill(self._have, wanted, self._write)
        self._file.flush()

    def _write(self, block: bytes) -> None:
        self._file.write(block)

    def refuse_pages(self) -> None:
        """Refuse what begins as no medium does.

        Raises:
            FetchError: it is a page, something packed, or nothing.
        """
        if not self._have:
            raise FetchError("The downloaded file is empty")
        self._file.seek(0)
        start = self._file.read(512)
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE_STARTS):
            raise FetchError("the server sent a page of HTML instead of media", status="ambiguous")
        if start.startswith(_GZIP_START):
            raise FetchError("the server sent a gzip archive instead of media", status="ambiguous")

    def read_by_index(self) -> bool:
        """Read as far as the file's index says; return False if it does not say."""
        layout = read_layout(self._file, self._have)
        if layout is None:
            return False
        if layout.index is not None:
            self.grow(layout.index.end)
            self._file.seek(layout.index.start)
            is_plain = is_plain_index(self._file.read(layout.index.end - layout.index.start))
        else:
            is_plain = layout.data is not None and self._put_index_first(layout.data)
        if not is_plain or self.is_whole:
            return self.is_whole
        seconds, sound, pictures = self._needs
        needed = needed_bytes(self._path, seconds=seconds, sound=sound, pictures=pictures)
        if needed is None:
            return False
        self.grow(needed.end_bytes - self._shift)
        return self.is_whole or needed.is_all or self._covers() >= seconds

    def _put_index_first(self, data: Box) -> bool:
        """Fetch the index from behind the data and put it before them; say if that went well."""
        total = self._remote.total
        if not self._remote.sends_ranges or total is None or not self._have < data.end < total:
            return False
        if total - data.end > MAX_INDEX_BYTES:
            return False
        tail = bytearray()
        if self._remote.fill(data.end, total, tail.extend) != total:
            return False
        index = moved_index(bytes(tail), data)
        if index is None:
            return False
        self._file.seek(data.start)
        first = self._file.read(self._have - data.start)
        self._file.seek(data.start)
        self._file.write(index + first)
        self._file.flush()
        self._shift, self._useful = len(index), data.end
        return True

    def read_by_estimate(self, wanted: int) -> None:
        """Read until what is here reaches far enough.

        Raises:
            FetchError: nothing of a body without an end can be played.
        """
        best, best_at = 0.0, 0
        while not self.is_whole:
            self.grow(wanted)
            covered = self._covers()
            if covered >= self._needs.seconds:
                return
            if covered > best:
                best, best_at = covered, self._have
            # The end of such a body may never come.
            is_vain = self._remote.total is None and self._have - best_at >= _VAIN_BYTES
            if is_vain and not best:
                raise FetchError(
                    f"nothing can be played of the first {self._have} bytes, "
                    "and the server does not say how many there are",
                    status="media-unusable",
                )
            if is_vain:
                return
            wanted = self._next_size(covered)

    def _next_size(self, covered_seconds: float) -> int:
        if not covered_seconds:
            # Nothing can be played yet: how far that is away, nobody knows.
            return max(_FIRST_BYTES, 2 * self._have)
        bytes_a_second = self._have / covered_seconds
        estimate = int(bytes_a_second * self._needs.seconds * _MARGIN) + _MARGIN_BYTES
        least, most = self._have + _MARGIN_BYTES, self._have * _MOST_GROWTH
        if self._remote.total is None:
            most = min(most, self._have + _VAIN_BYTES)
        return max(least, min(estimate, most))

    def _covers(self) -> float:
        return covered_seconds(self._path, self._needs)


def _first_guess(info: dict[str, Any], needed_seconds: float) -> int:
    """Return how much of a file to fetch first, or 0 if nothing is known of it."""
    size = info.get("filesize") or info.get("filesize_approx")
    duration, kilobits = info.get("duration"), info.get("tbr")
    if size and duration:
        bytes_a_second = size / duration
    elif kilobits:
        bytes_a_second = kilobits * 125
    else:
        return 0
    return int(bytes_a_second * needed_seconds * _MARGIN) + _MARGIN_BYTES


def covered_seconds(path: Path, needs: Requirement) -> float:
    """Return how far into the video a file reaches, with all that is needed of it."""
    covered = []
    try:
        if needs.pictures:
            covered.append(read_frame_times(path).end_seconds)
        if needs.sound:
            timeline = read_timeline(path)
            start = timeline.video_start_seconds or timeline.audio_start_seconds
            covered.append(max(0.0, timeline.end_seconds - max(0.0, start)))
    except MediaError:
        return 0.0
    return min(covered)
