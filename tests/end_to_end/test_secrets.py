"""No secret of a user reaches a file or an output, whatever the source answers.

A URL with user, password and token, a file of cookies, a header, an account and a proxy with a
password go through every command that takes them. The site repeats all that it is sent. Then every
byte of the store, the user's folder, the report and all outputs is searched.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

import pytest
from support import plain_corpus
from support.cli_process import run_inline
from support.fault_site import dead_proxy
from support.loopback_server import LoopbackHandler, LoopbackServer

from voxblink2_lib.demo.site import parse_range
from voxblink2_lib.sources.rate_limits import RateLimiter, shared_file

# yt-dlp keeps connections for the life of a source, which ends with a test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

USER, PASSWORD, TOKEN = "b0buser", "p@ss/w0rd", "t0k3n+value/="
HEADER, COOKIE, ACCOUNT = "h34der-value", "c00kie-value-1", "acc0unt-passw0rd"
PROXY_USER, PROXY_PASSWORD = "pr0xyuser", "pr0xy:pass"
YT_DLP = f"--add-headers X-Key:{HEADER} --username me --password {ACCOUNT}"
# What a site may answer, by the number of the video.
ANSWERS = (
    "good",
    "404",
    "reason that repeats the request",
    "redirect loop",
    "redirect to a closed port",
    "redirect to no host",
    "redirect to a strange scheme",
    "a page that is no video",
    "a page with media elsewhere",
    "200 and nothing",
    "an encoding that repeats the request",
)


# -- The site --------------------------------------------------------------------------------------


class RepeatingSite(LoopbackServer):
    """Answers each video in another way, and repeats what it is sent where it can."""

    def __init__(self) -> None:
        super().__init__(_Handler)

    @property
    def template(self) -> str:
        user_info = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"
        return f"http://{user_info}@{self.host}/{{video_id}}.wav?token={quote(TOKEN, safe='')}"


class _Handler(LoopbackHandler):
    protocol_version = "HTTP/1.0"

    def answer(self) -> None:  # noqa: PLR0912  # a table of answers
        parts = urlsplit(self.path)
        name = Path(parts.path).stem
        if not name.startswith("video"):
            self.reply(204, b"", {})
            return
        answer = ANSWERS[int(name.removeprefix("video"))]
        authorization = self.headers.get("Authorization", "Basic eDp5")
        pair = base64.b64decode(authorization.partition(" ")[2]).decode()
        cookie, key = self.headers.get("Cookie", ""), self.headers.get("X-Key", "")
        repeated = f"for {authorization} {pair} {cookie} {key} {unquote(self.path)} {self.path}"
        evil = f"//{quote(pair, safe=':')}@127.0.0.1:1/x?{parts.query}"
        match answer:
            case "good":
                self._send_media()
            case "reason that repeats the request":
                self.send_response(404, f"Nothing here {repeated}")
                self.end_headers()
            case "redirect loop":
                self.reply(302, b"", {"Location": self.path})
            case "redirect to a closed port":
                self.reply(302, b"", {"Location": f"http:{evil}"})
            case "redirect to no host":
                self.reply(302, b"", {"Location": f"http://[{evil}"})
            case "redirect to a strange scheme":
                self.reply(302, b"", {"Location": f"gopher:{evil}"})
            case "a page that is no video":
                page = f"<html><title>{repeated}</title>{repeated}</html>"
                self.reply(200, page.encode(), {"Content-Type": "text/html"})
            case "a page with media elsewhere":
                page = f'<html><title>x</title><video src="http:{evil}"></video></html>'
                self.reply(200, page.encode(), {"Content-Type": "text/html"})
            case "200 and nothing":
                self.reply(200, b"", {"Content-Type": "audio/wav"})
            case "an encoding that repeats the request" if "Range" in self.headers:
                kind = {"Content-Type": "audio/wav", "Content-Encoding": repeated}
                self.reply(206, b"x", {**kind, "Content-Range": "bytes 0-0/1"})
            case "an encoding that repeats the request":
                self._send_media()
            case _:
                self.reply(404, b"", {})

    def _send_media(self) -> None:
        body, kind = plain_corpus.wav(), {"Content-Type": "audio/wav"}
        part = parse_range(self.headers.get("Range", ""), len(body))
        if part is None:
            self.reply(200, body, kind)
            return
        start, stop = part
        self.reply(
            206,
            body[start:stop],
            {**kind, "Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"},
        )


class _Proxy(LoopbackHandler):
    """Forwards requests whole."""

    protocol_version = "HTTP/1.0"

    def answer(self) -> None:
        url = urlsplit(self.path)
        with closing(http.client.HTTPConnection(url.netloc, timeout=30)) as upstream:
            upstream.request(self.command, f"{url.path}?{url.query}", headers=dict(self.headers))
            with upstream.getresponse() as response:
                self.send_response(response.status, response.reason)
                for header, value in response.getheaders():
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(response.read())


# -- Searching -------------------------------------------------------------------------------------


def forms(secret: str) -> set[bytes]:
    """Return a secret in every form in which it could be written."""
    plain = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
    plain |= {quote(text, safe="") for text in plain} | {json.dumps(secret)[1:-1]}
    plain |= {f"{secret.encode().hex()}"} | {text.lower() for text in plain if "%" in text}
    packed = set()
    for place in range(3):
        text = base64.b64encode(bytes(place) + secret.encode()).decode()
        packed.add(text[(8 * place + 5) // 6 : 8 * (place + len(secret)) // 6])
    return {text.encode() for text in plain | packed}


SECRETS = {
    "user": USER,
    "password": PASSWORD,
    "pair": f"{USER}:{PASSWORD}",
    "token": TOKEN,
    "header": HEADER,
    "cookie": COOKIE,
    "account": ACCOUNT,
    "proxy's user": PROXY_USER,
    "proxy's password": PROXY_PASSWORD,
}


def leaks(place: str, data: bytes) -> list[str]:
    """Return which secrets some bytes contain, with what is around them."""
    return [
        f"{name} in {place}: ...{data[max(0, at - 80) : at + 80]!r}..."
        for name, secret in SECRETS.items()
        for form in sorted(forms(secret))
        if (at := data.lower().find(form.lower())) >= 0
    ]


# -- The runs --------------------------------------------------------------------------------------


class Session:
    """Runs commands and keeps all that they write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "everything"
        self.folder.mkdir()
        self.store = self.folder / "store"
        self.outputs: list[str] = []

    def run(self, *words: object, code: int = 0) -> str:
        done = run_inline(*words, code=code)
        self.outputs += [done.stdout, done.stderr]
        return f"{done.stdout}\n{done.stderr}"

    def leaks(self) -> list[str]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        assert len(files) > 10
        found = [leak for path in files for leak in leaks(str(path), path.read_bytes())]
        texts = "\n".join(self.outputs).encode(errors="surrogateescape")
        return found + leaks("the outputs", texts)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    session = Session(tmp_path)
    monkeypatch.setenv("VOXBLINK2_HOME", str(session.folder / "home"))
    library = logging.getLogger("voxblink2_lib")
    before = library.level
    library.setLevel(logging.DEBUG)  # yt-dlp's own messages too
    yield session
    library.setLevel(before)


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "cookies.txt"
    line = "\t".join(["127.0.0.1", "FALSE", "/", "FALSE", "0", "sid", COOKIE])
    path.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    return path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return plain_corpus.make_release(
        tmp_path / "release", plain_corpus.video_ids(len(ANSWERS)), per_speaker=20
    )


def reasons(store: Path) -> dict[str, str]:
    with closing(sqlite3.connect(store / "ledger.sqlite")) as database:
        return dict(database.execute("select video_id, reason from videos"))


def looked_at(session: Session, release: Path) -> None:
    """Run the commands that look at a store."""
    place = ("--store", session.store)
    session.run("status", *place, "--missing")
    session.run("status", *place, "--missing", "--json")
    session.run("status", *place)
    session.run("report", *place, "--out", session.folder / "report.html")
    session.run("report", *place, "--out", session.folder / "report.html", "--json")
    session.run("verify", *place)
    session.run("verify", *place, "--json")
    session.run("index", "--data-dir", release, *place)


@pytest.mark.parametrize("through_proxy", [False, True])
def test_no_secret_leaves_a_run(
    through_proxy: bool,
    session: Session,
    release: Path,
    jar: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with RepeatingSite() as site, LoopbackServer(_Proxy) as proxy:
        account = f"{PROXY_USER}:{quote(PROXY_PASSWORD, safe='')}@"
        proxies = [f"--proxy=http://{account}{proxy.host}"] if through_proxy else []
        route = (*proxies, "--cookies", jar)
        options = (*route, f"--yt-dlp={YT_DLP}", "--source", site.template)
        store = ("--store", session.store)
        session.run("materialize", "--data-dir", release, *store, *options, "--workers", 1)
        session.run("materialize", "--data-dir", release, *store, *options, "--json")
        session.run("retry", *store, "--class", "gone", *options)
        assert "remembers --" in session.run("materialize", *store, code=2)
        with monkeypatch.context() as variables:
            variables.setenv("VOXBLINK2_SOURCE", site.template)
            variables.setenv("VOXBLINK2_YT_DLP", YT_DLP)
            if through_proxy:
                variables.setenv("VOXBLINK2_PROXY", f"http://{account}{proxy.host}")
            session.run("materialize", *store)
            session.run("retry", *store, "--class", "gone", "--json")
        session.run("doctor", *store, *route, "--source", site.template)
        session.run("doctor", *store, *route, "--source", site.template, "--json")
        looked_at(session, release)
    assert session.leaks() == []
    told = reasons(session.store)
    assert len(told) == len(ANSWERS)
    assert told["video000000"] == ""
    assert all(reason for video, reason in told.items() if video != "video000000")
    with closing(sqlite3.connect(session.store / "ledger.sqlite")) as database:
        assert f"http://***@{site.host}/{{video_id}}.wav?token=***" in str(
            database.execute("select * from facts").fetchall()
        )


def test_no_secret_leaves_a_refused_command(session: Session, release: Path, jar: Path) -> None:
    place = ("--data-dir", release, "--store", session.store)
    with RepeatingSite() as site:
        options = ("--cookies", jar, f"--yt-dlp={YT_DLP}", "--source", site.template)
        session.run("materialize", *place, *options)
        source = site.template
    # In a store that is complete nothing is left that options could spoil.
    fresh = ("--data-dir", release, "--store", session.folder / "fresh")
    refused = (
        # The site is gone now: the run stops, with work left.
        (3, "retry", "--store", session.store, "--class", "gone", *options),
        (3, "retry", "--store", session.store, "--class", "gone", *options, "--json"),
        (1, "doctor", "--store", session.store, "--source", source),
        (1, "doctor", "--store", session.store, "--source", source, "--json"),
        (2, "materialize", *fresh, "--source", source.replace("{video_id}", "x")),
        (2, "materialize", *fresh, "--source", source.replace(".wav", "{speaker}"), "--json"),
        (2, "materialize", *fresh, "--source", source.replace("http://", "")),
        (2, "materialize", *fresh, "--source", source.replace("http:", "gopher:")),
        (2, "materialize", "--data-dir", release, "--store", source),
        (2, "materialize", *fresh, f"--soruce={source}"),
        (2, "materialize", *fresh, "--source", source, "--workers", source),
        (2, "materialize", *fresh, f"--yt_dlp={YT_DLP}"),
        (2, "materialize", *fresh, f"--yt-dlp={YT_DLP} --exec x", "--source", source),
        (2, "materialize", *fresh, f"--yt-dlp={YT_DLP} --retries x", "--source", source),
        (2, "materialize", *fresh, f"--yt-dlp={YT_DLP} x", "--source", source),
        (2, "materialize", *fresh, f"--yt-dlp={YT_DLP} '", "--source", source),
        (2, "materialize", *fresh, "--yt-dlp", f"-p{ACCOUNT}", "--source", source),
        (2, "materialize", *fresh, "--proxy", f"ftp://{PROXY_USER}:{PROXY_PASSWORD}@host"),
        (2, "materialize", *fresh, "--proxy", f"{PROXY_USER}:{PROXY_PASSWORD}@host:1"),
    )
    for code, *words in refused:
        session.run(*words, code=code)
    gone = dead_proxy().replace("://", f"://{PROXY_USER}:{quote(PROXY_PASSWORD, safe='')}@")
    with RepeatingSite() as site:
        again = ("materialize", *place, "--source", site.template, "--proxy", gone)
        session.run(*again, "--store", session.folder / "second", code=3)
        session.run("doctor", "--source", site.template, "--proxy", gone, code=1)
    assert session.leaks() == []


def test_a_store_does_not_go_on_with_half_a_source(session: Session, release: Path) -> None:
    with RepeatingSite() as site:
        place = ("--data-dir", release, "--store", session.store, "--source", site.template)
        session.run("materialize", *place)
        message = session.run("retry", "--store", session.store, "--class", "gone", code=2)
        assert (
            f"remembers --source as http://***@{site.host}/{{video_id}}.wav?token=***: secrets are "
            "not kept. Give --source again in full, or set the environment variable "
            "VOXBLINK2_SOURCE and run the same command again."
        ) in message
        # Without them it is known well enough for its pauses.
        limiter = RateLimiter(shared_file())
        limiter.pause(f"{site.host} direct", 3600, f"slow down, {site.template}", grows=False)
        assert "slow down, http://***@" in session.run("status", "--store", session.store)
        session.run("retry", "--store", session.store, "--lift-pauses")
        # In full it is the same source: nothing final is asked again.
        before = reasons(session.store)
        session.run("materialize", *place)
        assert reasons(session.store) == before
