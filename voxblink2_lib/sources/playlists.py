"""What a stream in segments consists of: playlists of HLS (RFC 8216), and DASH as yt-dlp reads it.

Nothing is requested here: texts and descriptions become lists of segments.
"""

from __future__ import annotations

import binascii
import contextlib
import itertools
import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from yt_dlp.utils import parse_m3u8_attributes, update_url_query, urljoin

from voxblink2_lib.errors import FetchError

# The lists of broadcasts over days have fewer.
_MAX_SEGMENTS = 200_000

_BLOCK_BYTES = 16
_NUMBER = re.compile(r"\d{1,18}")

# Some services mark their advertisements, which are not part of the video.
_ADS = {"ANVATO-SEGMENT-INFO": "type=ad", "UPLYNK-SEGMENT": ",ad"}


class Key(NamedTuple):
    """The key of AES-128 in CBC mode.

    Attributes:
        url: where it is; empty if the site states it otherwise.
        given: the key itself, if the site states it.
        iv: the initialization vector, of 16 bytes.
    """

    url: str
    given: bytes
    iv: bytes


class Part(NamedTuple):
    """A file on the server, or a half-open range of its bytes.

    Attributes:
        url: of the file.
        start: position of the first byte.
        end: position after the last byte; ``None`` for the file's end.
        key: by which it is encrypted.
    """

    url: str
    start: int = 0
    end: int | None = None
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a stream.

    Attributes:
        number: counts the segments of a stream.
        part: its bytes.
        seconds: its stated duration, if any.
        init: bytes without which it cannot be read.
        is_break: its clock may have no relation to that of the segment before.
    """

    number: int
    part: Part
    seconds: float | None = None
    init: Part | None = None
    is_break: bool = False


class Playlist(NamedTuple):
    """A media playlist of HLS.

    Attributes:
        segments: in order.
        first_number: that of the first segment listed.
        is_ended: no segments will be added.
        target_seconds: no segment is longer.
    """

    segments: list[Segment]
    first_number: int
    is_ended: bool
    target_seconds: float


# -- HLS -------------------------------------------------------------------------------------------


def parse_playlist(text: str, url: str, info: Mapping[str, Any]) -> Playlist:
    r"""Parse a media playlist.

    Args:
        text: its content.
        url: where it is, after redirects.
        info: yt-dlp's description of the format, which may state a key and queries of addresses.

    Raises:
        FetchError: it is no playlist, or its segments are encrypted in a way that is not supported.

    Example:
        >>> text = "#EXTM3U\n#EXTINF:4,\na.ts\n#EXT-X-ENDLIST"
        >>> parse_playlist(text, "http://x/list.m3u8", {}).segments[0].part
        Part(url='http://x/a.ts', start=0, end=None, key=None)
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").lstrip().split("\n")]
    if lines[0] != "#EXTM3U":
        raise FetchError(
            f"the server sent no playlist: it begins with {lines[0][:40]!r}, not with #EXTM3U",
            status="ambiguous",
        )
    parser = _Parser(url, info)
    for line in filter(None, lines):
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            parser.read_tag(name, value)
        else:
            parser.add_segment(line)
    return parser.playlist()


class _Parser:
    """The state of a playlist up to a line."""

    def __init__(self, url: str, info: Mapping[str, Any]) -> None:
        self._url = url
        self._aes: Mapping[str, Any] = info.get("hls_aes") or {}
        self._query = _query(info, "extra_param_to_segment_url")
        self._key_query = _query(info, "extra_param_to_key_url") or self._query
        self._only_run: int | None = info.get("format_index")
        self._segments: list[Segment] = []
        self._number = self._first_number = self._run = 0
        self._seconds: float | None = None
        self._range: tuple[int, int] | None = None
        self._range_ends: dict[str, int] = {}
        self._byte_range = ""
        self._key: dict[str, str] = {}
        self._init: Part | None = None
        self._is_break = self._is_ad = self._is_ended = False
        self._target_seconds = 0.0

    def playlist(self) -> Playlist:
        """Return what was read."""
        return Playlist(self._segments, self._first_number, self._is_ended, self._target_seconds)

    def read_tag(self, name: str, value: str) -> None:
        """Read a line that begins with ``#``; unknown ones are comments."""
        match name:
            case "EXTINF":
                self._seconds = _seconds(value.partition(",")[0])
            case "EXT-X-BYTERANGE":
                self._byte_range = value
            case "EXT-X-MAP":
                self._read_map(parse_m3u8_attributes(value))
            case "EXT-X-KEY":
                self._key = _checked_key(parse_m3u8_attributes(value))
            case "EXT-X-DISCONTINUITY":
                self._run, self._is_break = self._run + 1, True
            case "EXT-X-MEDIA-SEQUENCE":
                self._number = self._first_number = _number(value)
            case "EXT-X-TARGETDURATION":
                self._target_seconds = _seconds(value) or 0.0
            case "EXT-X-ENDLIST":
                self._is_ended = True
            case "ANVATO-SEGMENT-INFO" | "UPLYNK-SEGMENT":
                self._is_ad = _ADS[name] in value

    def add_segment(self, address: str) -> None:
        """Read a line with the address of a segment."""
        part = self._part(address, self._byte_range)
        is_wanted = self._only_run in {None, self._run} and not self._is_ad
        if is_wanted and len(self._segments) < _MAX_SEGMENTS:
            self._segments.append(
                Segment(self._number, part, self._seconds, self._init, self._is_break)
            )
            self._is_break = False
        self._number += 1
        self._seconds, self._byte_range = None, ""

    def _read_map(self, attributes: Mapping[str, str]) -> None:
        byte_range = attributes.get("BYTERANGE", "")
        if byte_range and "@" not in byte_range:
            byte_range += "@0"
        self._init = self._part(attributes.get("URI", ""), byte_range)

    def _part(self, address: str, byte_range: str) -> Part:
        url = _absolute(self._url, address, self._query)
        if not byte_range:
            return Part(url, key=self._current_key())
        length, _, offset = byte_range.partition("@")
        # Without an offset it follows the range before, of the same file.
        start = _number(offset) if offset else self._range_ends.get(url, 0)
        self._range_ends[url] = start + _number(length)
        return Part(url, start, self._range_ends[url], self._current_key())

    def _current_key(self) -> Key | None:
        if not self._key:
            return None
        iv = self._aes.get("iv") or self._key.get("IV") or f"{self._number:x}"
        given = self._aes.get("key")
        url = "" if given else _absolute(self._url, self._key.get("URI"), self._key_query)
        return Key(url, _hex(given or ""), _hex(iv).rjust(_BLOCK_BYTES, b"\0"))


def _checked_key(attributes: dict[str, str]) -> dict[str, str]:
    """Return the attributes of a key, or nothing for what is not encrypted."""
    method = attributes.get("METHOD", "NONE")
    if method == "NONE":
        return {}
    if attributes.get("KEYFORMAT", "identity") != "identity" or attributes.get(
        "URI", ""
    ).startswith("skd:"):
        raise FetchError("This video is DRM protected, as its playlist states", status="gone")
    if method != "AES-128":
        raise FetchError(
            f"the segments are encrypted by {method[:40]!r}; only AES-128 is supported",
            status="media-unusable",
        )
    return attributes


def _absolute(base: str | None, address: Any, query: Mapping[str, Any]) -> str:
    """Return the address of a file that is named in a playlist.

    Raises:
        FetchError: it is none of a web server.
    """
    with contextlib.suppress(ValueError):  # as "http://["
        url = urljoin(base, address) or address
        if urllib.parse.urlsplit(url).scheme in {"http", "https"}:
            return str(update_url_query(url, query) if query else url)
    raise FetchError(
        f"the playlist contains {str(address or '')[:200]!r}, which is no address of a web server",
        status="media-unusable",
    )


def _query(info: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    return urllib.parse.parse_qs(info.get(name) or "")


def _hex(text: str) -> bytes:
    digits = text[2:] if text[:2].lower() == "0x" else text
    try:
        return binascii.unhexlify(digits.zfill(len(digits) + len(digits) % 2))
    except (binascii.Error, ValueError):
        raise _malformed(text) from None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise _malformed(text)
    return int(text)


def _malformed(text: str) -> FetchError:
    return FetchError(
        f"the playlist contains {text[:40]!r} where a number is needed", status="media-unusable"
    )


def _seconds(text: Any) -> float | None:
    """Return a duration, or ``None`` for what is none."""
    with contextlib.suppress(ValueError, TypeError):
        seconds = float(text)
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    return None


# -- DASH ------------------------------------------------------------------------------------------


def dash_segments(info: Mapping[str, Any]) -> Iterator[Segment]:
    """Yield the segments of a DASH format.

    Of those that state durations, one without is an initialization of those behind it.

    Args:
        info: yt-dlp's description of the format.

    Raises:
        FetchError: an address is missing, or of no web server.
    """
    fragments = list(itertools.islice(info["fragments"], _MAX_SEGMENTS))
    durations = [_seconds(fragment.get("duration")) for fragment in fragments]
    query = _query(info, "extra_param_to_segment_url")
    init: Part | None = None
    for number, (fragment, seconds) in enumerate(zip(fragments, durations, strict=True)):
        address = fragment.get("url") or fragment.get("path")
        part = Part(_absolute(info.get("fragment_base_url"), address, query))
        if seconds is None and any(durations):
            init = part
        else:
            yield Segment(number, part, seconds, init)
