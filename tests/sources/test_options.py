"""Options of downloading: what is refused before the first request, and which routes follow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources.options import FetchOptions, Route

BUDGET = "budget must be 0 for no limit, or a number of videos per hour from 1/24 to 1,000,000"
ONE, TWO = "http://10.0.0.1:8080", "socks5h://10.0.0.2:1080"


@pytest.fixture
def jars(tmp_path: Path) -> tuple[str, str]:
    """Two files of cookies."""
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("# Netscape HTTP Cookie File\n")
    return str(tmp_path / "one.txt"), str(tmp_path / "two.txt")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"proxy": ["10.0.0.1:8080"]},
            r"such as http://host:8080 .* \(http, https, socks4",
        ),
        ({"proxy": ["ftp://10.0.0.1"]}, r"got 'ftp://10\.0\.0\.1'"),
        ({"proxy": ["http://"]}, "A proxy must be a URL"),
        ({"proxy": [""]}, "proxy is an empty text. Leave it out, or give a value"),
        ({"proxy": ["http://[::1"]}, "A proxy must be a URL"),
        ({"proxy": ["http://host:99999"]}, "A proxy must be a URL"),
        ({"proxy": ["http://host:0"]}, "A proxy must be a URL"),
        ({"proxy": ["http://host:port"]}, "A proxy must be a URL"),
        ({"cookies": ["nowhere.txt"]}, r"The file 'nowhere\.txt' does not exist. Check its path"),
        ({"reasons": "nowhere.toml"}, r"The file 'nowhere\.toml' does not exist. Check its path"),
        (
            {"budget": -1},
            BUDGET + ", got -1",
        ),
        (
            {"budget": math.inf},
            BUDGET + ", got inf",
        ),
        (
            {"budget": math.nan},
            BUDGET + ", got nan",
        ),
        (
            {"budget": "300"},
            BUDGET + ", got '300'",
        ),
        (
            {"budget": True},
            BUDGET + ", got True",
        ),
        ({"sleep": -0.5}, "sleep must be a number of seconds from 0 to 86,400, a day, got -0.5"),
        ({"sleep": math.inf}, "sleep must be a number of seconds from 0 to 86,400, a day, got inf"),
        ({"fetches": 0}, "fetches must be a whole number from 1 to 256, got 0"),
        ({"fetches": 257}, "fetches must be a whole number from 1 to 256, got 257"),
        ({"fetches": 2.0}, "fetches must be a whole number from 1 to 256, got 2.0"),
        ({"fetches": True}, "fetches must be a whole number from 1 to 256, got True"),
        (
            {"limit_rate": "fast"},
            "must be bytes per second from 4K to 1024G, for example 500K or 2M, got 'fast'",
        ),
        (
            {"limit_rate": ""},
            "must be bytes per second from 4K to 1024G, for example 500K or 2M, got ''",
        ),
        (
            {"limit_rate": "0"},
            "must be bytes per second from 4K to 1024G, for example 500K or 2M, got '0'",
        ),
        (
            {"limit_rate": "0.0M"},
            "must be bytes per second from 4K to 1024G, for example 500K or 2M, got '0.0M'",
        ),
        (
            {"limit_rate": "-1K"},
            "must be bytes per second from 4K to 1024G, for example 500K or 2M, got '-1K'",
        ),
        (
            {"limit_rate": "1T"},
            "must be bytes per second from 4K to 1024G, for example 500K or 2M, got '1T'",
        ),
        ({"limit_rate": "٣K"}, "must be bytes per second from 4K to 1024G, for example 500K or 2M"),
        ({"limit_rate": "0.0001"}, "from 4K to 1024G, for example 500K or 2M, got '0.0001'"),
        ({"limit_rate": "3.9K"}, "from 4K to 1024G, for example 500K or 2M, got '3.9K'"),
        ({"limit_rate": "1e400"}, "from 4K to 1024G, for example 500K or 2M, got '1e400'"),
        ({"limit_rate": "9" * 400}, "from 4K to 1024G, for example 500K or 2M, got '999"),
        ({"budget": 1e-300}, "from 1/24 to 1,000,000, got 1e-300"),
        ({"budget": 1e300}, r"from 1/24 to 1,000,000, got 1e\+300"),
        ({"budget": 10**400}, "from 1/24 to 1,000,000, got 1000"),
        ({"sleep": 86_401}, "sleep must be a number of seconds from 0 to 86,400, a day, got 86401"),
        ({"sleep": 10**400}, "sleep must be a number of seconds from 0 to 86,400, a day, got 1000"),
        ({"proxy": 7}, "proxy must be a text or a list of texts, got int"),
        ({"proxy": [7]}, "proxy must be a text, got int"),
        ({"proxy": "http://a\n:1"}, "proxy contains a control character, such as a line break"),
        ({"proxy": {"a": 1}}, "proxy must be a text or a list of texts, got dict"),
        ({"cookies": [None]}, "cookies must be a text, got NoneType"),
        ({"cookies": ""}, "cookies is an empty text. Leave it out"),
        ({"cookies": "a" * 5000}, "does not exist. Check its path"),
        ({"cookies": "~nobody-of-this-name/jar"}, "does not exist. Check its path"),
        ({"cookies_from_browser": ""}, "cookies_from_browser is an empty text. Leave it out"),
        ({"cookies_from_browser": 3}, "cookies_from_browser must be a text, got int"),
        ({"cookies_from_browser": ["firefox"]}, "cookies_from_browser must be a text, got list"),
        ({"extractor_args": b"youtube:a=1"}, "extractor_args must be a text or a list of texts"),
        ({"extractor_args": "youtube:a=\0"}, "extractor_args contains a control character"),
        ({"extractor_args": ["youtube:a=1", " "]}, "extractor_args is an empty text"),
        ({"yt_dlp": ["--force-ipv4"]}, "yt_dlp must be a text, got list"),
        ({"yt_dlp": 1.5}, "yt_dlp must be a text, got float"),
        ({"reasons": ""}, "reasons is an empty text. Leave it out"),
        ({"reasons": True}, "reasons must be a text, got bool"),
        ({"reasons": "a\0b"}, "reasons contains a control character"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        FetchOptions.of(**given)


def test_cookies_come_from_one_place(jars: tuple[str, str]) -> None:
    with pytest.raises(SourceError, match="Both cookies and cookies_from_browser are given"):
        FetchOptions.of(cookies=jars[0], cookies_from_browser="firefox")


def test_cookies_and_proxies_must_fit(jars: tuple[str, str]) -> None:
    with pytest.raises(
        SourceError, match=r"2 files of cookies do not fit 3 proxies. Give one file"
    ):
        FetchOptions.of(cookies=jars, proxy=[ONE, TWO, "http://third"])
    with pytest.raises(
        SourceError, match=r"2 files of cookies do not fit 1 proxies. Give one file"
    ):
        FetchOptions.of(cookies=jars, proxy=ONE)


@pytest.mark.parametrize("name", ["proxy", "cookies_from_browser", "extractor_args"])
def test_a_refusal_shows_no_text_that_may_be_secret(name: str) -> None:
    with pytest.raises(SourceError, match=f"^{name} contains a control character") as caught:
        FetchOptions.of(**{name: "hunter2\n"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "proxy", ["me:hunter2@host:1", "htp://me:hunter2@host:1", "http://me:hunter2@host:99999"]
)
def test_a_refusal_shows_no_password(proxy: str) -> None:
    with pytest.raises(SourceError, match="A proxy must be a URL") as caught:
        FetchOptions.of(proxy=proxy)
    assert "hun" not in str(caught.value)
    assert proxy[3:] not in str(caught.value)


def test_the_name_of_a_route_contains_no_password(jars: tuple[str, str]) -> None:
    options = FetchOptions.of(proxy="http://me:hunter2@gate.example:7777", cookies=jars[0])
    (route,) = options.routes()
    assert route.name == "gate.example:7777 with one.txt"
    assert route.proxy == "http://me:hunter2@gate.example:7777"


def test_routes(jars: tuple[str, str]) -> None:
    first, second = jars
    assert FetchOptions().routes() == (Route("direct", None, None),)
    assert FetchOptions.of(proxy=[ONE, TWO]).routes() == (
        Route("10.0.0.1:8080", ONE, None),
        Route("10.0.0.2:1080", TWO, None),
    )
    assert FetchOptions.of(proxy=[ONE, TWO], cookies=first).routes() == (
        Route("10.0.0.1:8080 with one.txt", ONE, first),
        Route("10.0.0.2:1080 with one.txt", TWO, first),
    )
    assert FetchOptions.of(proxy=[ONE, TWO], cookies=jars).routes() == (
        Route("10.0.0.1:8080 with one.txt", ONE, first),
        Route("10.0.0.2:1080 with two.txt", TWO, second),
    )
    assert FetchOptions.of(cookies=jars).routes() == (
        Route("direct with one.txt", None, first),
        Route("direct with two.txt", None, second),
    )


@pytest.mark.parametrize(
    ("proxy", "name"),
    [
        ("http://host", "host"),
        ("socks4a://host:1080", "host:1080"),
        ("https://[2001:db8::1]:8443", "2001:db8::1:8443"),
    ],
)
def test_proxies_of_every_kind(proxy: str, name: str) -> None:
    (route,) = FetchOptions.of(proxy=proxy).routes()
    assert route.name == name


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "jar.txt").touch()
    (route,) = FetchOptions.of(cookies="~/jar.txt").routes()
    assert route.cookies == str(tmp_path / "jar.txt")


def test_paths_are_as_good_as_texts(jars: tuple[str, str]) -> None:
    assert FetchOptions.of(cookies=Path(jars[0])) == FetchOptions.of(cookies=jars[0])
    assert FetchOptions.of(cookies=[Path(jar) for jar in jars]) == FetchOptions.of(cookies=jars)


def test_nothing_given_means_the_defaults() -> None:
    nothing = dict.fromkeys(FetchOptions.names())
    assert FetchOptions.of(**nothing) == FetchOptions()
    assert FetchOptions().fetch_count == 8
    assert FetchOptions().bytes_a_second is None


@pytest.mark.parametrize(
    ("budget", "of_youtube", "of_others"),
    [(None, 300, math.inf), (0, math.inf, math.inf), (0.0, math.inf, math.inf), (90.5, 90.5, 90.5)],
)
def test_budget(budget: float | None, of_youtube: float, of_others: float) -> None:
    options = FetchOptions.of(budget=budget)
    assert options.per_hour(is_youtube=True) == of_youtube
    assert options.per_hour(is_youtube=False) == of_others


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5000", 5000),
        ("500K", 512_000),
        ("500k", 512_000),
        ("2.5M", 2_621_440),
        ("1G", 1 << 30),
        (250_000, 250_000),
    ],
)
def test_limit_rate(text: Any, rate: float) -> None:
    assert FetchOptions.of(limit_rate=text).bytes_a_second == rate
