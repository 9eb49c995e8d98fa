"""Headers of a user reach the source's host and no other, by real yt-dlp."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import plain_corpus
from support.loopback_server import LoopbackHandler, LoopbackServer
from yt_dlp.networking import Request

from voxblink2_lib.demo.site import parse_range
from voxblink2_lib.errors import FetchError, SourceError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.host_headers import HostHeaders
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.ytdlp import YtDlpSource

# yt-dlp keeps connections for the life of a source, which ends with a test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

KEY = VideoKey("id000001", "video000001")
SECRETS = ("k3y-of-header", "s3ss10n-of-header", "s3ss10n-of-file", "bob", "pw0rd", "t0ken")
OPTIONS = FetchOptions.of(
    yt_dlp="--add-headers X-Key:k3y-of-header --add-headers Cookie:sid=s3ss10n-of-header"
)
BASIC = "Basic Ym9iOnB3MHJk"


class Server(LoopbackServer):
    """Serves a medium; keeps the headers of all requests."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.elsewhere = ""
        super().__init__(_Handler)

    @property
    def others_url(self) -> str:
        """Its URL by another host name."""
        return self.url.replace("127.0.0.1", "localhost")


class _Handler(LoopbackHandler):
    server: Server
    protocol_version = "HTTP/1.0"

    def answer(self) -> None:
        site = self.server
        site.seen.append({**self.headers, ":path": self.path})
        if self.path.startswith("/moved"):
            self.reply(302, b"", {"Location": f"{site.elsewhere}/video000001.wav"})
        elif self.path.startswith("/page"):
            page = f'<html><title>x</title><video src="{site.elsewhere}/a.wav"></video></html>'
            self.reply(200, page.encode(), {"Content-Type": "text/html"})
        else:
            body, kind = plain_corpus.wav(), {"Content-Type": "audio/wav"}
            start, stop = parse_range(self.headers.get("Range", ""), len(body)) or (0, len(body))
            if "Range" in self.headers:
                kind["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
            self.reply(206 if "Range" in self.headers else 200, body[start:stop], kind)


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with Server() as home, Server() as other:
        home.elsewhere = other.others_url
        yield home, other


@pytest.fixture
def jar(tmp_path: Path) -> str:
    path = tmp_path / "cookies.txt"
    line = "\t".join(["127.0.0.1", "FALSE", "/", "FALSE", "0", "file", "s3ss10n-of-file"])
    path.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    return str(path)


def fetch(template: str, jar: str, tmp_path: Path, *, handlers: tuple[str, ...] = ()) -> None:
    source = YtDlpSource(template, options=OPTIONS, route=Route(cookies=jar))
    for name in handlers:
        del source._ydl._request_director.handlers[name]
    with source.fetch(KEY, needed_seconds=1.0, tmp=tmp_path) as media:
        assert media.path.read_bytes()[:4] == b"RIFF"


def template(server: Server, path: str) -> str:
    return f"http://bob:pw0rd@{server.host}/{path}{{video_id}}.wav?token=t0ken"


def test_the_host_of_the_source_gets_them_with_every_request(
    servers: tuple[Server, Server], jar: str, tmp_path: Path
) -> None:
    home, _ = servers
    fetch(template(home, ""), jar, tmp_path)
    assert len(home.seen) > 1
    for headers in home.seen:
        assert headers["X-Key"] == "k3y-of-header"
        assert headers["Authorization"] == BASIC
        assert "sid=s3ss10n-of-header" in headers["Cookie"]
        assert "file=s3ss10n-of-file" in headers["Cookie"]


@pytest.mark.parametrize("handlers", [(), ("Requests",)], ids=["requests", "urllib"])
@pytest.mark.parametrize("path", ["moved/", "page/"])
def test_another_host_gets_nothing(
    path: str,
    handlers: tuple[str, ...],
    servers: tuple[Server, Server],
    jar: str,
    tmp_path: Path,
) -> None:
    home, other = servers
    fetch(template(home, path), jar, tmp_path, handlers=handlers)
    assert {headers["X-Key"] for headers in home.seen} == {"k3y-of-header"}
    assert other.seen
    assert not [secret for secret in SECRETS if secret in str(other.seen)]
    assert "Authorization" not in str(other.seen)


def test_a_redirect_within_the_host_keeps_them(
    servers: tuple[Server, Server], jar: str, tmp_path: Path
) -> None:
    home, _ = servers
    home.elsewhere = home.url
    fetch(template(home, "moved/"), jar, tmp_path)
    assert {headers["X-Key"] for headers in home.seen} == {"k3y-of-header"}


@pytest.mark.parametrize(
    ("home", "url", "is_sent"),
    [
        ("https://www.youtube.com/watch?v=x", "https://m.youtube.com/x", True),
        ("https://www.youtube.com/watch?v=x", "http://www.youtube.com/x", False),
        ("https://www.youtube.com/watch?v=x", "https://r1.googlevideo.com/x", False),
        ("https://www.youtube.com/watch?v=x", "https://notyoutube.com/x", False),
        ("http://a.example/x", "https://a.example/x", True),
        ("https://a.example/x", "http://a.example/x", False),
        ("https://a.example/x", "https://b.a.example/x", False),
        ("https://a.example/x", "https://a.example:8443/x", False),
        ("https://a.example/x", "https://me@A.example:443/x", True),
        ("https://a.example/x", "https://a.example:port/x", False),
    ],
)
def test_which_host_is_the_sources(home: str, url: str, is_sent: bool) -> None:
    headers = HostHeaders({"X-Key": "k"})
    headers.begin(home)
    request = Request(url)
    headers.add_to(request, {})
    assert ("X-Key" in request.headers) == is_sent


def test_what_an_extractor_chose_stays() -> None:
    headers = HostHeaders({"User-Agent": "mine", "Accept": "mine"})
    headers.begin("https://a.example/x")
    request = Request("https://a.example/y", headers={"User-Agent": "chosen", "Accept": "any"})
    headers.add_to(request, {"Accept": "any"})
    assert dict(request.headers) == {"User-Agent": "chosen", "Accept": "mine"}


def test_headers_with_impersonation_are_refused() -> None:
    options = FetchOptions.of(yt_dlp="--add-headers X-Key:k --impersonate chrome")
    with pytest.raises(SourceError, match="--add-headers does not go with --impersonate"):
        YtDlpSource("http://a.example/{video_id}", options=options)


@pytest.mark.parametrize("content", ["one two s3cr3t-value", '[{"name": "s3cr3t-value"}]'])
def test_a_bad_cookie_file_is_refused_without_its_content(
    content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jar.txt"
    path.write_text(content)
    with pytest.raises(SourceError, match="must be in Netscape format") as caught:
        YtDlpSource("http://a.example/{video_id}", route=Route(cookies=str(path)))
    output = capfd.readouterr()
    assert "s3cr3t" not in f"{caught.value} {output.out} {output.err}"


def test_lines_that_are_skipped_are_not_printed(
    servers: tuple[Server, Server],
    jar: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open(jar, "a") as file:
        file.write("127.0.0.1\ts3cr3t-value\n")
    caplog.set_level("INFO")
    fetch(template(servers[0], ""), jar, tmp_path)
    output = capfd.readouterr()
    assert "s3cr3t" not in f"{output.out} {output.err} {caplog.text}"
    assert f"Lines that are no cookies in {jar}, and are left out: 1" in caplog.text


def test_an_error_contains_no_secret(
    servers: tuple[Server, Server], jar: str, tmp_path: Path
) -> None:
    home, _ = servers
    home.elsewhere = "http://bob:pw0rd@127.0.0.1:1/?token=t0ken&x="
    with pytest.raises(FetchError) as caught:
        fetch(template(home, "moved/"), jar, tmp_path)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
