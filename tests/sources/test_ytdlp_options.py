"""Allowed options are passed to yt-dlp, all others are refused."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yt_dlp
from yt_dlp import YoutubeDL

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources import ytdlp
from voxblink2_lib.sources.downloader import Downloader
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.ytdlp import YtDlpSource
from voxblink2_lib.sources.ytdlp_options import ALLOWED, ydl_options

PLAIN = ydl_options(FetchOptions(), Route())


def params(**options: Any) -> dict[str, Any]:
    """Return the parameters of a ``YoutubeDL`` with some options."""
    with YoutubeDL(ydl_options(FetchOptions.of(**options), Route())) as ydl:
        return dict(ydl.params)


ARRIVES: dict[str, dict[str, Any]] = {
    "--sleep-requests 1.5": {"sleep_interval_requests": 1.5},
    "--socket-timeout 7": {"socket_timeout": 7.0},
    "--socket-timeout=7": {"socket_timeout": 7.0},
    "--source-address 127.0.0.2": {"source_address": "127.0.0.2"},
    "--force-ipv4": {"source_address": "0.0.0.0"},
    "-4": {"source_address": "0.0.0.0"},
    "--force-ipv6": {"source_address": "::"},
    "-6": {"source_address": "::"},
    "--extractor-args 'youtube:player_client=web;po_token=web+x'": {
        "extractor_args": {"youtube": {"player_client": ["web"], "po_token": ["web+x"]}}
    },
    "--extractor-retries 9": {"extractor_retries": 9},
    "--retries 5": {"retries": 5},
    "-R 5": {"retries": 5},
    "--fragment-retries 100": {"fragment_retries": 100},
    "--geo-verification-proxy http://10.0.0.1:80": {"geo_verification_proxy": "http://10.0.0.1:80"},
    "--xff DE": {"geo_bypass_country": "DE"},
    "--xff never": {"geo_bypass": False},
    "--username me --password 'a b'": {"username": "me", "password": "a b"},
    "-u me --password=-secret": {"username": "me", "password": "-secret"},
    "--no-check-certificates": {"nocheckcertificate": True},
    "--legacy-server-connect": {"legacyserverconnect": True},
}


@pytest.mark.parametrize("text", ARRIVES)
def test_allowed_options_are_passed_on(text: str) -> None:
    parameters = params(yt_dlp=text)
    assert {name: parameters[name] for name in ARRIVES[text]} == ARRIVES[text]


def test_headers_are_added_to_those_of_yt_dlp() -> None:
    headers = params(yt_dlp="--add-headers 'X-Who: me' --add-headers=Accept:nothing")[
        "http_headers"
    ]
    assert (headers["X-Who"], headers["Accept"]) == ("me", "nothing")
    assert "Mozilla" in headers["User-Agent"]


@pytest.mark.parametrize("is_available", [True, False])
def test_impersonation_is_passed_on_if_it_is_available(
    is_available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(YoutubeDL, "_impersonate_target_available", lambda *_: is_available)
    options = FetchOptions(yt_dlp="--impersonate chrome")
    if is_available:
        assert str(ydl_options(options, Route())["impersonate"]) == "chrome"
        return
    with pytest.raises(SourceError, match=r"--impersonate chrome is not possible: .*curl_cffi"):
        ydl_options(options, Route())


def test_every_allowed_option_is_tested() -> None:
    tested = " ".join([*ARRIVES, "--add-headers", "--impersonate"])
    assert [name for name in ALLOWED if name not in tested] == []


def test_nothing_else_of_yt_dlp_changes() -> None:
    passed = ydl_options(FetchOptions(yt_dlp="--retries 5"), Route())
    assert {**passed, "retries": 3} == PLAIN


def test_several_extractor_args_are_one() -> None:
    parameters = params(
        extractor_args=["youtube:player_client=web,ios", "youtubepot-bgutilhttp:base_url=http://x"],
        yt_dlp="--extractor-args generic:impersonate",
    )["extractor_args"]
    assert parameters["youtube"] == {"player_client": ["web", "ios"]}
    assert parameters["youtubepot-bgutilhttp"] == {"base_url": ["http://x"]}
    assert parameters["generic"] == {"impersonate": [""]}


def test_options_of_voxblink2_are_passed_on(tmp_path: Path) -> None:
    jar = tmp_path / "jar.txt"
    jar.touch()
    options = FetchOptions.of(proxy="http://10.0.0.1:80", cookies=str(jar), limit_rate="8K")
    passed = ydl_options(options, *options.routes())
    assert passed["proxy"] == "http://10.0.0.1:80"
    assert passed["cookiefile"] == str(jar)
    assert passed["ratelimit"] == 8192
    browser = ydl_options(FetchOptions.of(cookies_from_browser="firefox:work"), Route())
    assert browser["cookiesfrombrowser"] == ("firefox", "work", None, None)


REFUSED = [
    *("--exec 'touch {}'", "--exec=true", "--exec before_dl:true", "--exe true", "--ex true"),
    *("-o /tmp/x", "-o/tmp/x", "--output /tmp/x", "--outp=/tmp/x", "--paths /tmp", "-P /tmp"),
    *("--config-locations x", "--config-location=x", "--plugin-dirs x", "--alias a b"),
    *("--downloader curl", "--external-downloader curl", "--downloader-args x"),
    *("--ffmpeg-location /tmp", "--netrc-cmd 'echo x'", "--netrc", "-n", "--netrc-location x"),
    *("--write-info-json", "--write-subs", "--write-pages", "--print-to-file x y", "--cache-dir x"),
    *("--batch-file x", "-a x", "--load-info-json x", "--download-archive x", "-k", "-x"),
    *("--update", "-U", "--update-to x", "--use-postprocessor x", "--ppa x", "--js-runtimes x"),
    *("--client-certificate x", "--enable-file-urls", "--simulate", "-s", "-i", "-io", "-io/tmp/x"),
    *("-4o /tmp/x", "-64", "-R5", "-4R 5", "--socket 5", "--retrie 5", "--no-check-cert"),
    *("--ignore-config", "--no-retries", "--", "-", "--RETRIES 5", "\u2013-retries 5"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_every_other_option_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"^yt_dlp: ") as caught:
        ydl_options(FetchOptions(yt_dlp=text), Route())
    if text.startswith("-"):
        assert "allowed are --sleep-requests, --socket-timeout" in str(caught.value)
        assert f"option {text.split(maxsplit=1)[0].partition('=')[0]!r} is not passed on" in str(
            caught.value
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["--coo x", "--cookies-from firefox", "--prox x", "--limit x"])
def test_abbreviations_are_refused(text: str) -> None:
    with pytest.raises(SourceError, match=r"run programs.* are refused; allowed are .*, in full"):
        ydl_options(FetchOptions(yt_dlp=text), Route())


@pytest.mark.parametrize(
    "text",
    ["--cookies x", "--cookies=x", "--cookies-from-browser x", "--proxy x", "--limit-rate x"],
)
def test_the_message_names_our_own_option(text: str) -> None:
    own = text.split(maxsplit=1)[0].partition("=")[0]
    with pytest.raises(SourceError, match=f"Use voxblink2's own {own} instead"):
        ydl_options(FetchOptions(yt_dlp=text), Route())


def test_a_refusal_does_not_repeat_a_value() -> None:
    with pytest.raises(SourceError, match="'--proxy' is not passed on") as caught:
        ydl_options(FetchOptions(yt_dlp="--proxy=http://me:hunter2@host"), Route())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--retries 'five", "the options cannot be split: No closing quotation"),
        ("--retries five", "yt-dlp cannot parse --retries five: .*retry count"),
        ("--socket-timeout soon", "yt-dlp cannot parse .*invalid floating-point"),
        ("--impersonate no-such-browser", "yt-dlp cannot parse .*"),
        ("--xff nowhere-at-all", "yt-dlp cannot parse .*"),
        ("--username", "yt_dlp: --username also needs --password"),
        ("--source-address", "yt-dlp cannot parse --source-address: .*requires 1 argument"),
        ("--retries", "yt-dlp cannot parse --retries: .*requires 1 argument"),
        ("-4=o", "yt-dlp cannot parse -4=o: no such option"),
        ("--force-ipv4=yes", "yt-dlp cannot parse .*does not take a value"),
        ("--retries 5 http://elsewhere", "contains arguments that belong to no option"),
        ("elsewhere", "contains arguments that belong to no option"),
        ("--username me", "--username also needs --password"),
        ("-u me", "--username also needs --password"),
    ],
)
def test_malformed_options_are_reported(
    text: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match=message):
        ydl_options(FetchOptions(yt_dlp=text), Route())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["--source-address", "--password", "--geo-verification-proxy"])
def test_an_option_without_its_value_takes_no_other(text: str) -> None:
    """An argument after the user's options is not taken for a value, nor parsed as an option."""
    options = FetchOptions.of(yt_dlp=text, extractor_args=["--exec=touch x"])
    with pytest.raises(SourceError, match="yt-dlp cannot parse"):
        ydl_options(options, Route())


@pytest.mark.parametrize("value", ["youtube", "--exec=touch x", "no colon here"])
def test_malformed_extractor_args_are_reported(value: str) -> None:
    with pytest.raises(SourceError, match="yt-dlp cannot parse"):
        ydl_options(FetchOptions.of(extractor_args=value), Route())


def test_an_unknown_browser_is_reported() -> None:
    with pytest.raises(SourceError, match=r"cannot parse .*unsupported browser"):
        ydl_options(FetchOptions.of(cookies_from_browser="netscape"), Route())


def test_the_users_own_configuration_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "yt-dlp"
    folder.mkdir()
    (folder / "config").write_text("--retries 77\n--exec 'touch x'\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert params(yt_dlp="-4")["retries"] == 3


def test_standard_error_is_restored() -> None:
    before = sys.stderr
    with pytest.raises(SourceError, match="cannot parse"):
        ydl_options(FetchOptions(yt_dlp="--retries five"), Route())
    assert sys.stderr is before


def test_no_downloader_is_made_while_standard_error_is_redirected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """yt-dlp inspects standard error when it is made, and fails if it changes meanwhile."""
    parse, parsing, made = yt_dlp.parse_options, threading.Event(), threading.Event()
    made_early = []

    class SlowDownloader(Downloader):
        def __init__(self, *message: Any) -> None:
            made.set()
            super().__init__(*message)

    def slow_parse(message: list[str]) -> Any:
        parsing.set()
        made_early.append(made.wait(0.3))
        return parse(message)

    monkeypatch.setattr(ytdlp, "Downloader", SlowDownloader)
    monkeypatch.setattr(yt_dlp, "parse_options", slow_parse)
    options = FetchOptions(yt_dlp="--socket-timeout 1")
    with_options = threading.Thread(
        target=lambda: YtDlpSource("http://a/{video_id}", options=options)
    )
    with_options.start()
    assert parsing.wait(30)
    YtDlpSource("http://a/{video_id}")
    with_options.join()
    assert made_early == [False]
