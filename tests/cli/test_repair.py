"""The command ``repair``: what it prints, and how it ends."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from support import cli_process, shard_builder
from support.plain_corpus import make_corpus, video_ids

VIDEOS = 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with its media, and a store of them; not to be changed."""
    folder = make_corpus(tmp_path_factory.mktemp("corpus"), video_ids(VIDEOS))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 2)
        cli_process.run_inline(
            *("materialize", "--data-dir", folder, "--source", folder / "media"),
            *("--store", folder / "store"),
        )
    return folder


@pytest.fixture
def store(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus / "store", tmp_path / "my store"))


def sealed(store: Path) -> dict[str, bytes]:
    """Every shard and its checksum."""
    files = cli_process.shards(store)
    return {name: data for name, data in files.items() if ".arrow" in name}


def hurt(store: Path) -> None:
    """Damage the first clip of the first shard."""
    path = store / "shards" / "audio" / "audio-00000.arrow"
    data = path.read_bytes()
    shard_builder.overwrite(path, data.index(b"fLaC") + 2000, b"damaged")


def test_a_whole_store(store: Path) -> None:
    done = cli_process.run_inline("repair", "--store", store)
    assert "Nothing is damaged" in done.stdout
    assert cli_process.run_inline_json("repair", "--store", store) == {
        "store": str(store),
        "dry_run": False,
        "mends": [],
        "hurt": [],
        "problems": [],
    }


def test_a_damaged_store(corpus: Path, store: Path) -> None:
    shards = sealed(store)
    hurt(store)
    cli_process.run_inline("verify", "--store", store, code=1)
    planned = cli_process.run_inline("repair", "--store", store, "--dry-run", code=1)
    assert "Would mend shards/audio/audio-00000.arrow" in planned.stdout
    done = cli_process.run_inline("repair", "--store", store)
    assert "Videos that are whole and kept: 2, to be cropped again: 1" in done.stdout
    assert "Cropped    again: 1 videos, id000000/video000000" in done.stdout
    assert sealed(store) == shards
    cli_process.run_inline("verify", "--store", store)


def test_the_next_step_runs_as_printed(store: Path) -> None:
    hurt(store)
    left = cli_process.run_inline("repair", "--store", store, "--no-fetch", code=3)
    assert "Left       to be cropped again: 1 videos, id000000/video000000" in left.stdout
    (command,) = re.findall(r"'(voxblink2 repair .*)'$", left.stdout, re.MULTILINE)
    cli_process.run_inline(*shlex.split(command)[1:])
    cli_process.run_inline("verify", "--store", store)


def test_a_source_that_is_gone(corpus: Path, store: Path, tmp_path: Path) -> None:
    """What was mended is said, and then what is in the way."""
    hurt(store)
    nowhere = ["--source", tmp_path / "nowhere"]
    result = cli_process.run_inline_json("repair", "--store", store, *nowhere, code=2)
    assert result["error"] == "SourceError"
    assert [video["status"] for video in result["hurt"]] == ["planned"]
    assert result["mends"]
    cli_process.run_inline("repair", "--store", store, "--source", corpus / "media")
    cli_process.run_inline("verify", "--store", store)


def test_a_video_that_is_gone(corpus: Path, store: Path, tmp_path: Path) -> None:
    hurt(store)
    media = Path(shutil.copytree(corpus / "media", tmp_path / "media"))
    (media / "id000000" / "video000000.wav").unlink()
    done = cli_process.run_inline("repair", "--store", store, "--source", media)
    assert "Lost       audio id000000/video000000: utterances 00001 (gone: " in done.stdout
    cli_process.run_inline("verify", "--store", store)


def test_the_ledger_from_its_copy(store: Path) -> None:
    shards = sealed(store)
    done = cli_process.run_inline("repair", "--store", store, "--from-backup")
    assert "Mended     ledger.sqlite: " in done.stdout
    assert sealed(store) == shards
    cli_process.run_inline("verify", "--store", store)


def test_no_store(tmp_path: Path) -> None:
    done = cli_process.run_inline("repair", "--store", tmp_path / "none", code=2)
    assert "There is no store at" in done.stderr
    cli_process.run_inline("repair", code=2)


def test_help() -> None:
    done = cli_process.run_inline("repair", "--help")
    assert "voxblink2 repair --store /data/voxblink2 --dry-run" in done.stdout
