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

from yt_dlp.networking.exceptions import HTTPError, RequestError
from yt_dlp.utils import DownloadError, YoutubeDLError

from voxblink2_lib.errors import FetchError, SourceError, next_command
from voxblink2_lib.files import named_if_disk_full
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts
from voxblink2_lib.records import VideoKey
from voxblink2_lib.redaction import redact, secrets_in, secrets_in_cookies
from voxblink2_lib.sources.base import VIDEO_ID_FIELD, YOUTUBE_TEMPLATE, Media
from voxblink2_lib.sources.downloader import PAGES_BUDGET, Downloader, Logger, is_segmented
from voxblink2_lib.sources.failures import fetch_error
from voxblink2_lib.sources.format_choice import (
    NOTHING_TO_PLAY,
    FormatChoice,
    choose_formats,
    client_of,
)
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.plugins import allow_plugins
from voxblink2_lib.sources.prefix import Requirement, download_prefix
from voxblink2_lib.sources.reasons import Reasons
from voxblink2_lib.sources.segments import (
    DASH_PROTOCOLS,
    HLS_PROTOCOLS,
    download_segments,
)
from voxblink2_lib.sources.standard_error import STANDARD_ERROR
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter
from voxblink2_lib.sources.ytdlp_options import ydl_options

_log = logging.getLogger(__name__)

# Audio beyond the last utterance, which the decoder and the resampler need.
_MARGIN_SECONDS = 1.0
_PROTOCOLS = {"http", "https"} | HLS_PROTOCOLS | DASH_PROTOCOLS

# A server of files says so of the one that was requested; a site may say it of whoever asks.
_GONE_HTTP = frozenset({404, 410})


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
        self._explicit_http = _GONE_HTTP if template != YOUTUBE_TEMPLATE else frozenset()
        self._with_video = with_video
        self._reasons = Reasons.load(
            Path(options.reasons).expanduser() if options.reasons else None
        )
        self._limit_rate = options.bytes_a_second
        route = route or Route()
        secrets = _secrets_of(template, options, route)
        self._redact = functools.partial(redact, secrets=secrets)
        self._logger = Logger(self._redact)
        self._facts = NO_FACTS
        # Weakly: a source in a circle of references would outlive the worker that drops it.
        this = weakref.proxy(self)
        allow_plugins(not options.no_plugins)
        with STANDARD_ERROR:
            self._ydl = Downloader(
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
                f"(cookies.txt). {next_command('doctor', cookies=file)} shows more."
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
                self._hide_secrets(error)
                raise
            except (YoutubeDLError, RequestError) as error:
                # Not by a variable: an error in one keeps this frame, and with it the source.
                raise self._fetch_error(error) from error
            yield media._replace(facts=self._facts)

    def _fetch_error(self, error: Exception) -> FetchError:
        """Return an exception of yt-dlp as an error with its class, and without secrets."""
        failure = fetch_error(
            error,
            self._reasons,
            warnings=self._logger.warnings,
            facts=self._facts,
            explicit_http=self._explicit_http,
        )
        self._hide_secrets(failure)
        return failure

    def _hide_secrets(self, error: FetchError) -> None:
        error.args = (self._redact(str(error)),)
        error.warnings = tuple(map(self._redact, error.warnings))

    def _select(self, context: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the format to download, or two in one; yt-dlp calls this.

        Raises:
            FetchError: the original is not offered.
        """
        formats = [
            form if form["protocol"] in _PROTOCOLS else {**form, "has_drm": True}
            for form in context["formats"]
        ]
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
        if choice.problem:
            _refuse_protocols(context["formats"])
        if choice.problem == NOTHING_TO_PLAY:
            return []  # yt-dlp has words of its own for it
        if choice.problem:
            raise FetchError(choice.problem, status="not-original")
        return [_merged(*chosen)] if len(chosen) == 2 else chosen

    def _download(self, key: VideoKey, folder: Path, needed_seconds: float) -> Media:
        url = self._template.replace(VIDEO_ID_FIELD, key.video_id)
        self._ydl.begin(url)
        info = self._extract(url)
        if info is None or info.get("_type", "video") != "video":
            raise FetchError(
                f"{url} is not a single video but {(info or {}).get('_type', 'nothing')}",
                status="ambiguous",
            )
        path, audio_path = folder / "media", folder / "sound"
        meter = TransferMeter(TransferBudget.of(needed_seconds), limit_rate=self._limit_rate)
        try:
            return self._download_formats(info, path, audio_path, needed_seconds, meter)
        except FetchError as error:
            error.bytes_fetched = meter.received
            raise

    def _download_formats(
        self,
        info: dict[str, Any],
        path: Path,
        audio_path: Path,
        needed_seconds: float,
        meter: TransferMeter,
    ) -> Media:
        if "requested_formats" not in info:
            both = Requirement(needed_seconds, audio=True, video=self._with_video)
            self._fetch(info, path, both, meter)
            return Media(path, meter.received)
        # Video and audio are two files, as YouTube stores them.
        formats = info.pop("requested_formats")
        video_info, audio_info = ({**info, **format_info} for format_info in formats)
        video = Requirement(needed_seconds, audio=False, video=True)
        audio = Requirement(needed_seconds, audio=True, video=False)
        self._fetch(video_info, path, video, meter)
        self._fetch(audio_info, audio_path, audio, meter)
        return Media(path, meter.received, audio_path)

    def _extract(self, url: str) -> Any:
        """Return yt-dlp's description of a video; an error of its own program is one of the video.

        Whether all videos fail so is seen from the others.
        """
        self._ydl.pages = TransferMeter(PAGES_BUDGET)
        try:
            return self._ydl.extract_info(url, download=False)
        except (FetchError, YoutubeDLError, RequestError, OSError):
            raise
        except Exception as error:
            raise FetchError(
                f"yt-dlp failed: {type(error).__name__}: {error}",
                warnings=tuple(self._logger.warnings),
            ) from error
        finally:
            self._ydl.pages = None

    def _fetch(
        self, info: dict[str, Any], target: Path, requirement: Requirement, meter: TransferMeter
    ) -> None:
        """Download what is required of one file."""
        download = download_segments if is_segmented(info) else download_prefix
        try:
            download(self._ydl, info, target, requirement, meter=meter)
        except HTTPError as error:
            # With yt-dlp's message: the video existed a moment ago, so a status here means less
            # than the same status of the first request.
            raise DownloadError(
                f"unable to download video data: {error}", sys.exc_info()
            ) from error


def _refuse_protocols(formats: list[dict[str, Any]]) -> None:
    """Refuse a video of which no format can be read.

    Raises:
        FetchError: all are offered over protocols that are not read.
    """
    offered = {
        str(form["protocol"])
        for form in formats
        if {form.get("acodec"), form.get("vcodec")} != {"none"}  # pictures for previews
    }
    if offered and not offered & _PROTOCOLS:
        raise FetchError(
            f"the source offers this video only over {', '.join(sorted(offered))}; http, https, "
            "HLS and DASH are read, and no program is started for others",
            # To another client, or another day, it may be offered otherwise.
            status="not-original",
        )


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
