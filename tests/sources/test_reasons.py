"""Why a video is unavailable: errors and messages of yt-dlp, and the class that follows."""

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
from voxblink2_lib.outcomes import RouteAction
from voxblink2_lib.sources.advice import own_advice
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
# Messages of YouTube and yt-dlp, as they are but for the quotes.
MESSAGES: dict[str, list[str]] = {
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
        "a message that no list has",
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
ALL_MESSAGES = [(status, text) for status, texts in MESSAGES.items() for text in texts]


class _Failing(InfoExtractor):  # type: ignore[misc]
    """An extractor of yt-dlp that raises what a test requires."""

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


def expected_error(message: str) -> Callable[[InfoExtractor], None]:
    """As most of YouTube's refusals are raised."""

    def fail(extractor: InfoExtractor) -> None:
        extractor.raise_no_formats(message, expected=True)

    return fail


def http_error(status: int, **headers: str) -> HTTPError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPError(Response(io.BytesIO(), "http://x", names, status))


def caused(error: Exception, message: str) -> Callable[[InfoExtractor], None]:
    """As an extractor's failed requests are raised."""

    def fail(extractor: InfoExtractor) -> None:
        try:
            raise error
        except Exception as cause:
            raise ExtractorError(f"{message}: {cause}", cause=cause) from cause

    return fail


def classified(error: Exception, *warnings: str, reasons: Reasons = REASONS) -> FetchError:
    return fetch_error(error, reasons, warnings=warnings, now=lambda: NOW)


# -- the list --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", MESSAGES)
def test_each_text_has_its_class(status: str) -> None:
    classes = {message: REASONS.classify(message) for message in MESSAGES[status]}
    curly = {message: REASONS.classify(message.replace("'", CURLY)) for message in classes}
    assert {message: known.status for message, known in classes.items()} == dict.fromkeys(
        classes, status
    )
    assert curly == classes


@pytest.mark.parametrize("status", MESSAGES)
def test_each_text_has_its_class_as_ytdlp_raises_it(status: str) -> None:
    for message in MESSAGES[status]:
        text = message.replace("'", CURLY)
        error = raised(expected_error(text))
        assert isinstance(error, DownloadError)
        assert isinstance(error.exc_info[1], ExtractorError)
        failure = classified(error)
        assert (message, failure.status) == (message, status)
        assert str(failure).endswith(own_advice(text))
        assert not str(failure).startswith("ERROR")
        assert not isinstance(failure, UnreachableError)


@given(st.sampled_from(ALL_MESSAGES), st.randoms(use_true_random=False))
def test_white_space_and_capitals_change_nothing(example: tuple[str, str], random: Any) -> None:
    status, message = example
    spaced = "".join(
        letter + random.choice(["", " ", "\n\t"]) if letter == " " else letter for letter in message
    )
    swapped = "".join(random.choice([letter.upper(), letter.lower()]) for letter in spaced)
    assert REASONS.classify(f"  {swapped}\n").status == status
    assert REASONS.classify(swapped) == REASONS.classify(message)


def test_a_rate_limit_is_not_taken_for_a_video_that_is_gone() -> None:
    action = RouteAction(3600.0, pause_grows=True)
    assert REASONS.classify(TRY_LATER) == FailureClass("rate-limited", action, is_explicit=True)
    assert classified(raised(expected_error(TRY_LATER))).action == action
    assert REASONS.classify("Video unavailable").status == "ambiguous"


@pytest.mark.parametrize("status", MESSAGES)
def test_what_closes_or_pauses_a_route(status: str) -> None:
    pauses = status == "rate-limited"
    for message in MESSAGES[status]:
        closes = status == "blocked" or "no longer valid" in message or "Proxy Auth" in message
        action = REASONS.classify(message).action
        assert (message, action.closes_route) == (message, closes)
        assert (action.pause_seconds is not None) == action.pause_grows == pauses


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
    assert classified(http_error(http_status)).status == status


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Private video", "private"),
        ("Sign in to confirm your age", "age-or-membership"),
        ("This video has been removed by the uploader", "gone"),
        ("Premieres in 2 hours", "not-yet"),
        ("blocked it in your country", "geo"),
        ("Sign in to confirm you're not a bot", "blocked"),
    ],
)
def test_a_clear_message_wins_over_a_bare_status(message: str, status: str) -> None:
    for http_status in (401, 403, 404, 410, 416, 451, 500, 503):
        failure = REASONS.classify(message, http_status=http_status)
        assert (http_status, failure.status) == (http_status, status)


def test_the_list_is_read_once() -> None:
    assert Reasons.load(None) is REASONS


# -- the user's own list ---------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    path = folder / "reasons.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_users_list_goes_first(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[[reason]]\nclass = "gone"\ntexts = ["Video  UNAVAILABLE"]\n'
        '[[reason]]\nclass = "blocked"\nhttp = [418, "3xx"]\ncloses_route = true\n'
        '[[reason]]\nclass = "rate-limited"\ntexts = ["it\u2019s full"]\npause_seconds = 5\n',
    )
    own = Reasons.load(path)
    assert own.classify("Video unavailable").status == "gone"
    closes = RouteAction(closes_route=True)
    assert own.classify("no", http_status=418) == FailureClass("blocked", closes, is_explicit=True)
    assert own.classify("no", http_status=302).status == "blocked"
    action = RouteAction(5.0, pause_grows=True)
    assert own.classify("IT'S FULL") == FailureClass("rate-limited", action, is_explicit=True)
    # And all else is as before.
    assert own.classify("Private video").status == "private"
    assert Reasons.load(path) is own
    assert REASONS.classify("Video unavailable").status == "ambiguous"


@pytest.mark.parametrize("name", ["closes_route", "closes_address"])
def test_a_users_list_may_have_the_name_of_the_version_before(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, f'[[reason]]\nclass = "blocked"\nhttp = [418]\n{name} = true\n')
    assert Reasons.load(path).classify("no", http_status=418).action.closes_route


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must hold \[\[reason\]\] entries and nothing else, got none"),
        ("reason = 3", r"must hold \[\[reason\]\] entries"),
        ('other = 1\n[[reason]]\nclass="gone"', "nothing else, got other"),
        ("reason = [3]", r"entry 1: expected a table that begins with \[\[reason\]\], got 3"),
        ("not toml", "cannot be read as a list of reasons: "),
        (f"a = {'[' * 100_000}", "cannot be read as a list of reasons: "),
        (f"a = {'1' * 10_000}", "cannot be read as a list of reasons: "),
        ('[[reason]]\nclass = "gone"\ntexts = [["a"]]', r"entry 1: \['a'\] in texts must be text"),
        ('[[reason]]\nclass = "gone"\nhttp = [[404]]', r"entry 1: \[404\] in http must be"),
        ('[[reason]]\nclass = "dead"\ntexts = ["a"]', "entry 1: class is 'dead', must be one of "),
        ('[[reason]]\ntexts = ["a"]', "entry 1: class is None, must be one of rate-limited, "),
        ('[[reason]]\nclass = "done"\ntexts = ["a"]', "entry 1: class is 'done', must be one of"),
        ('[[reason]]\nclass = ["gone"]\ntexts = ["a"]', r"entry 1: class is \['gone'\], must be"),
        ('[[reason]]\nclass = "gone"', "entry 1: matches nothing; texts or http must not be empty"),
        ('[[reason]]\nclass = "gone"\ntexts = []', "entry 1: matches nothing"),
        ('[[reason]]\nclass = "gone"\ntexts = [" "]', "entry 1: ' ' in texts must be text"),
        ('[[reason]]\nclass = "gone"\ntexts = "a"', "entry 1: texts is 'a', must be a list"),
        ('[[reason]]\nclass = "gone"\ntexts = [1]', "entry 1: 1 in texts must be text"),
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
                r"pause_seconds is .*, must be a number of seconds above 0 and at most 86,400",
            )
            for value in (
                *(
                    "0",
                    "-1",
                    '"1"',
                    "true",
                    "nan",
                    "inf",
                    "[[1]]",
                    "1e300",
                    "86401",
                    "1" + "0" * 400,
                ),
            )
        ),
        (
            '[[reason]]\nclass = "gone"\nhttp = [404]\ncloses_route = 1',
            "entry 1: closes_route is 1, must be true or false",
        ),
    ],
)
def test_a_bad_list_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SourceError, match=message) as caught:
        Reasons.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.toml cannot be read as a list of reasons"):
        Reasons.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match=r"bytes\.toml cannot be read as a list of reasons"):
        Reasons.load(tmp_path / "bytes.toml")


# -- exceptions of yt-dlp --------------------------------------------------------------------------


def test_geo_is_recognized_without_a_pattern() -> None:
    def fail(extractor: InfoExtractor) -> None:
        raise GeoRestrictedError("not for you", countries=["DE", "FR"])

    failure = classified(raised(fail))
    assert failure.status == "geo"
    assert "This video is available in Germany, France." in str(failure)


def test_the_advice_to_report_a_bug_is_left_out() -> None:
    def fail(extractor: InfoExtractor) -> None:
        raise ExtractorError("Failed to extract any player response")

    error = raised(fail)
    assert "please report this issue" in str(error)
    assert str(classified(error)) == "[failing] video: Failed to extract any player response"


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
def test_no_answer_at_all_differs_from_a_refusal(
    error: Exception, kind: type[FetchError], status: str
) -> None:
    for case in (error, raised(caused(error, "Unable to download webpage"))):
        failure = classified(case)
        assert type(failure) is kind
        assert failure.status == status
        assert own_advice(str(error)) in str(failure)


def test_an_error_without_a_message_has_at_least_a_name() -> None:
    assert str(classified(ValueError())) == "ValueError"
    assert str(classified(DownloadError("ERROR: "))) == "DownloadError"


def test_a_chain_of_causes_may_run_in_a_circle() -> None:
    first, second = TransportError("first"), TransportError("second")
    first.cause, second.cause = second, first
    assert isinstance(classified(first), UnreachableError)
    error = DownloadError("itself")
    error.exc_info = (DownloadError, error, None)
    assert classified(error).status == "transient"


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
        assert classified(error).action == RouteAction(
            600.0 if seconds is None else seconds, pause_grows=seconds is None
        )


@given(st.text())
def test_no_retry_after_is_too_strange(header: str) -> None:
    seconds = retry_after_seconds(header, now=NOW)
    assert seconds is None or 0 < seconds <= DAY


def test_retry_after_counts_where_it_has_a_meaning() -> None:
    assert classified(http_error(503)).action == RouteAction()
    assert classified(http_error(503, Retry_After="30")).action == RouteAction(30)
    assert classified(http_error(404, Retry_After="30")).action == RouteAction()


# -- warnings --------------------------------------------------------------------------------------

N_CHALLENGE = "[youtube] video: n challenge solving failed: Some formats may be missing."
COOKIES = "[youtube] The provided YouTube account cookies are no longer valid. They have likely"
NO_RUNTIME = "[youtube] No supported JavaScript runtime could be found. Only deno is enabled"
LIMITED = "[youtube] Unable to download API page: HTTP Error 429: Too Many Requests"
FORMATS = "Requested format is not available. Use --list-formats"
PLAYER = "Failed to extract any player response"


@pytest.mark.parametrize("message", [FORMATS, PLAYER, "Video unavailable", "something new"])
@pytest.mark.parametrize(
    ("warning", "expected"),
    [
        (N_CHALLENGE, FailureClass("environment")),
        (NO_RUNTIME, FailureClass("environment")),
        (COOKIES, FailureClass("credentials", RouteAction(closes_route=True))),
        (LIMITED, FailureClass("rate-limited", RouteAction(600.0, pause_grows=True))),
    ],
)
def test_a_warning_decides_where_the_error_is_unspecific(
    message: str, warning: str, expected: FailureClass
) -> None:
    failure = classified(raised(expected_error(message)), "a format is damaged", warning)
    assert FailureClass(failure.status, failure.action) == expected
    assert own_advice(message) in str(failure)
    assert warning in str(failure)


def test_a_warning_explains_a_refusal_by_http() -> None:
    try:
        raise http_error(403)
    except HTTPError as error:
        message = f"ERROR: unable to download video data: {error}"
        refusal = DownloadError(message, sys.exc_info())
    assert classified(refusal).status == "transient"
    assert classified(refusal, N_CHALLENGE).status == "environment"
    assert classified(TransportError("timed out"), NO_RUNTIME).status == "environment"


@pytest.mark.parametrize("warning", [N_CHALLENGE, NO_RUNTIME, COOKIES, LIMITED])
@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Private video", "private"),
        ("This video has been removed by the uploader", "gone"),
        ("The uploader has not made this video available in your country", "geo"),
        ("Sign in to confirm you're not a bot", "blocked"),
        ("Premieres in 3 hours", "not-yet"),
        (TRY_LATER, "rate-limited"),
    ],
)
def test_no_warning_wins_over_a_clear_message(message: str, status: str, warning: str) -> None:
    failure = classified(raised(expected_error(message)), warning)
    assert failure.status == status
    assert warning not in str(failure)


def test_without_valid_cookies_nobody_is_logged_in() -> None:
    """With cookies a user requests as an adult: the answer to a guest is not about the video."""
    age = raised(expected_error("Sign in to confirm your age"))
    assert classified(age).status == "age-or-membership"
    assert classified(age, N_CHALLENGE).status == "age-or-membership"
    assert classified(age, COOKIES).status == "credentials"
    assert classified(http_error(401), COOKIES).action.closes_route


@pytest.mark.parametrize("warning", ["Private video", "HTTP Error 404: Not Found", "nothing new"])
def test_other_warnings_decide_nothing(warning: str) -> None:
    failure = classified(raised(expected_error(FORMATS)), warning)
    assert failure.status == "transient"
    assert warning not in str(failure)
