"""Media through yt-dlp, in process: YouTube, or any address that yt-dlp understands.

Only the beginning of a file is fetched, as much as the utterances need. yt-dlp's own
``download_ranges`` hands that to ffmpeg, which crawls on YouTube and hides the reason of every
failure; so yt-dlp finds the format, and the bytes are read here, in ranged requests through
yt-dlp's networking, until enough seconds of audio are there.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.networking.exceptions import HTTPError, RequestError
from yt_dlp.utils import DownloadError, YoutubeDLError

from voxblink2_lib.errors import FetchError
from voxblink2_lib.files import named_if_disk_full
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.base import Media
from voxblink2_lib.sources.failures import fetch_error
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.prefix import Prefix, Requirement
from voxblink2_lib.sources.reasons import Reasons
from voxblink2_lib.sources.ytdlp_options import STANDARD_ERROR, ydl_options

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

# So much audio beyond the last utterance, for the decoder's and the resampler's sake.
_MARGIN_SECONDS = 1.0
_NATIVE_PROTOCOLS = {"http", "https"}


class _Downloader(YoutubeDL):  # type: ignore[misc]  # no type hints there
    """yt-dlp, and word of its first answer.

    Attributes:
        answered: called once, when the first request for a video is answered or fails.
    """

    answered: Callable[[], None] | None = None

    def urlopen(self, req: Any) -> Any:
        try:
            return super().urlopen(req)
        finally:
            if self.answered is not None:
                answered, self.answered = self.answered, None
                answered()


class YtDlpSource:
    """Fetches videos with yt-dlp.

    Args:
        template: address with ``{video_id}``.
        pictures: bring pictures and sound, and not sound alone.
        options: how to ask.
        via: the outgoing address.

    Raises:
        SourceError: an option is not allowed.
    """

    def __init__(
        self,
        template: str,
        *,
        pictures: bool = False,
        options: FetchOptions | None = None,
        via: Route | None = None,
    ) -> None:
        options = options or FetchOptions()
        self._template = template
        self._pictures = pictures
        self._reasons = Reasons.load(
            Path(options.reasons).expanduser() if options.reasons else None
        )
        self._limit_rate = options.bytes_a_second
        self._logger = _Logger()
        with STANDARD_ERROR:
            self._ydl = _Downloader(
                {
                    **ydl_options(options, via or Route()),
                    "format": _VIDEO_FORMAT if pictures else _AUDIO_FORMAT,
                    "logger": self._logger,
                }
            )

    @contextlib.contextmanager
    def fetch(
        self,
        key: VideoKey,
        *,
        needed_seconds: float,
        tmp: Path,
        answered: Callable[[], None] = lambda: None,
    ) -> Iterator[Media]:
        """See :class:`voxblink2_lib.sources.base.Source`."""
        self._logger.warnings.clear()
        self._ydl.answered = answered
        with named_if_disk_full(tmp), tempfile.TemporaryDirectory(dir=tmp) as folder:
            try:
                media = self._download(key, Path(folder), needed_seconds + _MARGIN_SECONDS)
            except (YoutubeDLError, RequestError) as error:
                warnings = tuple(self._logger.warnings)
                raise fetch_error(error, self._reasons, warnings=warnings) from error
            yield media

    def _download(self, key: VideoKey, folder: Path, needed_seconds: float) -> Media:
        address = self._template.replace("{video_id}", key.video_id)
        info = self._ydl.extract_info(address, download=False)
        if info is None or info.get("_type", "video") != "video":
            raise FetchError(
                f"{address} is not one video but {(info or {}).get('_type', 'nothing')}",
                status="ambiguous",
            )
        video, sound = folder / "media", folder / "sound"
        if "requested_formats" not in info:
            needs = Requirement(needed_seconds, sound=True, pictures=self._pictures)
            return Media(video, self._fetch(info, video, needs))
        # Pictures and sound come as two files, as YouTube keeps them.
        pair = [{**info, **one} for one in info.pop("requested_formats")]
        size_bytes = self._fetch(
            pair[0], video, Requirement(needed_seconds, sound=False, pictures=True)
        ) + self._fetch(pair[1], sound, Requirement(needed_seconds, sound=True, pictures=False))
        return Media(video, size_bytes, sound)

    def _fetch(self, info: dict[str, Any], target: Path, needs: Requirement) -> int:
        """Bring what is needed of one file; return how many bytes came."""
        if info.get("protocol") in _NATIVE_PROTOCOLS and not info.get("fragments"):
            try:
                return Prefix(self._ydl, info, target, needs, limit_rate=self._limit_rate).read()
            except HTTPError as error:
                # yt-dlp's words: the video was there a moment ago, so that a status here says
                # less of it than the same one does when it is asked for.
                raise DownloadError(
                    f"unable to download video data: {error}", sys.exc_info()
                ) from error
        ok, _ = self._ydl.dl(str(target), info)
        if not ok or not target.exists():
            raise FetchError(f"yt-dlp could not download {info['webpage_url']}")
        return target.stat().st_size


class _Logger:
    """Sends yt-dlp's messages to the library's log; errors come as exceptions as well.

    Attributes:
        warnings: what yt-dlp warned of since this list was cleared.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        _log.debug("%s", message)

    info = debug
    error = debug

    def warning(self, message: str) -> None:
        self.warnings.append(message)
        _log.info("%s", message)
