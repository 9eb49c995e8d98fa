"""What doctor says, against real servers, folders and files."""

from __future__ import annotations

import argparse
import datetime
import email.utils
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.cli.doctor import add_doctor_command
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.doctor import checks
from voxblink2_lib.doctor.checks import Finding, run_checks
from voxblink2_lib.errors import DependencyError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources import base
from voxblink2_lib.sources.javascript import JavaScriptSupport
from voxblink2_lib.sources.probe import hide_secrets, shown_proxy

NAMESPACE = ["unshare", "--mount", "--map-root-user"]


class Server:
    """Answers every request with one status, and with the clock of its choice."""

    def __init__(self, status: int = 404, *, ahead_seconds: float = 0.0) -> None:
        seen = self.seen = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                seen.append(self.path)
                self.send_response(status)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                now = time.time() if timestamp is None else timestamp
                return email.utils.formatdate(now + ahead_seconds, usegmt=True)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def template(self) -> str:
        return f"http://{self.place}/watch/{{video_id}}"


def look(
    what: str, *, proxies: tuple[str, ...] = (), cookies: tuple[str, ...] = (), **named: Any
) -> list[Finding]:
    """Return the findings of one check, without the words of the others."""
    found = run_checks(request=MaterializeRequest(**named), proxies=proxies, cookies=cookies)
    for one in found:
        assert one.says
        assert (one.level == "ok") == (not one.remedy), one
    return [one for one in found if one.what == what]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A source that needs no network."""
    (tmp_path / "media" / "id000001").mkdir(parents=True)
    return tmp_path / "media"


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A store with the demo's index and nothing else."""
    open_index(open_release("demo"), tmp_path / "store" / "index")
    return tmp_path / "store"


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_doctor_command(parser.add_subparsers())
    options = parser.parse_args(["doctor", *map(str, words)])
    return int(options.command(options))


# -- the command ------------------------------------------------------------------------------


def test_all_is_well_with_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], site: MediaSite
) -> None:
    store = tmp_path / "new" / "store"
    words = ("--data-dir", "demo", "--store", store, "--source", site.url_template)
    assert command(*words) == 0
    said = capsys.readouterr().out
    for start in ("ok       python       Python 3.", "ok       network      127.0.0.1 answers"):
        assert start in said
    assert said.splitlines()[-1].startswith("0 errors, ")
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def test_remedy_stands_below_and_an_error_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--source", tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("error"))
    assert lines[place] == f"error    source    {tmp_path} has folders of 0 speakers"
    assert lines[place + 1].startswith(f"{'':19}-> Media must be named <speaker>/<video>.<ext>")
    assert lines[-1] == "1 error, 0 warnings"


def test_json(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--source", media, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["errors"]) == (True, 0)
    assert {one["what"] for one in said["findings"]} >= {"python", "packages", "ffmpeg", "source"}
    assert said["findings"][0].keys() == {"level", "what", "says", "remedy"}


# -- this machine -----------------------------------------------------------------------------


def test_python(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PYTHON", (4, 0))
    (found,) = look("python", source=str(media))
    assert (found.level, found.remedy) == ("error", "Install 4.0 or later.")


def test_packages(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=999", "no-such-package-here>=1", "av>=1", 'no-extra; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: {"voxblink2": lines}[name])
    old, missing, good = look("packages", source=str(media))
    says = f"numpy {metadata.version('numpy')}, but >=999 is needed"
    remedy = "Run pip install -U 'numpy>=999'."
    assert old == Finding("warning", "packages", says, remedy)
    assert (missing.level, missing.says) == ("error", "no-such-package-here is missing")
    assert good == Finding("ok", "packages", f"av {metadata.version('av')}")


def test_age_of_yt_dlp() -> None:
    now = datetime.datetime(2026, 4, 1, tzinfo=datetime.UTC)
    assert checks._age_of_yt_dlp("2026.01.01", now).level == "ok"
    found = checks._age_of_yt_dlp("2025.12.31.232815.dev0", now)
    assert (found.level, found.says) == ("warning", "yt-dlp 2025.12.31.232815.dev0 is 91 days old")
    assert "pip install -U yt-dlp" in found.remedy
    assert "of an unknown day" in checks._age_of_yt_dlp("nightly", now).says


def test_ffmpeg_is_missing(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DependencyError("Audio cannot be decoded")

    monkeypatch.setattr(checks, "audio_decoder", fail)
    (found,) = look("ffmpeg", source=str(media))
    assert (found.level, found.says) == ("error", "Audio cannot be decoded")
    assert "apt install ffmpeg" in found.remedy


def test_javascript_is_for_youtube(monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    support = JavaScriptSupport("nothing", "No runtime.", "Install one.")
    monkeypatch.setattr(checks, "find_javascript", lambda: support)
    assert look("javascript", source=str(media)) == []
    with Server(204) as youtube:
        monkeypatch.setattr(base, "_YOUTUBE_PAGE", f"http://{youtube.place}/generate_204")
        found = look("javascript")
        assert youtube.seen == ["/generate_204"]
    assert found == [Finding("error", "javascript", "No runtime.", "Install one.")]


# -- release and store ------------------------------------------------------------------------


def test_release(media: Path, tmp_path: Path) -> None:
    assert look("release", source=str(media)) == []
    (found,) = look("release", source=str(media), data_dir="demo")
    assert found.level == "ok"
    (found,) = look("release", source=str(media), data_dir=str(tmp_path / "none"))
    assert found.level == "error"
    assert "none does not exist" in found.says
    (tmp_path / "vb2_meta.tar.gz").write_bytes(b"\x1f\x8b garbage")
    (found,) = look("release", source=str(media), data_dir=str(tmp_path))
    assert (found.level, found.remedy) == ("error", "Fetch the release again.")
    assert "is damaged or not a tar archive" in found.says


def test_no_store_no_disk(media: Path) -> None:
    assert look("disk", source=str(media)) == look("file system", source=str(media)) == []


def test_disk_with_and_without_an_index(
    media: Path, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: dict[str, Any] = {"source": str(media), "workers": 1}
    (unknown,) = look("disk", store=str(media / "new"), **named)
    assert "1,000 hours take about 77 GB" in unknown.says
    (known,) = look("disk", store=str(indexed), **named)
    assert (known.level, "the 0.05 hours to come need about 0.0 GB" in known.says) == ("ok", True)
    monkeypatch.setattr(checks, "_free_bytes", lambda _: 10e6)
    (unknown,) = look("disk", store=str(media / "new"), **named)
    (known,) = look("disk", store=str(indexed), **named)
    assert (unknown.level, known.level) == ("warning", "error")
    assert known.says.startswith(f"0.0 GB free for {indexed}; the 0.05 hours")
    assert "Free some space" in known.remedy


def test_disk_counts_what_is_selected(media: Path, indexed: Path) -> None:
    named: dict[str, Any] = {"source": str(media), "store": str(indexed)}
    (found,) = look("disk", selection=Selection(max_speakers=1), **named)
    assert "the 0.01 hours to come" in found.says
    (found,) = look("selection", selection=Selection(speakers=frozenset({"id123456"})), **named)
    assert (found.level, "are not in the release" in found.says) == ("error", True)


def test_disk_counts_what_is_not_there_yet(media: Path, undisturbed: Path) -> None:
    (found,) = look("disk", source=str(media), store=str(undisturbed))
    assert "the 0.01 hours to come" in found.says  # two of eighteen videos did not come


def test_sizes_of_other_options(media: Path) -> None:
    def said(**named: Any) -> str:
        (found,) = look("disk", source=str(media), store=str(media / "new"), **named)
        return str(found.says)

    assert "take about 115 GB" in said(clips={"audio_format": "wav"})
    assert "take about 15 GB" in said(clips={"audio_format": "opus"})
    assert "take about 137 GB" in said(config="audio-visual")
    assert "take about 317 GB" in said(config="audio-visual", clips={"video_size": 224})


def test_file_system(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: dict[str, Any] = {"source": str(media), "store": str(media / "a" / "b")}
    (found,) = look("file system", **named)
    assert found.level == "ok"
    assert found.says == (
        f"{media}: writing, flushing and renaming, locking, SQLite in WAL mode, hard links work"
    )

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    found, rest = look("file system", **named)
    assert found.level == "warning"
    assert "cannot do hard links: [Errno 1] Operation not permitted" in found.says
    assert "hard links" not in rest.says


def test_file_system_that_does_not_lock(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    found, _ = look("file system", source=str(media), store=str(media / "store"))
    assert found.level == "error"
    assert "cannot do locking: two at a time hold the same lock" in found.says


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_store(media: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    (found,) = look("file system", source=str(media), store=str(tmp_path / "store"))
    assert (found.level, "cannot be written to: Permission denied" in found.says) == ("error", True)


def test_store_is_a_file(media: Path, tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    (found,) = look("store", source=str(media), store=str(tmp_path / "store"))
    assert "is a file; it must be a folder" in found.says
    (found,) = look("file system", source=str(media), store=str(tmp_path / "store" / "deeper"))
    assert "cannot be written to: Not a directory" in found.says


def _can_mount() -> bool:
    words = [*NAMESPACE, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="mounting in a namespace is not allowed here")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=16m", "0.0 GB free for {0}/store; 1,000 hours take about 77 GB"),
        ("ro", "{0} cannot be written to: Read-only file system"),
    ],
)
def test_real_file_systems(options: str, said: str, media: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    code = (
        "import sys; from voxblink2_lib.doctor.checks import *;"
        "[print(one.level, one.says) for one in examine(config=MaterializeRequest("
        "source=sys.argv[1], store=sys.argv[2] + '/store'))]"
    )
    script = 'mount -t tmpfs -o "$0" tmpfs "$1"; shift; exec "$@"'
    words = [*NAMESPACE, "sh", "-c", script, options, str(small)]
    words += [sys.executable, "-W", "error", "-c", code, str(media), str(small)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert said.format(small) in done.stdout


# -- source -----------------------------------------------------------------------------------


def test_folder(media: Path, tmp_path: Path) -> None:
    assert look("source", source=str(media)) == [
        Finding("ok", "source", f"{media} has folders of 1 speakers")
    ]
    (found,) = look("source", source=str(tmp_path / "none"))
    assert (found.level, "no folder that is there" in found.says) == ("error", True)


@pytest.mark.parametrize(
    ("status", "level", "remedy"),
    [
        (200, "ok", ""),
        (404, "ok", ""),
        (429, "warning", "wait an hour"),
        (503, "warning", "try again later"),
        (407, "error", "wants a name and password"),
    ],
)
def test_status_of_the_source(status: int, level: str, remedy: str) -> None:
    with Server(status) as server:
        (found,) = look("network", source=server.template)
        assert server.seen == ["/"]
    assert (found.level, found.says) == (level, f"127.0.0.1 answers (HTTP {status})")
    assert remedy in found.remedy


def test_nobody_answers() -> None:
    with Server() as server:
        template = server.template
    (found,) = look("network", source=template)
    assert found.level == "error"
    assert "127.0.0.1 does not answer" in found.says
    assert "Connection refused" in found.says
    assert found.remedy == "Check the network, the source's address."


def test_a_login_page_instead_of_youtube(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_javascript", lambda: JavaScriptSupport("deno"))
    with Server(200) as server:
        monkeypatch.setattr(base, "_YOUTUBE_PAGE", f"http://{server.place}/generate_204")
        (found,) = look("network")
    assert (found.level, "such as a login page" in found.remedy) == ("warning", True)


def test_each_proxy_is_asked_and_no_password_told() -> None:
    with Server(204) as good, Server(407) as closed:
        with Server() as server:
            gone = server.place
        proxies = (
            f"http://me:s3cr3t@{good.place}",
            f"http://{closed.place}",
            f"http://me:s3cr3t@{gone}",
        )
        found = look("network", source="http://media.example.org/{video_id}", proxies=proxies)
        assert good.seen == closed.seen == ["http://media.example.org/"]
    assert [one.level for one in found] == ["ok", "error", "error"]
    answers, gone_says = "media.example.org answers through", "does not answer through"
    assert found[0].says == f"{answers} http://me:***@{good.place} (HTTP 204)"
    assert f"{gone_says} http://me:***@{gone}" in found[2].says
    assert "the proxy's address, name and password" in found[2].remedy
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize("proxy", ["ftp://me:s3cr3t@127.0.0.1:1", "http://me:s3cr3t@[bad"])
def test_proxy_that_is_none(proxy: str) -> None:
    (found,) = look("network", source="http://media.example.org/{video_id}", proxies=(proxy,))
    assert found.level == "error"
    assert "s3cr3t" not in str(found)


def test_words_about_proxies() -> None:
    assert shown_proxy("me:s3cr3t@proxy:1") == "http://me:***@proxy:1"
    assert shown_proxy("socks5://proxy:1") == "socks5://proxy:1"
    assert hide_secrets("no s3cr3t for http://a:b@c", "me:s3cr3t@proxy") == (
        "no *** for http://***@c"
    )


@pytest.mark.parametrize(
    ("ahead_seconds", "level", "said"),
    [
        (0, "ok", "as the source's, to the minute"),
        (-120, "warning", "s ahead of the source's"),
        (120, "warning", "s behind the source's"),
        (3600, "error", "s behind the source's"),
    ],
)
def test_clock(ahead_seconds: float, level: str, said: str) -> None:
    with Server(ahead_seconds=ahead_seconds) as server:
        (found,) = look("clock", source=server.template)
    assert (found.level, said in found.says) == (level, True)
    assert level == "ok" or "Set this machine's clock" in found.remedy


def test_cookies(tmp_path: Path, media: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\ts3cr3t\n")
    none = tmp_path / "none"
    with Server() as server:
        good, bad = look("cookies", source=server.template, cookies=(str(cookies), str(none)))
    assert good == Finding("ok", "cookies", f"{cookies}: 1 cookies for 127.0.0.1")
    assert (bad.level, bad.says) == ("error", f"{none}: cannot be read: No such file or directory")
    (found,) = look("cookies", source=str(media), cookies=(str(cookies),))
    assert (found.level, found.says) == ("warning", "a folder of media needs no cookies")
