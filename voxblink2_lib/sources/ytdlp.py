"""Download media with yt-dlp, in process: from YouTube, or from any URL that yt-dlp supports.

Only the beginning of a file is downloaded, as much as the utterances need. yt-dlp's own
``download_ranges`` leaves that to ffmpeg, which is slow on YouTube and hides the reason of every
failure; so yt-dlp selects the format, and the bytes are read here, in ranged requests through
yt-dlp's networking, until they cover enough seconds.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, RequestError
from yt_dlp.utils import DownloadError, YoutubeDLError

from voxblink2_lib.errors import FetchError, SourceError
from voxblink2_lib.files import named_if_disk_full
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts
from voxblink2_lib.records import VideoKey
from voxblink2_lib.redaction import redact, secrets_in, secrets_in_cookies
from voxblink2_lib.sources.base import VIDEO_ID_FIELD, Media
from voxblink2_lib.sources.failures import fetch_error
from voxblink2_lib.sources.format_choice import (
    NOTHING_TO_PLAY,
    FormatChoice,
    choose_formats,
    client_of,
)
from voxblink2_lib.sources.host_headers import HostHeaders
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.plugins import allow_plugins
from voxblink2_lib.sources.prefix import Requirement, download_prefix
from voxblink2_lib.sources.reasons import Reasons
from voxblink2_lib.sources.ytdlp_options import STANDARD_ERROR, ydl_options

_log = logging.getLogger(__name__)

# Audio beyond the last utterance, which the decoder and the resampler need.
_MARGIN_SECONDS = 1.0
_NATIVE_PROTOCOLS = {"http", "https"}


class _Downloader(YoutubeDL):  # type: ignore[misc]  # no type hints there
    """A ``YoutubeDL`` that reports its first answer, and the language of the video at hand.

    Args:
        params: options of yt-dlp. Of their ``http_headers`` each goes to the source's host only.

    Attributes:
        answered: called once, when the first request for a video is answered or fails.
        language: of the video as a whole, where the site states it.
    """

    answered: Callable[[], None] | None = None
    language: str | None = None

    def __init__(self, params: dict[str, Any]) -> None:
        headers = dict(params.pop("http_headers", None) or {})
        cookies = [headers.pop(name) for name in [*headers] if name.lower() == "cookie"]
        self._cookie_header = "; ".join(cookies)
        self._host_headers = HostHeaders(headers)
        super().__init__(params)

    def begin(self, url: str) -> None:
        """Send the user's headers to the host of this URL from now on."""
        self._host_headers.begin(url)
        if self._cookie_header:
            self._load_cookies(self._cookie_header, autoscope=url)

    def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
        director = super().build_request_director(handlers, preferences)
        for handler in director.handlers.values():
            self._host_headers.guard(handler)
        return director

    def urlopen(self, req: Any) -> Any:
        if isinstance(req, str):
            req = Request(req)
        self._host_headers.add_to(req, self.params["http_headers"])
        try:
            return super().urlopen(req)
        finally:
            if self.answered is not None:
                answered, self.answered = self.answered, None
                answered()

    def process_video_result(self, info_dict: Any, download: bool = True) -> Any:
        # What selects formats is given nothing but the formats.
        self.language = info_dict.get("language")
        return super().process_video_result(info_dict, download)

    def can_play(self, form: dict[str, Any]) -> bool:
        """Return whether a format can be downloaded; tested where yt-dlp doubts it."""
        is_doubtful = form.get("has_drm") or form.get("__needs_testing")
        return not is_doubtful or bool(list(self._check_formats([form])))


class YtDlpSource:
    """Downloads videos with yt-dlp.

    Args:
        template: URL with ``{video_id}``.
        with_video: download video and audio, not audio only.
        options: the user's options.
        route: proxy and cookies of requests.

    Raises:
        SourceError: an option is not allowed, or a file of cookies cannot be read.
    """

    def __init__(
        self,
        template: str,
        *,
        with_video: bool = False,
        options: FetchOptions | None = None,
        route: Route | None = None,
    ) -> None:
        options = options or FetchOptions()
        self._template = template
        self._with_video = with_video
        self._reasons = Reasons.load(
            Path(options.reasons).expanduser() if options.reasons else None
        )
        self._limit_rate = options.bytes_a_second
        route = route or Route()
        secrets = _secrets_of(template, options, route)
        self._redact = functools.partial(redact, secrets=secrets)
        self._logger = _Logger(self._redact)
        self._facts = NO_FACTS
        # Weakly: a source in a circle of references would outlive the worker that drops it.
        this = weakref.proxy(self)
        allow_plugins(not options.no_plugins)
        with STANDARD_ERROR:
            self._ydl = _Downloader(
                {
                    **ydl_options(options, route),
                    "format": lambda context: this._select(context),  # noqa: PLW0108  # a strong one
                    "logger": self._logger,
                }
            )
        if route.cookies:
            self._load_cookies(route.cookies)

    def _load_cookies(self, file: str) -> None:
        """Load cookies now: yt-dlp prints lines that it cannot read, which may be secrets."""
        output = io.StringIO()
        try:
            with STANDARD_ERROR, contextlib.redirect_stderr(output):
                self._ydl.cookiejar  # noqa: B018  # loads them
        except YoutubeDLError:
            raise SourceError(
                f"The file of cookies {file} cannot be read: it must be in Netscape format "
                "(cookies.txt). 'voxblink2 doctor --cookies FILE' checks such a file."
            ) from None
        skipped = output.getvalue().count("WARNING: skipping cookie file entry")
        if skipped:
            _log.info("Lines that are no cookies in %s, and are left out: %d", file, skipped)

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
        self._facts = NO_FACTS
        with named_if_disk_full(tmp), tempfile.TemporaryDirectory(dir=tmp) as folder:
            try:
                media = self._download(key, Path(folder), needed_seconds + _MARGIN_SECONDS)
            except FetchError as error:
                error.facts = self._facts
                error.args = (self._redact(str(error)),)
                raise
            except (YoutubeDLError, RequestError) as error:
                # Not by a variable: an error in one keeps this frame, and with it the source.
                raise self._fetch_error(error) from error
            yield media._replace(facts=self._facts)

    def _fetch_error(self, error: Exception) -> FetchError:
        """Return an exception of yt-dlp as an error with its class, and without secrets."""
        warnings = tuple(self._logger.warnings)
        failure = fetch_error(error, self._reasons, warnings=warnings, facts=self._facts)
        failure.args = (self._redact(str(failure)),)
        return failure

    def _select(self, context: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the format to download, or two in one; yt-dlp calls this.

        Raises:
            FetchError: the original is not offered.
        """
        formats = list(context["formats"])
        while True:
            info = {"formats": formats, "language": self._ydl.language}
            choice = choose_formats(info, frames=self._with_video)
            by_id = {form["format_id"]: form for form in formats}
            ids = dict.fromkeys(filter(None, (choice.video_id, choice.audio_id)))
            chosen = [by_id[name] for name in ids]
            refused = [form for form in chosen if not self._ydl.can_play(form)]
            if not refused:
                break
            formats = [{**form, "has_drm": True} if form in refused else form for form in formats]
        self._facts = _facts(choice, chosen, self._redact)
        if choice.problem == NOTHING_TO_PLAY:
            return []  # yt-dlp has words of its own for it
        if choice.problem:
            raise FetchError(choice.problem, status="not-original")
        return [_merged(*chosen)] if len(chosen) == 2 else chosen

    def _download(self, key: VideoKey, folder: Path, needed_seconds: float) -> Media:
        url = self._template.replace(VIDEO_ID_FIELD, key.video_id)
        self._ydl.begin(url)
        info = self._ydl.extract_info(url, download=False)
        if info is None or info.get("_type", "video") != "video":
            raise FetchError(
                f"{url} is not a single video but {(info or {}).get('_type', 'nothing')}",
                status="ambiguous",
            )
        path, audio_path = folder / "media", folder / "sound"
        if "requested_formats" not in info:
            both = Requirement(needed_seconds, audio=True, video=self._with_video)
            return Media(path, self._fetch(info, path, both))
        # Video and audio are two files, as YouTube stores them.
        formats = info.pop("requested_formats")
        video_info, audio_info = ({**info, **format_info} for format_info in formats)
        video = Requirement(needed_seconds, audio=False, video=True)
        audio = Requirement(needed_seconds, audio=True, video=False)
        size_bytes = self._fetch(video_info, path, video)
        size_bytes += self._fetch(audio_info, audio_path, audio)
        return Media(path, size_bytes, audio_path)

    def _fetch(self, info: dict[str, Any], target: Path, requirement: Requirement) -> int:
        """Download what is required of one file; return the number of bytes."""
        if info.get("protocol") in _NATIVE_PROTOCOLS and not info.get("fragments"):
            try:
                return download_prefix(
                    self._ydl, info, target, requirement, limit_rate=self._limit_rate
                )
            except HTTPError as error:
                # With yt-dlp's message: the video existed a moment ago, so a status here means
                # less than the same status of the first request.
                raise DownloadError(
                    f"unable to download video data: {error}", sys.exc_info()
                ) from error
        success, _ = self._ydl.dl(str(target), info)
        if not success or not target.exists():
            raise FetchError(f"yt-dlp could not download {info['webpage_url']}")
        return target.stat().st_size


def _secrets_of(template: str, options: FetchOptions, route: Route) -> frozenset[str]:
    """Return what no message of a source may contain."""
    texts = (template, route.proxy or "", options.yt_dlp or "", *options.extractor_args)
    return secrets_in(*texts) | (
        secrets_in_cookies(Path(route.cookies)) if route.cookies else set()
    )


def _facts(
    choice: FormatChoice, chosen: list[dict[str, Any]], redacted: Callable[[str], str]
) -> MediaFacts:
    # Names that a site gives may be parts of its URLs.
    return MediaFacts(
        audio_id=redacted(choice.audio_id or ""),
        video_id=redacted(choice.video_id or ""),
        language=redacted(choice.language),
        height=choice.height,
        reference_height=choice.reference_height,
        client="+".join(dict.fromkeys(filter(None, map(client_of, chosen)))),
    )


def _merged(video: dict[str, Any], audio: dict[str, Any]) -> dict[str, Any]:
    """Return two formats in the form in which yt-dlp expects a selection of two."""
    return {
        "requested_formats": [video, audio],
        "format_id": f"{video['format_id']}+{audio['format_id']}",
        "ext": video["ext"],
        "protocol": f"{video['protocol']}+{audio['protocol']}",
    }


class _Logger:
    """Sends yt-dlp's messages to the library's log; errors are raised as exceptions as well.

    Args:
        redacted: returns a message without secrets.

    Attributes:
        warnings: yt-dlp's warnings since this list was cleared.
    """

    def __init__(self, redacted: Callable[[str], str]) -> None:
        self.warnings: list[str] = []
        self._redacted = redacted

    def debug(self, message: str) -> None:
        _log.debug("%s", visible(self._redacted(message)))

    info = debug
    error = debug

    def warning(self, message: str) -> None:
        self.warnings.append(message)
        _log.info("%s", visible(self._redacted(message)))
