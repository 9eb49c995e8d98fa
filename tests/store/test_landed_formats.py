"""A small store of each format that landed: read as it is, and grown or refused in true words.

Each was made by the code of the commit in its name, with ``make_old_store.sh``; it holds one video
of tests/support/old_corpus.py that is done, and one that is gone. README.md lists them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from support import cli_process, old_corpus
from support.old_corpus import DONE, GONE, NEW, SPEAKER

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.training import Corpus

MADE = Path(__file__).parent
AUDIO = ("--config", "audio")
# Format of the ledger, and of the clips.
FORMATS = {
    "2c13bbb": (1, 1),
    "c9d0ca1": (1, 1),
    "25b93c4": (1, 1),
    "ab6057d": (3, 2),
    "4a1b2fd": (4, 2),
}
WITH_OLD_INDEX = {"2c13bbb", "c9d0ca1"}
# Nothing can be added to the clips of these.
OLD_CLIPS = [name for name, (_, clips) in FORMATS.items() if clips == 1]
PRESENT_CLIPS = [name for name, (_, clips) in FORMATS.items() if clips == 2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_corpus.make(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def store(commit: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE / f"made_by_{commit}", tmp_path / "store"))


def ledger_format(store: Path) -> int:
    with closing(sqlite3.connect(store / "ledger.sqlite")) as ledger:
        return int(ledger.execute("select value from facts where name = 'format'").fetchone()[0])


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store; what SQLite and locks leave beside them is no content."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
    }


def materialize_words(store: Path, corpus: Path, *videos: str) -> list[str]:
    places = ["--data-dir", str(corpus), "--source", str(corpus / "media"), "--store", str(store)]
    return ["materialize", *places, "--videos", *videos, "--workers", "1"]


def load(store: Path, tmp_path: Path, **more: Any) -> Any:
    return load_dataset(
        "voxblink2",
        "audio",
        store=str(store),
        split="train",
        cache_dir=str(tmp_path / "cache"),
        **more,
    )


@pytest.mark.parametrize("commit", FORMATS)
def test_reading_leaves_every_byte_as_it_was(store: Path, commit: str, tmp_path: Path) -> None:
    before = content(store)
    assert ledger_format(store) == FORMATS[commit][0]
    status = cli_process.run_inline_json("status", *AUDIO, "--store", store, "--missing")
    assert (status["utterances"], status["clip_format"]) == (1, FORMATS[commit][1])
    assert [video["video_id"] for video in status["missing"]] == [GONE]
    assert "no file" in status["missing"][0]["reason"]
    report = ("report", *AUDIO, "--store", store, "--out", tmp_path / "report.html")
    assert cli_process.run_inline_json(*report)["missing"] == 1
    rows = load(store, tmp_path)
    assert rows["video_id"][:] == [DONE]
    assert content(store) == before


@pytest.mark.parametrize("commit", FORMATS)
def test_training_adds_no_more_than_a_catalogue(store: Path, tmp_path: Path) -> None:
    before = content(store)
    corpus = Corpus.open(store)
    assert corpus.names() == [f"{SPEAKER}/{DONE}/00001"]
    after = content(store)
    assert {name: after[name] for name in before} == before
    made = {"catalogue/audio.arrow", "catalogue/audio.arrow.sha256"}
    assert set(after) - set(before) <= made


@pytest.mark.parametrize("commit", FORMATS)
def test_verify(store: Path, commit: str, corpus: Path) -> None:
    before = content(store)
    if commit in WITH_OLD_INDEX:
        (problem,) = cli_process.run_inline_json("verify", "--store", store, code=1)["problems"]
        assert "it has format 1, not 2. Delete that folder to have it made again" in problem
        # Or without deleting anything.
        cli_process.run_inline("index", "--store", store, "--data-dir", corpus)
        shutil.rmtree(store / "index")
        cli_process.run_inline("index", "--store", store, "--data-dir", corpus)
    verification = cli_process.run_inline_json("verify", *AUDIO, "--store", store)
    assert (verification["rows"], verification["clips_decoded"]) == (1, 1)
    assert verification["problems"] == []
    after = content(store)
    changed = {name for name in before if after.get(name) != before[name]}
    assert all(name.startswith("index/") and commit in WITH_OLD_INDEX for name in changed)


@pytest.mark.parametrize("commit", FORMATS)
def test_a_load_that_adds_nothing(store: Path, commit: str, corpus: Path, tmp_path: Path) -> None:
    before = content(store)
    selection = {"data_dir": str(corpus), "source": str(corpus / "media"), "videos": [DONE, GONE]}
    rows = load(store, tmp_path, **selection)
    assert rows["video_id"][:] == [DONE]
    if commit in OLD_CLIPS:
        assert content(store)["ledger.sqlite"] == before["ledger.sqlite"]


@pytest.mark.parametrize("commit", OLD_CLIPS)
@pytest.mark.parametrize("videos", [(DONE, GONE), (DONE, GONE, NEW)], ids=["again", "new"])
def test_clips_of_the_first_format_get_no_others_and_the_advice_runs(
    store: Path, commit: str, videos: tuple[str, ...], corpus: Path, tmp_path: Path
) -> None:
    before = content(store)
    run = cli_process.run_inline(*materialize_words(store, corpus, *videos), code=2)
    assert "holds clips of format 1" in run.stderr
    after = content(store)
    changed = {name for name in before if after.get(name) != before[name]}
    assert not {name for name in changed if not name.startswith("index/")}
    commands = [line.strip() for line in run.stderr.splitlines() if line.startswith("  ")]
    again, look, load_line = commands
    cli_process.run_inline(*shlex.split(look)[1:])
    assert eval(load_line, {"load_dataset": load_dataset})["train"].num_rows == 1
    cli_process.run_inline(*shlex.split(again)[1:], "--workers", "1")
    fresh = cli_process.run_inline_json("verify", *AUDIO, "--store", f"{store}-format-2")
    assert (fresh["rows"], fresh["problems"]) == (len(videos) - 1, [])


@pytest.mark.parametrize("commit", PRESENT_CLIPS)
def test_a_store_with_clips_of_this_format_grows(store: Path, corpus: Path, tmp_path: Path) -> None:
    run = cli_process.run_inline_json(*materialize_words(store, corpus, DONE, GONE))
    assert run["videos"] == {"done": 1, "gone": 1}
    run = cli_process.run_inline_json(*materialize_words(store, corpus, DONE, GONE, NEW))
    assert run["videos"] == {"done": 2, "gone": 1}
    assert ledger_format(store) == 4
    verification = cli_process.run_inline_json("verify", *AUDIO, "--store", store)
    assert (verification["rows"], verification["problems"]) == (2, [])
    assert load(store, tmp_path)["video_id"][:] == [DONE, NEW]


@pytest.mark.parametrize("commit", ["4a1b2fd"])
def test_a_shard_whose_number_has_more_than_five_digits(store: Path, tmp_path: Path) -> None:
    """Written as earlier versions did, and as this one does."""
    for name in ("audio-100000.arrow", "audio-a100001.arrow"):
        folder = store / "shards" / "audio"
        (old,) = folder.glob("*.arrow")
        old.rename(folder / name)
        line = old.with_name(f"{old.name}.sha256")
        (folder / f"{name}.sha256").write_text(line.read_text().replace(old.name, name))
        line.unlink()
        with closing(sqlite3.connect(store / "ledger.sqlite")) as ledger, ledger:
            number = int(re.findall(r"\d+", name)[0])
            ledger.execute("update jobs set shard = ?, job = ? where shard <> ''", (name, number))
            ledger.execute("update videos set job = ? where status = 'done'", (number,))
        assert cli_process.run_inline_json("verify", *AUDIO, "--store", store)["problems"] == []
        assert load(store, tmp_path / name)["speaker_id"][:] == [SPEAKER]
        assert len(Corpus.open(store)) == 1
