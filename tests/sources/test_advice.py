"""Advice in messages of yt-dlp names options that exist here, or is left out."""

from __future__ import annotations

import re

import pytest
from yt_dlp.extractor.youtube import YoutubeIE
from yt_dlp.utils import DownloadError

from voxblink2_lib.records import option_string
from voxblink2_lib.sources.advice import own_advice
from voxblink2_lib.sources.failures import fetch_error
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.sources.reasons import Reasons
from voxblink2_lib.sources.ytdlp_options import ALLOWED

MESSAGES = {
    "Video unavailable": "Video unavailable",
    "[youtube] --abcdefghi: Video unavailable": "[youtube] --abcdefghi: Video unavailable",
    "[youtube] --netrc_abc: Private video": "[youtube] --netrc_abc: Private video",
    "Requested format is not available. Use --list-formats for a list of available formats": (
        "Requested format is not available."
    ),
    "This video is protected by a password, use the --video-password option": (
        "This video is protected by a password"
    ),
    "No video formats found; pass --ignore-no-formats-error to ignore": "No video formats found",
    "SSLV3_ALERT: The server may be old. Try using --legacy-server-connect": (
        "SSLV3_ALERT: The server may be old. Try using --yt-dlp='--legacy-server-connect'"
    ),
    "certificate verify failed, use --no-check-certificate": (
        "certificate verify failed, use --yt-dlp='--no-check-certificates'"
    ),
    "It is recommended to use `-t sleep` to add a delay": (
        "It is recommended to use --sleep SECONDS to add a delay"
    ),
    "Sign in. Use --cookies-from-browser or --cookies for the authentication. See a page": (
        "Sign in. Use --cookies-from-browser or --cookies for the authentication. See a page"
    ),
    "You may need to pass Visitor Data with --extractor-args 'youtube:visitor_data=X'": (
        "You may need to pass Visitor Data with --extractor-args 'youtube:visitor_data=X'"
    ),
    "No supported JavaScript runtime could be found. Only deno is enabled by default; to use "
    "another runtime add  --js-runtimes RUNTIME[:PATH]  to your command/config. See a page": (
        "No supported JavaScript runtime could be found. Only deno is enabled by default; "
        "'voxblink2 doctor' says which to install. See a page"
    ),
    "Impersonate target is not available. See --list-impersonate-targets for available targets.": (
        "Impersonate target is not available."
    ),
    "Use --enable-file-urls": "Use --enable-file-urls",  # nothing else would be left
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages(message: str) -> None:
    assert own_advice(message) == MESSAGES[message]
    assert own_advice(MESSAGES[message]) == MESSAGES[message], "twice is as once"


@pytest.mark.parametrize("method", ["any", "password", "cookies", "session_cookies"])
def test_every_hint_of_yt_dlp_at_a_login_names_options_of_ours(method: str) -> None:
    hint = YoutubeIE()._login_hint(method)
    assert "--" in hint
    advice = own_advice(f"Login required. {hint}")
    assert "--cookies" in advice or "--yt-dlp='--username NAME --password PASSWORD'" in advice
    ours = {*map(option_string, FetchOptions.names()), *ALLOWED, "--yt-dlp"}
    assert set(re.findall(r"--[a-z-]+[a-z]", advice.partition("http")[0])) <= ours


def test_the_reason_of_a_video_has_our_advice_and_the_class_of_yt_dlps() -> None:
    error = DownloadError(
        "ERROR: [youtube] x: Requested format is not available. Use --list-formats for a list"
    )
    failure = fetch_error(error, Reasons.load(None))
    assert str(failure) == "[youtube] x: Requested format is not available."
    assert failure.status == "transient"
