"""Plugins of yt-dlp are listed before they run, and can be turned off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import plain_corpus
from support.cli_process import environment, run_inline, run_inline_json
from support.fault_site import FaultSite
from yt_dlp.globals import all_plugins_loaded, plugin_dirs

from voxblink2_lib.sources.plugins import find_plugins

# yt-dlp keeps connections for the life of a source, which ends with a test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

PLUGIN = """\
import os
from yt_dlp.extractor.common import InfoExtractor

open(os.environ["PLUGIN_MARK"], "w").close()

class StrangeIE(InfoExtractor):
    _VALID_URL = "strange:x"
"""
OPEN_SOURCE = """\
import json, sys
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.sources.plugins import find_plugins
from voxblink2_lib.sources.ytdlp import YtDlpSource

options = FetchOptions(no_plugins=sys.argv[1] == "off")
YtDlpSource("http://a.example/{video_id}", options=options)
print(json.dumps(find_plugins()))
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sys.path with a plugin, which this process does not load."""
    folder = tmp_path / "path" / "yt_dlp_plugins" / "extractor"
    folder.mkdir(parents=True)
    (folder / "strange.py").write_text(PLUGIN)
    (folder / "_hidden.py").write_text(PLUGIN)
    monkeypatch.setattr(plugin_dirs, "value", ["default"])
    monkeypatch.setattr(all_plugins_loaded, "value", True)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("PLUGIN_MARK", str(tmp_path / "mark"))
    return folder


def line(folder: Path) -> str:
    return f"extractor.strange ({folder})"


def test_they_are_found_without_running(plugins: Path, tmp_path: Path) -> None:
    assert find_plugins() == (line(plugins),)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(("state", "is_loaded"), [("on", True), ("off", False)])
def test_the_option_turns_them_off(
    state: str, is_loaded: bool, plugins: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_SOURCE, state],
        env=environment({"PYTHONPATH": str(tmp_path / "path")}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == ([line(plugins)] if is_loaded else [])
    assert (tmp_path / "mark").exists() == is_loaded


def test_the_environment_turns_them_off(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YTDLP_NO_PLUGINS", "1")
    assert find_plugins() == ()


def test_a_run_names_them_first(plugins: Path, tmp_path: Path) -> None:
    release = plain_corpus.make_release(tmp_path / "release", plain_corpus.video_ids(1))
    with FaultSite() as site:
        words = ("materialize", "--data-dir", release, "--source", site.template())
        first = run_inline(*words, "--store", tmp_path / "a")
        second = run_inline(*words, "--store", tmp_path / "b", "--no-plugins")
    assert first.stderr.splitlines()[0] == (
        f"yt-dlp plugins: {line(plugins)}. --no-plugins turns them off."
    )
    assert "plugins" not in second.stderr


def test_doctor_lists_them(plugins: Path) -> None:
    words = ("doctor", "--source", "http://127.0.0.1:1/{video_id}")
    findings = run_inline_json(*words, code=1)["findings"]
    (finding,) = [row for row in findings if row["what"] == "plugins"]
    assert line(plugins) in finding["says"]
    assert "--no-plugins" in finding["says"]
