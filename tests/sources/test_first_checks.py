"""What every download needs is tried before the first video, on each route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from yt_dlp import YoutubeDL

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources import parse_source
from voxblink2_lib.sources.first_checks import check_downloads
from voxblink2_lib.sources.options import FetchOptions

COOKIE = "\t".join([".example.org", "TRUE", "/", "TRUE", "4000000000", "name", "hunter2"])


def check(**options: Any) -> None:
    check_downloads(parse_source("http://127.0.0.1/{video_id}", FetchOptions.of(**options)))


def test_the_defaults_and_usual_options_pass(tmp_path: Path) -> None:
    jar = tmp_path / "cookies.txt"
    jar.write_text(f"# Netscape HTTP Cookie File\n{COOKIE}\n")
    check()
    check(
        yt_dlp="--source-address 127.0.0.1 --socket-timeout 5", proxy="socks5://host:1", cookies=jar
    )
    assert jar.read_text().endswith(f"{COOKIE}\n"), "it is as before"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"hunter2\n", "is not a cookie file in Netscape format"),
        (
            b"# Netscape HTTP Cookie File\nhunter2\n",
            "is not a cookie file in Netscape format: 1 lines and no cookie",
        ),
        (b'[{"name": "hunter2"}]', "is not a cookie file in Netscape format"),
        (b"\xff\xfehunter2", "is not a text file in UTF-8"),
    ],
)
def test_a_file_of_cookies_that_is_none(
    tmp_path: Path, content: bytes, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text(f"# Netscape HTTP Cookie File\n{COOKIE}\n")
    bad.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        check(cookies=[good, bad])
    assert str(caught.value) == (
        f"cookies: {bad} {problem}. Export it again as cookies.txt from a browser; 'voxblink2 "
        f'doctor --source "http://127.0.0.1/{{video_id}}" --cookies {bad}\' shows more.'
    )
    output = capfd.readouterr()
    assert "hunter2" not in f"{output.out}{output.err}{caught.value}"


@pytest.mark.parametrize("text", ["--source-address 192.0.2.1", "--source-address 2001:db8::1"])
def test_an_address_that_is_not_of_this_machine(text: str) -> None:
    address = text.split()[1]
    message = f"^yt_dlp: requests cannot be sent from the address {address} .--source-address, "
    with pytest.raises(SourceError, match=message):
        check(yt_dlp=text)


def test_a_profile_of_a_browser_that_is_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    message = "^cookies_from_browser: these options are not possible: could not find firefox cook"
    with pytest.raises(SourceError, match=message):
        check(cookies_from_browser=f"firefox:{tmp_path}")
    assert capfd.readouterr() == ("", "")


def test_a_list_of_reasons_is_read(tmp_path: Path) -> None:
    path = tmp_path / "reasons.toml"
    path.write_text("[[reason]]\nclass = 'gone'\nhttp = [404]\npause_seconds = 1e300\n")
    with pytest.raises(SourceError, match=r"pause_seconds is 1e.300, must be a number of seconds"):
        check(reasons=path)


def test_every_route_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    init = YoutubeDL.__init__

    def recorded(self: YoutubeDL, parameters: dict[str, Any], **rest: Any) -> None:
        made.append(parameters["proxy"])
        init(self, parameters, **rest)

    monkeypatch.setattr(YoutubeDL, "__init__", recorded)
    proxies = ["http://first:1", "http://second:2"]
    check(proxy=proxies)
    assert made == proxies
