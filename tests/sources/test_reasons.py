"""Why a video did not come: yt-dlp's own errors and words, and the class that follows."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yt_dlp import YoutubeDL
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.networking.common import Response
from yt_dlp.networking.exceptions import (
    CertificateVerifyError,
    HTTPError,
    IncompleteRead,
    ProxyError,
    TransportError,
)
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError

from voxblink2_lib.errors import FetchError, SourceError, UnreachableError
from voxblink2_lib.sources.failures import fetch_error, retry_after_seconds
from voxblink2_lib.sources.reasons import FailureClass, Reasons

REASONS = Reasons.load(None)
NOW = 1_800_000_000.0
DAY = 86_400.0
# YouTube's own texts have curly quotes, yt-dlp's have straight ones.
CURLY = "\u2019"
HOWTO = (
    "Use --cookies-from-browser or --cookies for the authentication. "
    "See  https://github.com/yt-dlp/yt-dlp/wiki/FAQ  for how to manually pass cookies."
)
TRY_LATER = (
    "Video unavailable. This content isn't available, try again later. The current session has "
    "been rate-limited by YouTube for up to an hour. It is recommended to use `-t sleep`"
)
# What YouTube and yt-dlp say, as they say it, but for the quotes.
SAID: dict[str, list[str]] = {
    "rate-limited": [
        TRY_LATER,
        "This content isn't available, try again later",
        "Your account has been rate-limited by YouTube for up to an hour.",
        "Unable to download webpage: HTTP Error 429: Too Many Requests",
        "Unable to download API page: HTTP Error 429: Too Many Requests",
    ],
    "blocked": [
        f"Sign in to confirm you're not a bot. {HOWTO}",
        "Video unavailable. YouTube is requiring a captcha challenge before playback",
        "All player responses are invalid. Your IP is likely being blocked by Youtube",
        "Our systems have detected unusual traffic from your computer network.",
    ],
    "credentials": [
        "The provided YouTube account cookies are no longer valid. They have likely been rotated",
        "Unable to connect to proxy: Tunnel connection failed: 407 Proxy Authentication Required",
        f"This video is only available for registered users. {HOWTO}",
        f"Login details are needed to download this content. {HOWTO}",
        "Please sign in",
        "Unable to download webpage: HTTP Error 401: Unauthorized",
    ],
    "transient": [
        "unable to download video data: HTTP Error 403: Forbidden",
        "Unable to download webpage: HTTP Error 503: Service Unavailable",
        "Unable to download API page: HTTP Error 404: Not Found (caused by <HTTPError 404>)",
        "Unable to download API page: HTTP Error 400: Bad Request",
        "unable to download video data: HTTP Error 404: Not Found",
        "Did not get any data blocks",
        "The downloaded file is empty",
        "content too short (expected 100 bytes and served 7)",
        "Failed to extract any player response",
        "The page needs to be reloaded.",
        "Requested format is not available. Use --list-formats for a list of available formats",
        "No video formats found!",
        "Unable to download webpage: The read operation timed out",
        "[Errno 104] Connection reset by peer",
        "Failed to resolve 'www.youtube.com' ([Errno -2] Name or service not known)",
        "Unable to download webpage: HTTP Error 302: Found (redirect loop detected)",
        "words that nobody has heard before",
        "",
    ],
    "environment": [
        "No supported JavaScript runtime could be found. Only deno is enabled by default",
        "n challenge solving failed: Some formats may be missing.",
        "Signature solving failed: Some formats may be missing.",
        "You have requested merging of multiple formats but ffmpeg is not installed.",
        "unable to write data: [Errno 28] No space left on device",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
    ],
    "age-or-membership": [
        "Sign in to confirm your age. This video may be inappropriate for some users. " + HOWTO,
        "Join this channel to get access to members-only content like this video",
        "This video is available to this channel's members on level: Fans (or any higher level).",
        "This video requires payment to watch",
        "This video is only available to Music Premium members",
    ],
    "private": [
        f"Private video. Sign in if you've been granted access to this video. {HOWTO}",
    ],
    "geo": [
        "The uploader has not made this video available in your country",
        "Video unavailable. The uploader has not made this video available in your country",
        "This video contains content from X, who has blocked it in your country on copyright "
        "grounds",
        "This video is not available in your country",
        "This video is not available from your location due to geo restriction",
        "Unable to download webpage: HTTP Error 451: Unavailable For Legal Reasons",
    ],
    "not-yet": [
        "This live event will begin in 3 days.",
        "Premieres in 14 hours",
        "This live event has ended.",
    ],
    "gone": [
        "Video unavailable. This video is no longer available because the YouTube account "
        "associated with this video has been terminated.",
        "Video unavailable. This video has been removed by the uploader",
        "This video has been removed for violating YouTube's policy on hate speech.",
        "Video unavailable. This video is no longer available due to a copyright claim by X",
        "This video is no longer available because the uploader has closed their YouTube account.",
        "Video unavailable. This video contains content from X, who has blocked it on copyright "
        "grounds",
        "This live stream recording is not available.",
        "This video is DRM protected",
        "Unable to download webpage: HTTP Error 404: Not Found",
        "Unable to download webpage: HTTP Error 410: Gone",
    ],
    "ambiguous": [
        "Video unavailable",
        "Video unavailable. This video is not available",
        "This video isn't available anymore",
        "Unsupported URL: http://media.example.org/login",
        "Unable to download webpage: HTTP Error 418: I'm a teapot",
    ],
}
ALL_SAID = [(status, words) for status, several in SAID.items() for words in several]


class _Failing(InfoExtractor):  # type: ignore[misc]
    """An extractor of yt-dlp that raises what a test wants."""

    IE_NAME = "failing"
    _VALID_URL = r"failing:(?P<id>.*)"

    def __init__(self, fail: Callable[[InfoExtractor], None]) -> None:
        super().__init__()
        self._fail = fail

    def _real_extract(self, url: str) -> dict[str, Any]:
        del url
        self._fail(self)
        raise AssertionError("a test's failure did not fail")


def raised(fail: Callable[[InfoExtractor], None]) -> Exception:
    """Return what yt-dlp raises when one of its extractors fails."""
    with YoutubeDL({"quiet": True, "no_warnings": True, "logger": _Silent()}, False) as ydl:
        ydl.add_info_extractor(_Failing(fail))
        try:
            ydl.extract_info("failing:video", download=False)
        except Exception as error:
            return error
    raise AssertionError("yt-dlp did not fail")


class _Silent:
    def debug(self, message: str) -> None:
        """Keep quiet."""

    warning = error = debug


def expected_error(words: str) -> Callable[[InfoExtractor], None]:
    """As most of YouTube's refusals are raised."""

    def fail(extractor: InfoExtractor) -> None:
        extractor.raise_no_formats(words, expected=True)

    return fail


def http_error(status: int, **headers: str) -> HTTPError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPError(Response(io.BytesIO(), "http://x", names, status))


def caused(error: Exception, words: str) -> Callable[[InfoExtractor], None]:
    """As an extractor's failed requests are raised."""

    def fail(extractor: InfoExtractor) -> None:
        try:
            raise error
        except Exception as cause:
            raise ExtractorError(f"{words}: {cause}", cause=cause) from cause

    return fail


def told(error: Exception, *warnings: str, reasons: Reasons = REASONS) -> FetchError:
    return fetch_error(error, reasons, warnings=warnings, now=lambda: NOW)


# The list


@pytest.mark.parametrize(("status", "words"), ALL_SAID)
def test_each_text_has_its_class(status: str, words: str) -> None:
    assert REASONS.classify(words).status == status
    assert REASONS.classify(words.replace("'", CURLY)) == REASONS.classify(words)


@pytest.mark.parametrize(("status", "words"), ALL_SAID)
def test_each_text_has_its_class_as_ytdlp_raises_it(status: str, words: str) -> None:
    words = words.replace("'", CURLY)
    error = raised(expected_error(words))
    assert isinstance(error, DownloadError)
    assert isinstance(error.exc_info[1], ExtractorError)
    found = told(error)
    assert found.status == status
    assert str(found).endswith(words)
    assert not str(found).startswith("ERROR")
    assert not isinstance(found, UnreachableError)


@given(st.sampled_from(ALL_SAID), st.randoms(use_true_random=False))
def test_white_space_and_capitals_change_nothing(said: tuple[str, str], random: Any) -> None:
    status, words = said
    spaced = "".join(one + random.choice(["", " ", "\n\t"]) if one == " " else one for one in words)
    swapped = "".join(random.choice([one.upper(), one.lower()]) for one in spaced)
    assert REASONS.classify(f"  {swapped}\n").status == status
    assert REASONS.classify(swapped) == REASONS.classify(words)


def test_a_rate_limit_is_not_taken_for_a_video_that_is_gone() -> None:
    assert REASONS.classify(TRY_LATER) == FailureClass("rate-limited", 3600.0)
    assert told(raised(expected_error(TRY_LATER))).pause_seconds == 3600
    assert REASONS.classify("Video unavailable").status == "ambiguous"


@pytest.mark.parametrize(("status", "words"), ALL_SAID)
def test_what_closes_an_address(status: str, words: str) -> None:
    closes = status == "blocked" or "no longer valid" in words or "Proxy Auth" in words
    assert REASONS.classify(words).closes_route == closes
    assert (REASONS.classify(words).pause_seconds is not None) == (status == "rate-limited")


@pytest.mark.parametrize(
    ("http_status", "status"),
    [
        *((400, "ambiguous"), (401, "credentials"), (403, "transient"), (404, "gone")),
        *((407, "credentials"), (408, "transient"), (410, "gone"), (416, "ambiguous")),
        *((425, "transient"), (429, "rate-limited"), (451, "geo"), (500, "transient")),
        *((502, "transient"), (503, "transient"), (504, "transient"), (599, "transient")),
        *((302, "transient"), (204, "transient")),
    ],
)
def test_each_http_status_has_its_class(http_status: int, status: str) -> None:
    assert REASONS.classify("no", http_status=http_status).status == status
    assert REASONS.classify(f"HTTP Error {http_status}: no").status == status
    assert told(http_error(http_status)).status == status


@pytest.mark.parametrize("http_status", [401, 403, 404, 410, 416, 451, 500, 503])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Private video", "private"),
        ("Sign in to confirm your age", "age-or-membership"),
        ("This video has been removed by the uploader", "gone"),
        ("Premieres in 2 hours", "not-yet"),
        ("blocked it in your country", "geo"),
        ("Sign in to confirm you're not a bot", "blocked"),
    ],
)
def test_clear_words_win_over_a_bare_status(http_status: int, words: str, status: str) -> None:
    assert REASONS.classify(words, http_status=http_status).status == status


def test_the_list_is_read_once() -> None:
    assert Reasons.load(None) is REASONS


# The user's own list


def write(folder: Path, text: str) -> Path:
    path = folder / "reasons.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_users_list_goes_first(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[[reason]]\nclass = "gone"\ntexts = ["Video  UNAVAILABLE"]\n'
        '[[reason]]\nclass = "blocked"\nhttp = [418, "3xx"]\ncloses_address = true\n'
        '[[reason]]\nclass = "rate-limited"\ntexts = ["it\u2019s full"]\npause_seconds = 5\n',
    )
    own = Reasons.load(path)
    assert own.classify("Video unavailable").status == "gone"
    assert own.classify("no", http_status=418) == FailureClass("blocked", closes_route=True)
    assert own.classify("no", http_status=302).status == "blocked"
    assert own.classify("IT'S FULL") == FailureClass("rate-limited", 5.0)
    # And what it does not speak of is as ever.
    assert own.classify("Private video").status == "private"
    assert Reasons.load(path) is own
    assert REASONS.classify("Video unavailable").status == "ambiguous"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"must hold \[\[reason\]\] entries and nothing else, got none"),
        ("reason = 3", r"must hold \[\[reason\]\] entries"),
        ('other = 1\n[[reason]]\nclass="gone"', "nothing else, got other"),
        ("reason = [3]", r"entry 1: expected a table that begins with \[\[reason\]\], got 3"),
        ("not toml", "cannot be read as a list of reasons: "),
        ('[[reason]]\nclass = "dead"\ntexts = ["a"]', "entry 1: class is 'dead', must be one of "),
        ('[[reason]]\ntexts = ["a"]', "entry 1: class is None, must be one of rate-limited, "),
        ('[[reason]]\nclass = "done"\ntexts = ["a"]', "entry 1: class is 'done', must be one of"),
        ('[[reason]]\nclass = ["gone"]\ntexts = ["a"]', r"entry 1: class is \['gone'\], must be"),
        ('[[reason]]\nclass = "gone"', "entry 1: fits nothing; texts or http must hold something"),
        ('[[reason]]\nclass = "gone"\ntexts = []', "entry 1: fits nothing"),
        ('[[reason]]\nclass = "gone"\ntexts = [" "]', "entry 1: ' ' in texts must be words"),
        ('[[reason]]\nclass = "gone"\ntexts = "a"', "entry 1: texts is 'a', must be a list"),
        ('[[reason]]\nclass = "gone"\ntexts = [1]', "entry 1: 1 in texts must be words"),
        ('[[reason]]\nclass = "gone"\nhttp = [99]', "entry 1: 99 in http must be 100 to 599"),
        ('[[reason]]\nclass = "gone"\nhttp = ["6xx"]', "entry 1: '6xx' in http must be"),
        ('[[reason]]\nclass = "gone"\nhttp = [true]', "entry 1: True in http must be"),
        ('[[reason]]\nclass = "gone"\nhttp = 404', "entry 1: http is 404, must be a list"),
        (
            '[[reason]]\nclass = "gone"\nhttp = [404]\n[[reason]]\nclass = "gone"\nhtp = [404]',
            "entry 2: unknown htp; known are class, texts, http, pause_seconds, closes_route",
        ),
        *(
            (
                f'[[reason]]\nclass = "gone"\nhttp = [404]\npause_seconds = {value}',
                "entry 1: pause_seconds is .*, must be a number above 0",
            )
            for value in ("0", "-1", '"1"', "true", "nan", "inf")
        ),
        (
            '[[reason]]\nclass = "gone"\nhttp = [404]\ncloses_route = 1',
            "entry 1: closes_route is 1, must be true or false",
        ),
    ],
)
def test_a_bad_list_is_refused_and_said_why(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SourceError, match=words) as caught:
        Reasons.load(path)
    assert str(path) in str(caught.value)


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.toml cannot be read as a list of reasons"):
        Reasons.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match=r"bytes\.toml cannot be read as a list of reasons"):
        Reasons.load(tmp_path / "bytes.toml")


# What yt-dlp raises


def test_geo_is_known_without_words() -> None:
    def fail(extractor: InfoExtractor) -> None:
        raise GeoRestrictedError("not for you", countries=["DE", "FR"])

    found = told(raised(fail))
    assert found.status == "geo"
    assert "This video is available in Germany, France." in str(found)


def test_the_advice_to_report_a_bug_is_left_out() -> None:
    def fail(extractor: InfoExtractor) -> None:
        raise ExtractorError("Failed to extract any player response")

    error = raised(fail)
    assert "please report this issue" in str(error)
    assert str(told(error)) == "[failing] video: Failed to extract any player response"


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (TransportError("[Errno 111] Connection refused"), UnreachableError, "transient"),
        (TransportError("Failed to resolve 'x'"), UnreachableError, "transient"),
        (TransportError("The read operation timed out"), UnreachableError, "transient"),
        (ProxyError("Unable to connect to proxy"), UnreachableError, "transient"),
        (IncompleteRead(10, 90), FetchError, "transient"),
        (http_error(503), FetchError, "transient"),
        (CertificateVerifyError("certificate verify failed: expired"), FetchError, "environment"),
        (ProxyError("407 Proxy Authentication Required"), FetchError, "credentials"),
    ],
)
def test_no_answer_at_all_is_told_from_a_refusal(
    error: Exception, kind: type[FetchError], status: str
) -> None:
    for one in (error, raised(caused(error, "Unable to download webpage"))):
        found = told(one)
        assert type(found) is kind
        assert found.status == status
        assert str(error) in str(found)


def test_an_error_without_words_has_at_least_a_name() -> None:
    assert str(told(ValueError())) == "ValueError"
    assert str(told(DownloadError("ERROR: "))) == "DownloadError"


def test_a_chain_of_causes_may_run_in_a_circle() -> None:
    first, second = TransportError("first"), TransportError("second")
    first.cause, second.cause = second, first
    assert isinstance(told(first), UnreachableError)
    error = DownloadError("itself")
    error.exc_info = (DownloadError, error, None)
    assert told(error).status == "transient"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("77", 77.0), (" 77 ", 77.0), ("000077", 77.0), ("86401", DAY), ("9" * 400, DAY)),
        *(("0", None), ("-5", None), ("1.5", None), ("soon", None), ("", None), (None, None)),
        *(("\u0663", None), ("1e3", None), ("0" * 400, None)),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW + 9 * DAY, usegmt=True), DAY),
        (formatdate(NOW - 90, usegmt=True), None),
        ("Fri, 99 Foo 2027 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, now=NOW) == seconds
    headers = {} if header is None or not header.isascii() else {"Retry_After": header}
    for error in (
        http_error(429, **headers),
        raised(caused(http_error(429, **headers), "Unable to download webpage")),
    ):
        assert told(error).pause_seconds == (600.0 if seconds is None else seconds)


@given(st.text())
def test_no_retry_after_is_too_strange(header: str) -> None:
    seconds = retry_after_seconds(header, now=NOW)
    assert seconds is None or 0 < seconds <= DAY


def test_retry_after_counts_where_it_has_a_meaning() -> None:
    assert told(http_error(503)).pause_seconds is None
    assert told(http_error(503, Retry_After="30")).pause_seconds == 30
    assert told(http_error(404, Retry_After="30")).pause_seconds is None


# Warnings

N_CHALLENGE = "[youtube] video: n challenge solving failed: Some formats may be missing."
COOKIES = "[youtube] The provided YouTube account cookies are no longer valid. They have likely"
NO_RUNTIME = "[youtube] No supported JavaScript runtime could be found. Only deno is enabled"
LIMITED = "[youtube] Unable to download API page: HTTP Error 429: Too Many Requests"
FORMATS = "Requested format is not available. Use --list-formats"
PLAYER = "Failed to extract any player response"


@pytest.mark.parametrize("words", [FORMATS, PLAYER, "Video unavailable", "something new"])
@pytest.mark.parametrize(
    ("warning", "expected"),
    [
        (N_CHALLENGE, FailureClass("environment")),
        (NO_RUNTIME, FailureClass("environment")),
        (COOKIES, FailureClass("credentials", closes_route=True)),
        (LIMITED, FailureClass("rate-limited", 600.0)),
    ],
)
def test_a_warning_decides_where_the_error_says_little(
    words: str, warning: str, expected: FailureClass
) -> None:
    found = told(raised(expected_error(words)), "a format is damaged", warning)
    assert FailureClass(found.status, found.pause_seconds, found.closes_route) == expected
    assert words in str(found)
    assert warning in str(found)


def test_a_warning_explains_a_refusal_by_http() -> None:
    try:
        raise http_error(403)
    except HTTPError as error:
        words = f"ERROR: unable to download video data: {error}"
        refusal = DownloadError(words, sys.exc_info())
    assert told(refusal).status == "transient"
    assert told(refusal, N_CHALLENGE).status == "environment"
    assert told(TransportError("timed out"), NO_RUNTIME).status == "environment"


@pytest.mark.parametrize("warning", [N_CHALLENGE, NO_RUNTIME, COOKIES, LIMITED])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Private video", "private"),
        ("This video has been removed by the uploader", "gone"),
        ("The uploader has not made this video available in your country", "geo"),
        ("Sign in to confirm you're not a bot", "blocked"),
        ("Premieres in 3 hours", "not-yet"),
        (TRY_LATER, "rate-limited"),
    ],
)
def test_no_warning_wins_over_clear_words(words: str, status: str, warning: str) -> None:
    found = told(raised(expected_error(words)), warning)
    assert found.status == status
    assert warning not in str(found)


def test_without_valid_cookies_nobody_is_logged_in() -> None:
    """Who gave cookies asked as an adult: the answer to a guest says nothing of the video."""
    age = raised(expected_error("Sign in to confirm your age"))
    assert told(age).status == "age-or-membership"
    assert told(age, N_CHALLENGE).status == "age-or-membership"
    assert told(age, COOKIES).status == "credentials"
    assert told(http_error(401), COOKIES).closes_route


@pytest.mark.parametrize("warning", ["Private video", "HTTP Error 404: Not Found", "nothing new"])
def test_other_warnings_decide_nothing(warning: str) -> None:
    found = told(raised(expected_error(FORMATS)), warning)
    assert found.status == "transient"
    assert warning not in str(found)
