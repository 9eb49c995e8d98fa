"""The command ``export``: what it prints, and how it ends."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from support import cli_process
from support.cli_process import run_inline, run_inline_json
from support.exported import clips_of, content, make_store

from voxblink2_lib.export.manifest import MANIFEST
from voxblink2_lib.export.names import FORMAT_NAMES, TEXTS
from voxblink2_lib.export.units import FOLDER


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of some videos, not to be changed; there is a space in its name."""
    return make_store(tmp_path_factory.mktemp("my exports"), shards=3)


def test_what_is_said(store: Path, tmp_path: Path) -> None:
    words = ("export", "wespeaker", "--store", store, "--to", tmp_path, "--workers", 1)
    done = run_inline(*words)
    assert (
        f"Export     14 utterances of 2 speakers, 0.00 h, as wespeaker to {tmp_path}\n"
        "To write   3 of 3 shards, about "
    ) in done.stderr
    assert "are free\n" in done.stderr
    assert done.stdout.startswith("Exported   14 utterances in 3 files, ")
    assert "Lists      shard.list, utt2spk, utt2dur, spk2utt\n" in done.stdout
    assert f"train_data: {tmp_path}/shard.list" in done.stdout
    again = run_inline(*words)
    assert "Nothing is left to do: all of it is there" in again.stderr
    (tmp_path / "shards" / "audio-00001.tar").unlink()
    assert "To write   1 of 3 shards" in run_inline(*words).stderr


def test_json(store: Path, tmp_path: Path) -> None:
    options = ("--segments", "--videos", "video000003", "--workers", 1)
    record = run_inline_json("export", "kaldi", "--store", store, "--to", tmp_path, *options)
    assert record.pop("size_bytes") > 38_000
    assert record.pop("made_by").startswith("voxblink2 ")
    assert len(record.pop("annotations")) == 64
    assert len(record.pop("store_id")) == 32
    assert record == {
        "target": str(tmp_path),
        "store": str(store),
        "config": "audio",
        "format": "kaldi",
        "options": {"segments": True},
        "selection": {"videos": ["video000003"]},
        "shards": 1,
        "outdated": [],
        "is_complete": True,
        "utterances": 1,
        "speakers": 1,
        "hours": 0.0003,
        "files": 1,
        "version": 1,
        "shards_written": 1,
        "shards_removed": 0,
    }


def test_what_is_known_of_speakers(store: Path, tmp_path: Path) -> None:
    words = ("csv", "--store", store, "--to", tmp_path, "--workers", 1)
    run_inline("export", *words, "--with-speaker-info")
    header = (tmp_path / "utterances.csv").read_text().splitlines()[0]
    assert "speaker_gender" in header
    done = run_inline("export", *words, code=2)
    assert 'an export with options {"with_speaker_info": true}, and none was' in done.stderr


def test_help_names_every_format() -> None:
    out = run_inline("export", "--help").stdout
    assert set(FORMAT_NAMES) == set(TEXTS)
    for name in FORMAT_NAMES:
        assert f"{name}: " in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mp3", "--to", "x"], "invalid choice: 'mp3' (choose from"),
        (["kaldi"], "the following arguments are required: --to"),
        (["kaldi", "--to", "x"], "Which store? Name its folder with --store"),
        (["kaldi", "--to", "", "--store", "STORE"], "is an empty text"),
        (["nemo", "--to", "x", "--segments", "--store", "STORE"], "segments are for the format"),
        (["nemo", "--to", "x", "--store", "none"], "There is no store at"),
        (["nemo", "--to", "x", "--store", "STORE", "--config", "audio-visual"], "it has audio"),
        (["nemo", "--to", "x", "--store", "STORE", "--speakers", "id777777"], "id777777"),
        (["nemo", "--to", "x", "--store", "STORE", "--workers", "0"], "at least 1 worker, got 0"),
    ],
)
def test_what_is_refused(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(store) if word == "STORE" else word for word in words]
    done = run_inline("export", *given, code=2)
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_store_of_both_configurations(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    (copy / "parts" / "audio-visual" / "00000").mkdir(parents=True)
    (copy / "parts" / "audio-visual" / "00000" / "x.arrow").touch()
    done = run_inline("export", "nemo", "--store", copy, "--to", tmp_path / "out", code=2)
    assert "has audio and audio-visual. Say which to export: --config audio" in done.stderr
    words = ("--store", copy, "--to", tmp_path / "out", "--config", "audio", "--workers", 1)
    run_inline("export", "nemo", *words)


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_run_that_is_stopped_goes_on(store: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Processes of their own: a worker that outlives its parent would write on."""
    out = tmp_path / "out"
    words = ("export", "lhotse", "--store", store, "--to", out, "--workers", 2)
    with cli_process.start(*words) as process:
        if cli_process.wait_for(lambda: [*out.glob(f"{FOLDER}/*.receipt")], process):
            _, err = cli_process.stop(process, how)
            if how == signal.SIGINT and process.returncode:
                assert process.returncode == 3
                assert "Finished work is kept; run the same command to resume" in err
    run_inline(*words[:-1], 1)
    stopped = content(out)
    shutil.rmtree(out)
    run_inline(*words[:-1], 1)
    assert content(out) == stopped
    assert MANIFEST in stopped
    assert len(clips_of(store)) == 14
