"""The checks of doctor, against real servers, folders and files."""

from __future__ import annotations

import argparse
import datetime
import email.utils
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.loopback_server import LoopbackHandler, LoopbackServer

from voxblink2_lib.cli.doctor import add_doctor_command
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.doctor import checks, machine_checks, store_checks
from voxblink2_lib.doctor.checks import run_checks
from voxblink2_lib.doctor.findings import Finding, Inputs
from voxblink2_lib.materialize.last_run import remember_run
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources import base
from voxblink2_lib.sources.javascript import JavaScriptSupport
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

NAMESPACE = ["unshare", "--mount", "--map-root-user"]


class Server(LoopbackServer):
    """Answers every request with one status, and with the clock of its choice."""

    def __init__(self, status: int = 404, *, ahead_seconds: float = 0.0) -> None:
        seen = self.seen = list[str]()

        class Handler(LoopbackHandler):
            def answer(self) -> None:
                seen.append(self.path)
                self.reply(status, b"", {})

            def date_time_string(self, timestamp: float | None = None) -> str:
                now = time.time() if timestamp is None else timestamp
                return email.utils.formatdate(now + ahead_seconds, usegmt=True)

        super().__init__(Handler)

    @property
    def template(self) -> str:
        return f"{self.url}/watch/{{video_id}}"


OK = Finding("ok", "nothing", "all is well")
OLD_STORE = Path(__file__).parents[1] / "store" / "made_by_0_1_0"


def look(
    topic: str, *, proxies: tuple[str, ...] = (), cookies: tuple[str, ...] = (), **named: Any
) -> list[Finding]:
    """Return the findings of one topic; check the form of all."""
    findings = run_checks(request=MaterializeRequest(**named), proxies=proxies, cookies=cookies)
    for finding in findings:
        assert finding.message
        assert (finding.level == "ok") == (not finding.remedy), finding
    return [finding for finding in findings if finding.topic == topic]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A source that needs no network."""
    (tmp_path / "media" / "id000001").mkdir(parents=True)
    (tmp_path / "media" / "id000001" / "video000001.wav").touch()
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


# -- The table -------------------------------------------------------------------------------------


def test_checks_without_their_inputs_are_skipped() -> None:
    nothing = Inputs(MaterializeRequest(), None, None, None, None, (None,), ("cookies.txt",))
    ran = [check.name for check in checks._CHECKS if check.requires(nothing) is not None]
    assert ran == ["python", "packages", "ffmpeg"]
    for check in checks._CHECKS:
        assert check.name in ran or list(check.findings(nothing)) == []


# -- The command -----------------------------------------------------------------------------------


def test_all_is_well_with_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], site: MediaSite
) -> None:
    store = tmp_path / "new" / "store"
    words = ("--data-dir", "demo", "--store", store, "--source", site.url_template)
    assert command(*words) == 0
    output = capsys.readouterr().out
    assert "ok       python       Python 3." in output
    assert "ok       network      response from 127.0.0.1" in output
    assert output.splitlines()[-1].startswith("0 errors, ")
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def test_remedy_is_printed_below_and_an_error_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--source", tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("error"))
    message = f"The source {tmp_path} has no usable file <speaker>/<video>.<ext>. The folder is"
    assert lines[place].startswith(f"error    source    {message} empty.")
    assert lines[place + 1] == f"{'':19}-> See 'Folders' in docs/usage.md for how media are named."
    assert lines[-1] == "1 error, 0 warnings"


def test_json(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--source", media, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["ok"], record["errors"]) == (True, 0)
    topics = {finding["what"] for finding in record["findings"]}
    assert topics >= {"python", "packages", "ffmpeg", "source"}
    assert record["findings"][0].keys() == {"level", "what", "says", "remedy"}


# -- A store that remembers its last run -----------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "my store"


def remember(store: Path, config: str = "audio", **options: Any) -> None:
    """Write what a run over the demo's release remembers."""
    store.mkdir(exist_ok=True)
    request = MaterializeRequest.of(config=config, store=store, **{"data_dir": "demo", **options})
    with Ledger(store / "ledger.sqlite", config) as ledger:
        remember_run(request, Store(store), ledger, source=redacted_source(request.source or ""))


def found(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, dict[str, str]]:
    """Return the last finding of each topic."""
    command(*words, "--json")
    return {row["what"]: row for row in json.loads(capsys.readouterr().out)["findings"]}


def test_a_store_alone_is_checked_with_what_it_remembers(
    store: Path, tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    with Server() as server, Server() as proxy:
        remember(store, source=server.template, proxy=[proxy.url], cookies=[str(cookies)])
        findings = found(capsys, "--store", store)
        assert findings["release"]["level"] == "ok"
        assert findings["network"]["says"].startswith("response from 127.0.0.1")
        assert proxy.seen
        assert not server.seen
        assert str(cookies) in findings["cookies"]["says"]
        assert "last run" not in findings
        # What is given takes its place.
        assert "cookies" not in found(capsys, "--store", store, "--forget", "cookies")
        assert found(capsys, "--store", store, "--source", media)["source"]["level"] == "ok"
        proxy.seen.clear()
        with Server() as other:
            found(capsys, "--store", store, "--proxy", other.url)
            assert other.seen
        assert not proxy.seen


def test_the_selection_is_that_of_the_last_run(
    store: Path, media: Path, indexed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(indexed / "index", store / "index")
    remember(store, source=str(media), max_speakers=1)
    part = found(capsys, "--store", store)["disk"]["says"]
    whole = found(capsys, "--store", store, "--forget", "max-speakers")["disk"]["says"]
    assert part != whole
    assert re.search(r"the remaining [\d.]+ hours", part)
    # Whoever names the release says what of it is wanted.
    assert found(capsys, "--store", store, "--data-dir", "demo")["disk"]["says"] == whole


def test_the_configuration_is_that_of_the_last_run(
    store: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(store, "audio-visual", source=str(media))
    configs: list[str] = []

    def run(*, request: MaterializeRequest, **_: object) -> list[Finding]:
        configs.append(request.config)
        return [OK]

    monkeypatch.setattr(checks, "run_checks", run)
    for words in ([], ["--config", "audio"]):
        assert command("--store", store, *words) == 0
    assert configs == ["audio-visual", "audio"]


def test_a_secret_that_is_not_kept_is_an_error_of_the_check(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server() as server:
        secret = server.template.replace("://", "://me:hunter22@")
        remember(store, source=secret)
        finding = found(capsys, "--store", store)["last run"]
        assert finding["level"] == "error"
        assert "Give --source again in full, or set the environment variable" in finding["says"]
        assert not server.seen
        monkeypatch.setenv("VOXBLINK2_SOURCE", secret)
        assert "last run" not in found(capsys, "--store", store)
        assert server.seen


def test_what_was_moved_since_is_an_error_of_the_check(
    store: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remember(store, source=str(media))
    media.rename(media.with_name("elsewhere"))
    finding = found(capsys, "--store", store)["last run"]
    assert finding["says"].startswith(f"The folder of media {media} does not exist.")
    (store / "ledger.sqlite").write_bytes(b"x" * 4096)
    assert "is damaged" in found(capsys, "--store", store)["last run"]["says"]


# -- This machine ----------------------------------------------------------------------------------


def test_python(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "_PYTHON", (4, 0))
    (finding,) = look("python", source=str(media))
    assert (finding.level, finding.remedy) == ("error", "Install Python 4.0 or later.")


def test_packages(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=999", "no-such-package-here>=1", "av>=1", 'no-extra; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: {"voxblink2": lines}[name])
    old, missing, good = look("packages", source=str(media))
    says = f"numpy {metadata.version('numpy')}, but >=999 is required"
    remedy = "Run pip install -U 'numpy>=999'."
    assert old == Finding("warning", "packages", says, remedy)
    assert (missing.level, missing.message) == ("error", "no-such-package-here is missing")
    assert good == Finding("ok", "packages", f"av {metadata.version('av')}")


def test_age_of_yt_dlp() -> None:
    now = datetime.datetime(2026, 4, 1, tzinfo=datetime.UTC)
    assert machine_checks._judge_age("2026.01.01", now).level == "ok"
    finding = machine_checks._judge_age("2025.12.31.232815.dev0", now)
    assert finding.level == "warning"
    assert finding.message == "yt-dlp 2025.12.31.232815.dev0 is 91 days old"
    assert "pip install -U yt-dlp" in finding.remedy
    assert "release date unknown" in machine_checks._judge_age("nightly", now).message


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("raise ImportError('no libavutil.so.60')", "missing: no libavutil.so.60"),
        ("raise RuntimeError", "missing: RuntimeError"),
        ("import os; os.abort()", f"missing: loading it ended with -{signal.SIGABRT:d}"),
    ],
)
def test_ffmpeg_is_missing(
    module: str, problem: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchcodec.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        machine_checks, "torchcodec_problem", machine_checks.torchcodec_problem.__wrapped__
    )
    (finding,) = look("ffmpeg", source=str(media))
    assert finding.level == "error"
    assert finding.message.startswith("datasets cannot decode rows: torchcodec or the FFmpeg")
    assert finding.message.endswith(problem)
    assert "apt install ffmpeg" in finding.remedy


def test_javascript_is_for_youtube(monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    support = JavaScriptSupport("nothing", "No runtime.", "Install one.")
    monkeypatch.setattr(machine_checks, "find_javascript", lambda: support)
    assert look("javascript", source=str(media)) == []
    with Server(204) as youtube:
        monkeypatch.setattr(base, "_YOUTUBE_PROBE_URL", f"http://{youtube.host}/generate_204")
        findings = look("javascript")
        assert youtube.seen == ["/generate_204"]
    assert findings == [Finding("error", "javascript", "No runtime.", "Install one.")]


# -- Release and store -----------------------------------------------------------------------------


def test_release(media: Path, tmp_path: Path) -> None:
    assert look("release", source=str(media)) == []
    (finding,) = look("release", source=str(media), data_dir="demo")
    assert finding.level == "ok"
    (finding,) = look("release", source=str(media), data_dir=str(tmp_path / "none"))
    assert finding.level == "error"
    assert "none does not exist" in finding.message
    (tmp_path / "vb2_meta.tar.gz").write_bytes(b"\x1f\x8b garbage")
    (finding,) = look("release", source=str(media), data_dir=str(tmp_path))
    assert (finding.level, finding.remedy) == ("error", "Download the release again.")
    assert "is damaged or not a tar archive" in finding.message


def test_no_store_no_disk(media: Path) -> None:
    assert look("disk", source=str(media)) == look("file system", source=str(media)) == []


def test_disk_with_and_without_an_index(
    media: Path, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: dict[str, Any] = {"source": str(media), "workers": 1}
    (unknown,) = look("disk", store=str(media / "new"), **named)
    assert "1,000 hours need about 77 GB" in unknown.message
    (known,) = look("disk", store=str(indexed), **named)
    assert known.level == "ok"
    assert "the remaining 0.05 hours need about 0.0 GB" in known.message
    monkeypatch.setattr(store_checks, "_free_bytes", lambda _: 10e6)
    (unknown,) = look("disk", store=str(media / "new"), **named)
    (known,) = look("disk", store=str(indexed), **named)
    assert (unknown.level, known.level) == ("warning", "error")
    assert known.message.startswith(f"0.0 GB free for {indexed}; the remaining 0.05 hours")
    assert "Free some space" in known.remedy


def test_disk_counts_what_is_selected(media: Path, indexed: Path) -> None:
    named: dict[str, Any] = {"source": str(media), "store": str(indexed)}
    (finding,) = look("disk", selection=Selection(max_speakers=1), **named)
    assert "the remaining 0.01 hours" in finding.message
    (finding,) = look("selection", selection=Selection(speakers=frozenset({"id123456"})), **named)
    assert (finding.level, "are not in the release" in finding.message) == ("error", True)


def test_disk_counts_what_is_not_there_yet(media: Path, undisturbed: Path) -> None:
    (finding,) = look("disk", source=str(media), store=str(undisturbed))
    assert "the remaining 0.01 hours" in finding.message  # two of eighteen videos are unavailable


def test_clips_of_another_format(media: Path, undisturbed: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(OLD_STORE, old)
    (finding,) = look("clips", source=str(media), store=str(old))
    assert (finding.level, finding.message) == (
        "error",
        f"{old} holds clips of format 1; this version makes 2",
    )
    assert "name another store with --store" in finding.remedy
    assert look("clips", source=str(media), store=str(undisturbed)) == []
    (old / "ledger.sqlite").write_bytes(b"not a ledger" * 100)
    (finding,) = look("clips", source=str(media), store=str(old))
    assert "is damaged" in finding.message


def test_sizes_of_other_options(media: Path) -> None:
    def message(**named: Any) -> str:
        (finding,) = look("disk", source=str(media), store=str(media / "new"), **named)
        return str(finding.message)

    assert "need about 115 GB" in message(clips={"audio_format": "wav"})
    assert "need about 15 GB" in message(clips={"audio_format": "opus"})
    assert "need about 137 GB" in message(config="audio-visual")
    assert "need about 317 GB" in message(config="audio-visual", clips={"video_size": 224})


def test_file_system(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: dict[str, Any] = {"source": str(media), "store": str(media / "a" / "b")}
    (finding,) = look("file system", **named)
    assert finding.level == "ok"
    assert finding.message == (
        f"{media} supports writing, flushing and renaming, locking, SQLite in WAL mode, "
        "mapping files into memory, hard links, symbolic links, flushing folders, permissions, "
        "names that differ only in case"
    )

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    finding, rest = look("file system", **named)
    assert finding.level == "warning"
    assert "does not support hard links: [Errno 1] Operation not permitted" in finding.message
    assert "hard links" not in rest.message


class Lack(NamedTuple):
    """A function of Python that a file system answers with an error, and what doctor says of it."""

    function: str
    number: int
    name: str
    remedy: str
    level: str = "warning"


@pytest.mark.parametrize(
    "lack",
    [
        Lack("fcntl.flock", errno.ENOLCK, "locking: .*No locks", "A file .lease"),
        Lack("fcntl.lockf", errno.EOPNOTSUPP, "locking: ", "A file .lease"),
        Lack("os.symlink", errno.EPERM, "symbolic links: ", "reads shards where they lie"),
        Lack("os.chmod", errno.EPERM, "permissions: ", "mounted with"),
        Lack("voxblink2_lib.doctor.file_system.os.open", errno.EISDIR, "flushing folders", "power"),
        Lack("mmap.mmap", errno.ENODEV, "mapping files into", "on a local disk", level="error"),
    ],
)
def test_a_file_system_that_lacks_something(
    lack: Lack, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lack.function, refusal(lack))
    finding, rest = look("file system", source=str(media), store=str(media / "store"))
    assert finding.level == lack.level
    assert re.search(f"does not support {lack.name}", finding.message)
    assert lack.remedy in finding.remedy
    assert rest.level == "ok"
    assert lack.name.partition(":")[0] not in rest.message


def refusal(lack: Lack) -> Callable[..., Any]:
    whole = os.open

    def refuse(path: Any = None, flags: int = 0, *more: Any, **options: Any) -> Any:
        if lack.function.endswith("os.open") and (flags != os.O_RDONLY or more or options):
            return whole(path, flags, *more, **options)
        raise OSError(lack.number, os.strerror(lack.number))

    return refuse


def test_two_that_hold_one_lock(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    finding, _ = look("file system", source=str(media), store=str(media / "store"))
    assert finding.level == "warning"
    assert "does not support locking: two processes can hold the same lock" in finding.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_store(media: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    (finding,) = look("file system", source=str(media), store=str(tmp_path / "store"))
    assert finding.level == "error"
    assert "is not writable: Permission denied" in finding.message


def test_store_is_a_file(media: Path, tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    (finding,) = look("store", source=str(media), store=str(tmp_path / "store"))
    assert "is a file; it must be a folder" in finding.message
    (finding,) = look("file system", source=str(media), store=str(tmp_path / "store" / "deeper"))
    assert "is not writable: Not a directory" in finding.message


def _can_mount() -> bool:
    words = [*NAMESPACE, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="mounting in a namespace is not allowed here")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=16m", "0.0 GB free for {0}/store; 1,000 hours need about 77 GB"),
        ("ro", "{0} is not writable: Read-only file system"),
    ],
)
def test_real_file_systems(options: str, message: str, media: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    code = (
        "import sys; from voxblink2_lib.doctor.checks import *;"
        "request = MaterializeRequest(source=sys.argv[1], store=sys.argv[2] + '/store');"
        "[print(finding.level, finding.message) for finding in run_checks(request=request)]"
    )
    script = 'mount -t tmpfs -o "$0" tmpfs "$1"; shift; exec "$@"'
    words = [*NAMESPACE, "sh", "-c", script, options, str(small)]
    words += [sys.executable, "-W", "error", "-c", code, str(media), str(small)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert message.format(small) in done.stdout


# -- Source ----------------------------------------------------------------------------------------


def test_folder(media: Path, tmp_path: Path) -> None:
    assert look("source", source=str(media)) == [
        Finding("ok", "source", f"speaker folders in {media}: 1")
    ]
    (finding,) = look("source", source=str(media.parent))
    assert (finding.level, f"Use --source {media}" in finding.message) == ("error", True)
    (finding,) = look("source", source=str(media), config="audio-visual")
    assert (finding.level, "has no pictures" in finding.message) == ("error", True)
    (finding,) = look("source", source=str(tmp_path / "none"))
    assert (finding.level, "nor an existing folder" in finding.message) == ("error", True)


def test_folder_without_a_selected_video(media: Path, indexed: Path) -> None:
    named: dict[str, Any] = {"source": str(media), "store": str(indexed)}
    (finding,) = look("source", **named)
    assert finding.level == "error"
    assert "none of which is selected" in finding.message
    other = Selection(speakers=frozenset({"id000001"}))
    assert [finding.level for finding in look("source", selection=other, **named)] == ["ok"]


@pytest.mark.parametrize(
    ("status", "level", "remedy"),
    [
        (200, "ok", ""),
        (404, "ok", ""),
        (429, "warning", "wait an hour"),
        (503, "warning", "try again later"),
        (407, "error", "requires a user name and a password"),
    ],
)
def test_status_of_the_source(status: int, level: str, remedy: str) -> None:
    with Server(status) as server:
        (finding,) = look("network", source=server.template)
        assert server.seen == ["/"]
    assert (finding.level, finding.message) == (level, f"response from 127.0.0.1: HTTP {status}")
    assert remedy in finding.remedy


def test_nobody_answers() -> None:
    with Server() as server:
        template = server.template
    (finding,) = look("network", source=template)
    assert finding.level == "error"
    assert "no response from 127.0.0.1: " in finding.message
    assert "Connection refused" in finding.message
    assert finding.remedy == "Check the network and the URL of the source."


def test_a_login_page_instead_of_youtube(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "find_javascript", lambda: JavaScriptSupport("deno"))
    with Server(200) as server:
        monkeypatch.setattr(base, "_YOUTUBE_PROBE_URL", f"http://{server.host}/generate_204")
        (finding,) = look("network")
    assert (finding.level, "such as a login page" in finding.remedy) == ("warning", True)


def test_each_proxy_is_probed_and_no_password_is_reported() -> None:
    with Server(204) as good, Server(407) as closed:
        with Server() as server:
            gone = server.host
        proxies = (
            f"http://me:s3cr3t@{good.host}",
            f"http://{closed.host}",
            f"http://me:s3cr3t@{gone}",
        )
        findings = look("network", source="http://media.example.org/{video_id}", proxies=proxies)
        assert good.seen == closed.seen == ["http://media.example.org/"]
    assert [finding.level for finding in findings] == ["ok", "error", "error"]
    through = "media.example.org through http://***@"
    assert findings[0].message == f"response from {through}{good.host}: HTTP 204"
    assert f"no response from {through}{gone}: " in findings[2].message
    assert "the URL, user name and password of the proxy" in findings[2].remedy
    assert "s3cr3t" not in str(findings)


@pytest.mark.parametrize("proxy", ["ftp://me:s3cr3t@127.0.0.1:1", "http://me:s3cr3t@[bad"])
def test_proxy_that_is_none(proxy: str) -> None:
    (finding,) = look("network", source="http://media.example.org/{video_id}", proxies=(proxy,))
    assert finding.level == "error"
    assert "s3cr3t" not in str(finding)


@pytest.mark.parametrize(
    ("ahead_seconds", "level", "message"),
    [
        (0, "ok", "within a minute of the source's clock"),
        (-120, "warning", "s ahead of the source's clock"),
        (120, "warning", "s behind the source's clock"),
        (3600, "error", "s behind the source's clock"),
    ],
)
def test_clock(ahead_seconds: float, level: str, message: str) -> None:
    with Server(ahead_seconds=ahead_seconds) as server:
        (finding,) = look("clock", source=server.template)
    assert (finding.level, message in finding.message) == (level, True)
    assert level == "ok" or "Set this machine's clock" in finding.remedy


def test_cookies(tmp_path: Path, media: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\ts3cr3t\n")
    none = tmp_path / "none"
    with Server() as server:
        good, bad = look("cookies", source=server.template, cookies=(str(cookies), str(none)))
    assert good == Finding("ok", "cookies", f"{cookies}: cookies for 127.0.0.1: 1")
    assert bad.level == "error"
    assert bad.message == f"{none}: cannot be read: No such file or directory"
    (finding,) = look("cookies", source=str(media), cookies=(str(cookies),))
    assert (finding.level, finding.message) == ("warning", "a folder of media needs no cookies")
