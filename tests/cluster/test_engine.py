"""What is refused before a run on a cluster begins, on the command line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.cli_process import run_inline

URL = "file:///mnt/shared/store"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--engine", "ray"], 2, "must be at a URL that all nodes can write to"),
        (["--engine", "ray", "--store", "store"], 2, "got store."),
        (["--engine", "ray", "--store", "hf://datasets/me/store"], 2, "got hf://datasets/me/store"),
        (["--engine", "ray", "--store", "memory://store"], 2, "got memory://store"),
        (["--share-budget"], 2, "would change nothing without a cluster. Add --engine ray."),
        (["--address", "127.0.0.1:1"], 2, "would change nothing without a cluster"),
        (["--engine", "slurm"], 2, "invalid choice: 'slurm'"),
    ],
    ids=["no-store", "folder", "hub", "memory", "budget", "address", "engine"],
)
def test_options_that_cannot_be_are_refused(words: list[str], code: int, message: str) -> None:
    assert message in run_inline("materialize", "--data-dir", "demo", *words, code=code).stderr


def test_secrets_of_a_store_are_not_shown() -> None:
    words = ("--engine", "ray", "--store", "https://bob:pw@example.org/store")
    error = run_inline("materialize", *words, code=2).stderr
    assert "https://***@example.org/store" in error


def test_cut_audio_is_refused(tmp_path: Path) -> None:
    utterance = tmp_path / "cut" / "id000000" / "video000000" / "00001.wav"
    utterance.parent.mkdir(parents=True)
    utterance.write_bytes(b"RIFF")
    words = ("--source", tmp_path / "cut", "--engine", "ray", "--store", f"file://{tmp_path}/url")
    error = run_inline("materialize", *words, code=2).stderr
    assert "Cut audio is read by one process" in error
    assert not (tmp_path / "url").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own imports
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nonsense"])
def test_a_cluster_that_is_not_there_is_refused_at_once(
    address: str, corpus: Path, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        place = address.format(port=unused.getsockname()[1])
        words = ("--data-dir", corpus, "--source", corpus / "media", "--address", place)
        url = f"file://{tmp_path}/url"
        error = run_inline("materialize", *words, "--engine", "ray", "--store", url, code=3).stderr
    assert error.startswith(f"voxblink2: There is no Ray cluster at {place} (")
    assert "Nothing was changed. Start one with 'ray start --head'" in error
    assert not (tmp_path / "url").exists()
