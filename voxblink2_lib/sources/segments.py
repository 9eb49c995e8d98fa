"""Download the beginning of a stream in segments (HLS, DASH): those of the needed seconds.

    playlist   |init|seg 0|seg 1|seg 2|seg 3| ...   durations as stated
    needed      ------------------->|
    file       |init|seg 0|seg 1|seg 2|             concatenated, as FFmpeg reads it

The first segment begins at time 0 of the video. No program is started, and none of yt-dlp's
downloaders: these read a stream to its end, which a broadcast does not have.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from yt_dlp import YoutubeDL
from yt_dlp.aes import aes_cbc_decrypt_bytes
from yt_dlp.networking.exceptions import HTTPError, RequestError

from voxblink2_lib.errors import FetchError
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.sources.playlists import (
    Key,
    Part,
    Playlist,
    Segment,
    dash_segments,
    parse_playlist,
)
from voxblink2_lib.sources.prefix import PAGE_BYTES, Requirement, refuse_pages
from voxblink2_lib.sources.range_reader import RangeReader, twice_if_changed
from voxblink2_lib.sources.transfer_meter import TransferMeter

_log = logging.getLogger(__name__)

HLS_PROTOCOLS = {"m3u8", "m3u8_native"}
DASH_PROTOCOLS = {"http_dash_segments"}

_MAX_PLAYLIST_BYTES = 32 << 20
_MAX_KEY_BYTES = 1024
_BLOCK_BYTES = 16

# They are decrypted in memory.
_MAX_ENCRYPTED_BYTES = 64 << 20

# A broadcast whose playlist has not grown for so long has ended without saying so.
_STALLED_SECONDS = 60.0
_MAX_REFRESH_SECONDS = 30.0
_MAX_RETRY_SECONDS = 30.0

# Stated durations are rounded; the wrong ones are followed up to this multiple of what is needed.
_MAX_STATED = 2.0

# The file is read again after it has grown by this.
_RECHECK_GROWTH = 1.1

# Whether a clock goes on behind a break: by how much the seconds may differ from those stated.
_BREAK_TOLERANCE_SECONDS = 0.5
_END_OF_FILE = 1 << 62


def download_segments(
    ydl: YoutubeDL,
    info: dict[str, Any],
    target: Path,
    requirement: Requirement,
    *,
    meter: TransferMeter,
) -> None:
    """Download segments until they cover the requirement, or there are no more.

    Args:
        ydl: its networking is used.
        info: yt-dlp's description of the format.
        target: the local file, which is overwritten.
        requirement: what it must cover.
        meter: counts the bytes: of segments, keys and playlists.

    Raises:
        FetchError: the server sends something other than media, or too little.
        HTTPError: the server refuses.
        TransportError: the server does not answer.
    """
    twice_if_changed(lambda: _download(_Server(ydl, info, meter), target, requirement))


def _download(server: _Server, target: Path, requirement: Requirement) -> None:
    with contextlib.closing(server), open(target, "wb+") as file:
        _SegmentFile(server, target, file, requirement).read(server.segments())


def are_served(ydl: YoutubeDL, info: dict[str, Any], meter: TransferMeter) -> bool:
    """Return whether the first segment of a stream can be read; see :func:`download_segments`."""
    with contextlib.closing(_Server(ydl, info, meter)) as server:
        try:
            first = next(server.segments(), None)
            return first is not None and server.is_served(first.part)
        except (FetchError, RequestError):
            return False


# -- What is on the server -------------------------------------------------------------------------


class _Server:
    """Reads playlists, keys and segments."""

    def __init__(self, ydl: YoutubeDL, info: dict[str, Any], meter: TransferMeter) -> None:
        self._ydl = ydl
        self._info = info
        self.meter = meter
        self._url = ""
        self._reader: RangeReader | None = None
        self._keys: dict[str, bytes] = {}

    def close(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def segments(self) -> Iterator[Segment]:
        """Yield the segments of the stream, of a broadcast as they are added.

        Raises:
            FetchError: the playlist is not one, or not readable, or has left segments out.
        """
        if self._info.get("protocol") in HLS_PROTOCOLS:
            return self._hls_segments()
        return self._dash_segments()

    def _dash_segments(self) -> Iterator[Segment]:
        yield from dash_segments(self._info)
        if self._info.get("is_live"):
            raise FetchError("the broadcast goes on, and its manifest lists less than is needed")

    def _hls_segments(self) -> Iterator[Segment]:
        playlist = self._playlist(is_first=True)
        number, grown = playlist.first_number, self.meter.now
        while True:
            if playlist.first_number > number:
                raise FetchError(
                    f"the broadcast went on: segment {number} is needed, and its playlist now "
                    f"begins with segment {playlist.first_number}"
                )
            added = [segment for segment in playlist.segments if segment.number >= number]
            for segment in added:
                yield segment
                number = segment.number + 1
            grown = self.meter.now if added else grown
            if playlist.is_ended or self.meter.now - grown >= _STALLED_SECONDS:
                return
            self.meter.wait(min(max(1.0, playlist.target_seconds / 2), _MAX_REFRESH_SECONDS))
            playlist = self._playlist()

    def _playlist(self, *, is_first: bool = False) -> Playlist:
        url = self._info["url"]
        text = self._info.get("hls_media_playlist_data") if is_first else None
        if not text:
            body, url = self._document(url, _MAX_PLAYLIST_BYTES)
            text = body.decode("utf-8", "replace")
        return parse_playlist(text, url, self._info)

    def _document(self, url: str, most: int) -> tuple[bytes, str]:
        """Return a short file, and its address after redirects."""
        body = bytearray()
        reader = RangeReader(
            self._ydl, {**self._info, "url": url}, self.meter, asks_range=False, is_media=False
        )
        with contextlib.closing(reader):
            self._retried(lambda: reader.read_into(body.extend, len(body), most + 1))
        if len(body) > most:
            raise FetchError(
                f"the playlist or key is longer than {most} bytes", status="media-unusable"
            )
        return bytes(body), reader.final_url

    def write(self, part: Part, file: BinaryIO) -> None:
        """Append a part to a file.

        Raises:
            FetchError: the part is empty, ends early, is no media, or cannot be decrypted.
        """
        start = file.seek(0, 2)
        self._copy(part, file)
        if part.key:
            self._decrypt(part.key, file, start)
        file.seek(start)
        refuse_pages(file.read(PAGE_BYTES))

    def is_served(self, part: Part) -> bool:
        """Return whether the first bytes of a part can be read."""
        body = bytearray()
        end = part.start + PAGE_BYTES
        self._reader_of(part).read_into(body.extend, part.start, min(end, part.end or end))
        return bool(body)

    def _copy(self, part: Part, file: BinaryIO) -> None:
        before = file.tell() - part.start
        reader, end = self._reader_of(part), part.end or _END_OF_FILE
        self._retried(lambda: reader.read_into(file.write, file.tell() - before, end))
        length = file.tell() - before - part.start
        if part.end is not None and length < part.end - part.start:
            raise FetchError(
                f"a segment ends after {length} bytes; its playlist states {part.end - part.start}"
            )

    def _reader_of(self, part: Part) -> RangeReader:
        # Ranges of one file are of one version of it, and of one answer if that is the whole.
        if self._reader is None or self._url != part.url:
            self.close()
            self._url = part.url
            described = {**self._info, "url": part.url}
            asks_range = part.end is not None
            self._reader = RangeReader(self._ydl, described, self.meter, asks_range=asks_range)
        return self._reader

    def _retried(self, read: Callable[[], object]) -> None:
        """Read; repeat that, with growing waits, while the server has an error of its own."""
        retries = self._ydl.params.get("fragment_retries") or 0
        failures = 0
        while True:
            try:
                read()
                return
            except HTTPError as error:
                if error.status < 500 or failures >= retries:
                    raise
                error.close()
            self.meter.wait(min(2.0**failures, _MAX_RETRY_SECONDS))
            failures += 1

    def _decrypt(self, key: Key, file: BinaryIO, start: int) -> None:
        file.seek(start)
        data = file.read(_MAX_ENCRYPTED_BYTES + 1)
        if len(data) > _MAX_ENCRYPTED_BYTES:
            raise FetchError(
                f"an encrypted segment is longer than {_MAX_ENCRYPTED_BYTES} bytes",
                status="media-unusable",
            )
        content = self._key(key)
        is_whole = data and not len(data) % _BLOCK_BYTES and len(key.iv) == _BLOCK_BYTES
        plain = aes_cbc_decrypt_bytes(data, content, key.iv) if is_whole else b""
        # PKCS 7: the last byte is the number of bytes that fill the last block.
        if not plain or not 1 <= plain[-1] <= _BLOCK_BYTES:
            raise FetchError(
                f"a segment of {len(data)} bytes cannot be decrypted", status="media-unusable"
            )
        file.truncate(start)
        file.seek(start)
        file.write(plain[: -plain[-1]])

    def _key(self, key: Key) -> bytes:
        content = key.given or self._keys.get(key.url)
        if content is None:
            content, _ = self._document(key.url, _MAX_KEY_BYTES)
            self._keys[key.url] = content
        if len(content) != _BLOCK_BYTES:
            raise FetchError(
                f"the server sent {len(content)} bytes for the key of the segments, "
                f"{_BLOCK_BYTES} are needed",
                status="ambiguous",
            )
        return content


# -- The local file --------------------------------------------------------------------------------


class _SegmentFile:
    """A local file that grows by segments."""

    def __init__(
        self, server: _Server, path: Path, file: BinaryIO, requirement: Requirement
    ) -> None:
        self._server = server
        self._path = path
        self._file = file
        self._requirement = requirement
        self._init: Part | None = None
        self._init_content = b""
        self._size = 0
        self._recheck_size = 0
        self._stated_seconds = 0.0

    def read(self, segments: Iterator[Segment]) -> None:
        """Append segments until they are enough."""
        for segment in segments:
            if not self._append(segment) or self._is_enough(segment):
                return
        if not self._size:
            raise FetchError("the playlist lists no segments")

    def _append(self, segment: Segment) -> bool:
        """Append a segment; return whether it is of the stream and the clock of those before."""
        size, is_new = self._size, segment.init != self._init
        is_break = bool(size) and (segment.is_break or is_new)
        before_seconds = self._covered_seconds() if is_break else 0.0
        is_of_stream = not is_new or self._begin(segment.init)
        if is_of_stream:
            self._server.write(segment.part, self._file)
            self._file.flush()
            is_of_stream = not is_break or self._goes_on(segment, before_seconds)
        if not is_of_stream:
            self._file.truncate(size)
            _log.info("segment %d begins another stream, which is left out", segment.number)
            return False
        self._size = self._file.seek(0, 2)
        self._stated_seconds += segment.seconds or 0.0
        return True

    def _begin(self, init: Part | None) -> bool:
        """Append an initialization; a later one must be the same, and is left out again."""
        if init is None:
            return False
        self._server.write(init, self._file)
        self._file.seek(self._size)
        content = self._file.read()
        if not self._size:
            self._init, self._init_content = init, content
            return True
        self._file.truncate(self._size)
        self._init = init
        return content == self._init_content

    def _goes_on(self, segment: Segment, before_seconds: float) -> bool:
        """Return whether the last segment, behind a break, makes the file longer as stated.

        Its time stamps would place it elsewhere if its clock began anew: that would be other
        audio in the place of what is needed.
        """
        grown = self._covered_seconds() - before_seconds
        if segment.seconds is None:
            return grown > 0
        return abs(grown - segment.seconds) <= _BREAK_TOLERANCE_SECONDS

    def _is_enough(self, last: Segment) -> bool:
        needed, stated = self._requirement.seconds, self._stated_seconds
        if last.seconds is not None and stated < needed:
            return False
        if self._size < self._recheck_size:
            return False
        self._recheck_size = int(self._size * _RECHECK_GROWTH)
        covered = self._covered_seconds()
        is_useless = stated >= needed and (not covered or stated >= _MAX_STATED * needed)
        return covered >= needed or is_useless

    def _covered_seconds(self) -> float:
        return covered_seconds(
            self._path, audio=self._requirement.audio, video=self._requirement.video
        )
