"""Values that yt-dlp takes, and that would fail or hang every video, are refused first."""

from __future__ import annotations

import pytest

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.ytdlp_options import ydl_options

SECONDS_A_DAY = "--sleep-requests must be a number of seconds from 0 to 86,400, got"
SECONDS_AN_HOUR = "--socket-timeout must be a number of seconds from 0.1 to 3,600, got"
ADDRESS = "--source-address must be an IP address of this machine, such as 192.0.2.7, got"
COUNTRY = "--xff must be default, never, a country such as DE, or addresses as 192.0.2.0/24, got"
REFUSED = {
    "--sleep-requests nan": '--sleep-requests nan: requests sleep interval "nan" must be positive',
    "--sleep-requests inf": f"{SECONDS_A_DAY} inf",
    "--sleep-requests=-1": '--sleep-requests=-1: requests sleep interval "-1.0" must be positive',
    "--sleep-requests 1e300": f"{SECONDS_A_DAY} 1e+300",
    "--sleep-requests 86401": f"{SECONDS_A_DAY} 86401.0",
    "--socket-timeout nan": f"{SECONDS_AN_HOUR} nan",
    "--socket-timeout inf": f"{SECONDS_AN_HOUR} inf",
    "--socket-timeout=-1": f"{SECONDS_AN_HOUR} -1.0",
    "--socket-timeout 0": f"{SECONDS_AN_HOUR} 0.0",
    "--source-address nonsense": f"{ADDRESS} 'nonsense'",
    "--source-address=": f"{ADDRESS} ''",
    "--source-address 1.2.3.4.5": f"{ADDRESS} '1.2.3.4.5'",
    "--retries 101": "--retries must be a whole number from 0 to 100, got 101",
    "--retries infinite": "--retries must be a whole number from 0 to 100, got inf",
    "--fragment-retries 99999999999": "--fragment-retries must be a whole number from 0 to 100",
    "--extractor-retries infinite": "--extractor-retries must be a whole number from 0 to 100",
    "--geo-verification-proxy nonsense": "--geo-verification-proxy must be a URL such as http:",
    "--geo-verification-proxy=": "--geo-verification-proxy must be a URL such as http:",
    "--xff zz": f"{COUNTRY} 'zz'",
    "--xff=-1": f"{COUNTRY} '-1'",
    "--xff 1.2.3.0/99": f"{COUNTRY} '1.2.3.0/99'",
    "--add-headers 'Range: bytes=0-1'": "--add-headers must not set range: each request sets its",
    "--add-headers 'X-A: \u2603'": "the value of --add-headers for x-a has characters that no",
    "--username '' --password x": "--username is an empty text. Leave it out",
    "--username x --password ''": "--password is an empty text. Leave it out",
}
TEXTS = {
    "--source-address": "--source-address 'hunter2{}'",
    "--geo-verification-proxy": "--geo-verification-proxy 'http://hunter2{}'",
    "--add-headers": "--add-headers 'X: hunter2{}b'",
    "--extractor-args": "--extractor-args 'youtube:a=hunter2{}b'",
    "--username": "--username 'hunter2{}' --password x",
    "--password": "--username x --password 'hunter2{}'",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match=r"^yt_dlp: ") as caught:
        ydl_options(FetchOptions(yt_dlp=text), Route())
    assert REFUSED[text] in str(caught.value)


@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\x1b", "\x7f", "\x9b"])
@pytest.mark.parametrize("name", TEXTS)
def test_control_characters_are_refused_and_not_repeated(name: str, bad: str) -> None:
    message = f"^yt_dlp: the value of {name} contains a control character, such as a line break"
    with pytest.raises(SourceError, match=message) as caught:
        ydl_options(FetchOptions(yt_dlp=TEXTS[name].format(bad)), Route())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["--xff 10.1.2.3/8", "--xff fr", "--xff default", "--retries 0"])
def test_the_ends_of_what_is_allowed(text: str) -> None:
    ydl_options(FetchOptions(yt_dlp=text), Route())


def test_options_may_be_on_several_lines() -> None:
    options = FetchOptions(yt_dlp="--retries 5\n  --socket-timeout 7\n")
    passed = ydl_options(options, Route())
    assert (passed["retries"], passed["socket_timeout"]) == (5, 7.0)
