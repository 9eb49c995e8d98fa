"""A store that version 0.1.0 made is opened and read as it is; its clips stay the only ones.

It holds two speakers of the built-in release, as Opus, and their faces in 48 x 48 pixels; two of
the five videos have no usable media. It was made with ``voxblink2 materialize --data-dir demo
--source media --speakers id990001 id990006 --audio-format opus``, and for the faces with
``--config audio-visual --video-size 48 --video-crf 45``; the folder's name was changed after.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import load_dataset

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.cli import main
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import VideoKey
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.training import Corpus

MADE = Path(__file__).parent / "made_by_0_1_0"
CLIPS = {"audio": 12, "audio-visual": 9}
VIDEOS = {"audio": {"done": 4, "gone": 1}, "audio-visual": {"done": 3, "gone": 2}}
configs = pytest.mark.parametrize("config", ["audio", "audio-visual"])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "store"))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return dict(json.loads(out))


@configs
def test_status_and_verify_read_it(
    store: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(capsys, "status", "--store", store, "--config", config, "--missing")
    assert status["videos"] == VIDEOS[config]
    assert status["utterances"] == CLIPS[config]
    assert {video["status"] for video in status["missing"]} == {"gone"}
    verification = run(capsys, "verify", "--store", store, "--config", config, "--sample", 3)
    assert verification["rows"] == verification["clips_decoded"] == CLIPS[config]
    assert not verification["problems"]


@configs
def test_a_dataset_is_its_shards(store: Path, config: str, tmp_path: Path) -> None:
    rows = load_dataset(
        "voxblink2", config, store=str(store), split="train", cache_dir=str(tmp_path / "cache")
    )
    tables = []
    for path in sorted((MADE / "shards" / config).glob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            tables.append(pa.ipc.open_stream(file).read_all())
    table = rows.data.table
    assert table.drop_columns(["transcript", "language"]).equals(pa.concat_tables(tables))
    # Its index has neither, and the columns are the same for every store.
    assert table["transcript"].null_count == table["language"].null_count == len(rows)


def test_training_reads_it(store: Path) -> None:
    corpus = Corpus.open(store)
    assert len(corpus) == CLIPS["audio"]


# -- Its clips have format 1, to which nothing is added --------------------------------------------

SPEAKERS = ("--speakers", "id990001", "id990006")


def materialize_words(store: Path, *more: str) -> list[str]:
    place = ["--data-dir", "demo", "--source", str(MEDIA), "--store", str(store)]
    return ["materialize", *place, "--workers", "1", *more]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that is refused for wrong use; return what it says."""
    assert main([*words]) == 2
    return capsys.readouterr().err


def content(store: Path) -> dict[str, Any]:
    """Every file of a store, and every row of its ledger.

    Left out is the index's note of when the release was last looked at.
    """
    files = {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and not path.name.startswith((".lock", "ledger.", "index.json"))
    }
    with closing(sqlite3.connect(store / "ledger.sqlite")) as ledger:
        return {**files, "ledger": list(ledger.iterdump())}


@configs
def test_verify_and_status_name_its_format(
    store: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("verify", "status"):
        record = run(capsys, command, "--store", store, "--config", config)
        assert (record["clip_format"], record["made_with"]) == (1, [])


def test_its_faces_have_the_columns_that_they_were_sealed_with(store: Path, tmp_path: Path) -> None:
    options = {"store": str(store), "split": "train", "cache_dir": str(tmp_path / "cache")}
    rows = load_dataset("voxblink2", "audio-visual", **options)
    assert "boxes_fit" in rows.features
    assert "boxes_evidence" not in rows.features
    streamed = load_dataset("voxblink2", "audio-visual", streaming=True, **options)
    assert streamed.features == rows.features
    assert len([*streamed.decode(False)]) == CLIPS["audio-visual"]


@configs
def test_a_load_that_asks_for_nothing_new_leaves_its_ledger_to_the_earlier_version(
    store: Path, config: str, tmp_path: Path
) -> None:
    before = content(store)["ledger"]
    rows = load_dataset(
        "voxblink2",
        config,
        data_dir="demo",
        source=str(MEDIA),
        store=str(store),
        speakers=["id990001", "id990006"],
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(rows) == CLIPS[config]
    assert content(store)["ledger"] == before


@configs
@pytest.mark.parametrize(
    ("more", "work"),
    [
        ((*SPEAKERS, "id990002"), r"videos that it does not have \(\d\)"),
        (SPEAKERS, r"videos that failed and would be tried again \(\d\)"),
    ],
    ids=["new", "again"],
)
@pytest.mark.usefixtures("inline_workers")
def test_a_run_that_would_add_clips_is_refused_and_its_advice_runs(
    store: Path,
    config: str,
    more: tuple[str, ...],
    work: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    staged = store / "media" / config / "id990002_demoSailor1" / "media"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"of an earlier run")
    before = content(store)
    message = refusal(capsys, *materialize_words(store, "--config", config, *more))
    assert re.search(r"holds clips of format 1, made by voxblink2 0\.1\. This version", message)
    assert re.search(work, message), message
    assert "CHANGELOG.md" in message
    assert content(store) == before
    # Every command that it prints runs.
    commands = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    again, install, look, load = commands
    assert install == 'pip install "voxblink2<0.2"'
    assert main(shlex.split(look)[1:]) == 0
    assert eval(load, {"load_dataset": load_dataset})["train"].num_rows == CLIPS[config]
    assert main([*shlex.split(again)[1:], "--workers", "1"]) == 0
    capsys.readouterr()
    fresh = run(capsys, "verify", "--store", f"{store}-format-2", "--config", config)
    assert fresh["clip_format"] == 2
    assert fresh["rows"] >= CLIPS[config]
    # As the old store began, whatever is the default now.
    (path, *_) = sorted(Path(f"{store}-format-2").glob("shards/*/*.arrow"))
    with pa.memory_map(str(path)) as file:
        rows = pa.ipc.open_stream(file).read_all()
    assert {clip["bytes"][:4] for clip in rows["audio"].to_pylist()} == {b"OggS"}
    assert ("boxes_evidence" in rows.column_names) == (config == "audio-visual")
    assert content(store) == before


def test_a_retry_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(store)
    words = ["retry", "--class", "gone", "--source", str(MEDIA), "--store", str(store)]
    message = refusal(capsys, *words)
    assert "would be tried again (1)" in message
    assert "-format-2 --audio-format opus\n  with the selection of the runs before" in message
    assert "materialize --config audio --data-dir RELEASE --source" in message
    assert content(store) == before
    # Without a video to retry there is nothing to refuse.
    run(capsys, "retry", "--class", "private", "--source", MEDIA, "--store", store)


def test_a_job_that_is_not_finished_is_refused(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(store / "ledger.sqlite")) as ledger:
        ledger.execute("update jobs set shard = null where config = 'audio' and job = 4")
        ledger.commit()
    before = content(store)
    message = refusal(capsys, *materialize_words(store, *SPEAKERS))
    assert "jobs that are not finished (1)" in message
    assert content(store) == before


def test_a_selection_that_no_command_holds_is_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = materialize_words(store, *SPEAKERS, "id990002", "--exclude=-demoSailor")
    message = refusal(capsys, *words)
    assert "--speakers id990001 id990002 id990006\n  with --exclude as in this run\n" in message


@pytest.mark.parametrize("leftover", ["done", "part"])
def test_any_clip_of_an_unknown_format_is_of_the_first(tmp_path: Path, leftover: str) -> None:
    store = Store(tmp_path)
    key = VideoKey("id000001", "a" * 11)
    with Ledger(store.ledger, "audio") as ledger:
        assert read_clip_format(store, ledger) == CLIP_FORMAT
        ledger.add_jobs([[key]])
        assert read_clip_format(store, ledger) == CLIP_FORMAT
        if leftover == "done":
            ledger.verdicts("youtube").record(Outcome(key, "done", clips=1))
        else:
            store.part("audio", 0, key).parent.mkdir(parents=True)
            store.part("audio", 0, key).write_bytes(b"")
        assert read_clip_format(store, ledger) == 1
    with Ledger(store.ledger, "audio-visual") as ledger:
        assert read_clip_format(store, ledger) == CLIP_FORMAT


def test_a_store_of_a_later_version_is_refused(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger(store / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("clip_format", "3")
    message = refusal(capsys, *materialize_words(store, *SPEAKERS))
    assert "format 3, which a later version made; this version makes format 2" in message
    assert "pip install -U voxblink2" in message


def test_an_option_that_is_newer_than_the_store_is_refused_and_in_the_command(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, *materialize_words(store, *SPEAKERS, "--audio-track", "1"))
    assert "left to do is: clips with audio_track=1, " in message
    assert " --audio-format opus --audio-track 1 --speakers " in message


def test_a_version_that_cannot_open_the_ledger_any_more_is_not_recommended(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = materialize_words(store, *SPEAKERS, "id990002")
    assert "pip install" in refusal(capsys, *words)
    with Ledger(store / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("audio_track", "")
    message = refusal(capsys, *words)
    assert "pip install" not in message
    assert "--audio-track" not in message


def test_secrets_that_an_earlier_version_stored_are_not_shown_and_then_gone(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "http://bob:hunter22@a.example/{video_id}?token=t0k3n-value"
    secrets = ("bob", "hunter22", "t0k3n-value")
    path = store / "ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("update facts set value = ? where name = 'audio.source'", (source,))
        database.execute("update videos set reason = ? where status = 'gone'", (f"no {source}",))
        database.execute("update attempts set reason = ?", (f"no {source}",))
    status = run(capsys, "status", "--store", store, "--config", "audio", "--missing")
    assert status["missing"][0]["reason"] == "no http://***@a.example/{video_id}?token=***"
    report = store / "report.html"
    run(capsys, "report", "--store", store, "--out", report)
    shown = f"{status}{report.read_text()}{report.with_name('missing.csv').read_text()}"
    assert not [secret for secret in secrets if secret in shown]
    with Ledger(path, "audio") as ledger:
        assert ledger.verdicts(redacted_source(source)).missing(["gone"])
        ledger.set_setting("x", "y")  # what writes first changes the format
        assert ledger.setting("source") == redacted_source(source)
        assert ledger.verdicts(redacted_source(source)).missing(["gone"])
    files = [file.read_bytes() for file in store.glob("ledger.sqlite*")]
    assert not [secret for secret in secrets if secret.encode() in b"".join(files)]
