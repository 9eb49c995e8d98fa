"""Media through yt-dlp, in process: YouTube, or any address that yt-dlp understands.

Only the beginning of a file is fetched, as much as the utterances need. yt-dlp's own
``download_ranges`` hands that to ffmpeg, which crawls on YouTube and hides the reason of every
failure; so yt-dlp finds the format, and the bytes are read here, in ranged requests through
yt-dlp's networking, until enough seconds of audio are there.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, RequestError, TransportError
from yt_dlp.utils import DownloadError, YoutubeDLError

from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.files import full_disk_named
from voxblink2_lib.picture_times import read_picture_times
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import Media
from voxblink2_lib.timeline import read_timeline

_log = logging.getLogger(__name__)

# Audio alone is all that is needed; a small picture beside it does no harm.
_AUDIO_FORMAT = "bestaudio/best[height<=720]/best"
# The annotators had at most 720 lines. Of these, H.264 decodes at the least cost.
_VIDEO_FORMAT = "/".join(
    (
        "bestvideo[height<=720][vcodec^=avc1]+bestaudio/best[height<=720][vcodec^=avc1]",
        "bestvideo[height<=?720]+bestaudio/best[height<=?720]",
        "worstvideo+bestaudio/best",
    )
)
_FIRST_BYTES = 1 << 20
_CHUNK_BYTES = 8 << 20
# What a broken connection costs: the last block is lost with it.
_BLOCK_BYTES = 1 << 14
# Estimates run a little high: one request too many costs more than some bytes.
_MARGIN = 1.1
_MARGIN_BYTES = 64 << 10
# So much audio beyond the last utterance, for the decoder's and the resampler's sake.
_MARGIN_SECONDS = 1.0
_READ_TRIES = 3
# yt-dlp asks for bug reports after errors that it does not know; ours are not its bugs.
_ADVICE = re.compile(r"; please report this issue on .*", re.DOTALL)
_NATIVE_PROTOCOLS = {"http", "https"}


class YtDlpSource:
    """Fetches videos with yt-dlp.

    Args:
        template: address with ``{video_id}``.
        pictures: bring pictures and sound, and not sound alone.
    """

    def __init__(self, template: str, *, pictures: bool = False) -> None:
        self._template = template
        self._pictures = pictures
        self._ydl = YoutubeDL(
            {
                "format": _VIDEO_FORMAT if pictures else _AUDIO_FORMAT,
                "logger": _Logger(),
                "noprogress": True,
                "noplaylist": True,
                "cachedir": False,
                "retries": 3,
                "fragment_retries": 3,
                "socket_timeout": 30,
                "color": "never",
            }
        )

    @contextlib.contextmanager
    def fetch(self, key: VideoKey, *, needed_seconds: float, tmp: Path) -> Iterator[Media]:
        """See :class:`voxblink2_lib.sources.Source`."""
        with full_disk_named(tmp), tempfile.TemporaryDirectory(dir=tmp) as folder:
            try:
                media = self._download(key, Path(folder), needed_seconds + _MARGIN_SECONDS)
            except (YoutubeDLError, RequestError) as error:
                raise _fetch_error(error) from error
            yield media

    def _download(self, key: VideoKey, folder: Path, needed_seconds: float) -> Media:
        address = self._template.replace("{video_id}", key.video_id)
        info = self._ydl.extract_info(address, download=False)
        if info is None or info.get("_type", "video") != "video":
            raise FetchError(
                f"{address} is not one video but {(info or {}).get('_type', 'nothing')}"
            )
        video, sound = folder / "media", folder / "sound"
        if "requested_formats" not in info:
            needs = _Needs(needed_seconds, sound=True, pictures=self._pictures)
            return Media(video, self._fetch(info, video, needs))
        # Pictures and sound come as two files, as YouTube keeps them.
        pair = [{**info, **one} for one in info.pop("requested_formats")]
        size_bytes = self._fetch(
            pair[0], video, _Needs(needed_seconds, sound=False, pictures=True)
        ) + self._fetch(pair[1], sound, _Needs(needed_seconds, sound=True, pictures=False))
        return Media(video, size_bytes, sound)

    def _fetch(self, info: dict[str, Any], target: Path, needs: _Needs) -> int:
        """Bring what is needed of one file; return its size in bytes."""
        if info.get("protocol") in _NATIVE_PROTOCOLS and not info.get("fragments"):
            with open(target, "wb") as file:
                return _Prefix(self._ydl, info, file).read(target, needs)
        ok, _ = self._ydl.dl(str(target), info)
        if not ok or not target.exists():
            raise FetchError(f"yt-dlp could not download {info['webpage_url']}")
        return target.stat().st_size


class _Needs(NamedTuple):
    """How far a file must reach, and what it must hold."""

    seconds: float
    sound: bool
    pictures: bool


class _Prefix:
    """The beginning of a remote file, growing in a local one."""

    def __init__(self, ydl: YoutubeDL, info: dict[str, Any], file: BinaryIO) -> None:
        self._ydl = ydl
        self._info = info
        self._file = file
        self._have = 0
        self._total: int | None = info.get("filesize")
        self._whole = False

    def read(self, target: Path, needs: _Needs) -> int:
        """Read until the file covers enough, or is whole. Return its size in bytes."""
        needed_seconds = needs.seconds
        wanted = self._first_guess(needed_seconds)
        while True:
            self._grow(wanted)
            if self._whole:
                return self._have
            covered = _covered_seconds(target, needs)
            if covered >= needed_seconds:
                return self._have
            if covered > 0:
                estimate = int(self._have * needed_seconds / covered * _MARGIN) + _MARGIN_BYTES
                wanted = max(estimate, self._have + _MARGIN_BYTES)
            else:
                # Nothing can be read before the index at the end of the file is there.
                wanted = self._total or 2 * self._have

    def _first_guess(self, needed_seconds: float) -> int:
        size = self._info.get("filesize") or self._info.get("filesize_approx")
        duration, kilobits = self._info.get("duration"), self._info.get("tbr")
        if size and duration:
            bytes_a_second = size / duration
        elif kilobits:
            bytes_a_second = kilobits * 125
        else:
            return _FIRST_BYTES
        return int(bytes_a_second * needed_seconds * _MARGIN) + _MARGIN_BYTES

    def _grow(self, wanted: int) -> None:
        """Read up to a size, in requests of at most 8 MiB: larger ones are slowed down."""
        tries = _READ_TRIES
        while self._have < wanted and not self._whole:
            before = self._have
            try:
                self._request(min(wanted, self._have + _CHUNK_BYTES))
            except (TransportError, IncompleteRead):
                if tries == 1 and self._have == before:
                    raise
            self._file.flush()
            tries = _READ_TRIES if self._have > before else tries - 1
            if not tries and not self._whole:
                raise FetchError(f"the server stopped sending after {self._have} bytes")

    def _request(self, end: int) -> None:
        headers = {
            **self._info.get("http_headers", {}),
            "Accept-Encoding": "identity",
            "Range": f"bytes={self._have}-{end - 1}",
        }
        try:
            response = self._ydl.urlopen(Request(self._info["url"], headers=headers))
        except HTTPError as error:
            if error.status == 416 and self._have:
                self._whole = True
                return
            raise
        with contextlib.closing(response):
            if response.status != 206:
                # The server does not do ranges: begin again, and read on past the chunk.
                self._file.seek(0)
                self._file.truncate()
                self._have = 0
                end = 1 << 62
            total = (response.get_header("Content-Range") or "").rpartition("/")[2]
            self._total = int(total) if total.isdigit() else self._total
            if self._total is not None and response.status == 206:
                end = min(end, self._total)
            while self._have < end and (
                block := response.read(min(_BLOCK_BYTES, end - self._have))
            ):
                self._file.write(block)
                self._have += len(block)
        self._whole = response.status != 206 or self._have == self._total


def _covered_seconds(path: Path, needs: _Needs) -> float:
    """Return how far into the video the file reaches, with all that is needed of it."""
    covered = []
    try:
        if needs.pictures:
            covered.append(read_picture_times(path).end_seconds)
        if needs.sound:
            timeline = read_timeline(path)
            start = timeline.picture_start_seconds or timeline.audio_start_seconds
            covered.append(max(0.0, timeline.end_seconds - max(0.0, start)))
    except MediaError:
        return 0.0
    return min(covered)


def _fetch_error(error: Exception) -> FetchError:
    """Keep yt-dlp's own words, and say whether anything answered at all."""
    cause: BaseException | None = error
    if isinstance(error, DownloadError) and error.exc_info and error.exc_info[1]:
        cause = error.exc_info[1]
    words = _ADVICE.sub("", str(error).removeprefix("ERROR: ")).strip() or type(error).__name__
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = getattr(cause, "cause", None) or cause.__cause__ or cause.__context__
    answered = any(isinstance(one, HTTPError | IncompleteRead) for one in seen)
    silent = any(isinstance(one, TransportError) for one in seen) and not answered
    return UnreachableError(words) if silent else FetchError(words)


class _Logger:
    """Sends yt-dlp's messages to the library's log; errors come as exceptions as well."""

    def debug(self, message: str) -> None:
        _log.debug("%s", message)

    info = debug
    error = debug

    def warning(self, message: str) -> None:
        _log.info("%s", message)
