"""Runs of `embed`: one file, in order, whatever stops them; and nothing is made twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from support import cli_process, shard_builder, tiny_models
from support.model_oracle import apart
from support.recorded_progress import RecordedProgress
from support.tiny_models import SAME, cache_in, calls_here, directly, voice, write, write_scp

from voxblink2_lib.cli import main
from voxblink2_lib.embedding.block_worker import BlockTask, EmbedOptions
from voxblink2_lib.embedding.model_identity import identify_model
from voxblink2_lib.embedding.run import Embedded, embed, rejects_of
from voxblink2_lib.errors import EmbeddingError, ModelError, ScoringError, StoppedError
from voxblink2_lib.files import sha256_of
from voxblink2_lib.records import SealedShard
from voxblink2_lib.scoring import read_embeddings
from voxblink2_lib.scoring.source_models import check_same_model
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.provenance import Provenance, copies_from, provenance_of
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.workers.pool import WorkerDiedError, WorkerPool

# Not in alphabetical order, and of different lengths.
VOICES = {"zoe": 1.0, "id990001/abcdefghijk/00001": 0.4, "b-10": 2.0, "b-9": 0.1, "a": 1.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_models.save_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of five voices, which is not to be changed."""
    folder = tmp_path_factory.mktemp("sounds")
    files = {
        name: write(folder / f"{place}.wav", voice(place, seconds))
        for place, (name, seconds) in enumerate(VOICES.items())
    }
    return write_scp(folder / "wav.scp", files)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[BlockTask]:
    """What was embedded, in this process."""
    return calls_here(monkeypatch)


def copy_with_front_end(model: str, folder: Path, **changes: str) -> str:
    """Copy a model and change settings of its front end."""
    shutil.copytree(model, folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    if changes.get("front_end") == "kaldi":
        settings |= {"normalization": None, "window_type": "hamming"}
    path.write_text(json.dumps(settings | changes))
    return str(folder)


def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr("voxblink2_lib.embedding.run.WorkerPool", started)


def stop_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Let the next run in this process be stopped when so many parts are made."""
    made: list[BlockTask] = []

    def watch(task: BlockTask) -> None:
        if len(made) == parts:
            raise KeyboardInterrupt
        made.append(task)

    calls_here(monkeypatch, watch)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- What comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_each_utterance_in_the_order_of_the_input(
    suffix: str, model: str, sounds: Path, tmp_path: Path, ran: list[BlockTask]
) -> None:
    out = tmp_path / f"out{suffix}"
    made = embed(sounds, out, EmbedOptions(model))
    assert made == Embedded(out, utterances=5, dimensions=12, rejected=0, rejects=None)
    embeddings = read_embeddings(out)
    assert embeddings.names == list(VOICES)
    expected = [
        directly(model, voice(place, length)) for place, length in enumerate(VOICES.values())
    ]
    assert apart(embeddings.vectors.copy(), np.stack(expected)) < SAME
    beside = {".parquet": [], ".safetensors": ["out.ids"]}[suffix]
    assert contents(tmp_path) == [*beside, out.name]


def test_both_formats_hold_the_same(
    model: str, sounds: Path, tmp_path: Path, ran: list[BlockTask]
) -> None:
    for suffix in ("parquet", "safetensors"):
        embed(sounds, tmp_path / f"out.{suffix}", EmbedOptions(model))
    parquet, tensors_file = (
        read_embeddings(tmp_path / f"out.{end}") for end in ("parquet", "safetensors")
    )
    assert parquet.names == tensors_file.names
    np.testing.assert_array_equal(parquet.vectors, tensors_file.vectors)
    tensors = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(tensors["embeddings"], parquet.vectors)
    assert pq.read_schema(tmp_path / "out.parquet").field("embedding").type == pa.list_(
        pa.float32(), 12
    )


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_a_file_says_which_corpus_it_is_of(
    suffix: str, model: str, sounds: Path, tmp_path: Path, ran: list[BlockTask]
) -> None:
    out = tmp_path / f"out.{suffix}"
    embed(sounds, out, EmbedOptions(model), corpus="VoxCeleb2")
    assert read_embeddings(out).corpus == "VoxCeleb2"
    assert read_embeddings(out, corpus="voxceleb-2").corpus == "voxceleb-2"
    with pytest.raises(ScoringError, match="says that it is of 'VoxCeleb2', not of 'VoxBlink1'"):
        read_embeddings(out, corpus="VoxBlink1")
    with pytest.raises(EmbeddingError, match="made from other audio, by another model or with"):
        embed(sounds, out, EmbedOptions(model), corpus="VoxBlink1")


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_a_file_says_which_model_it_is_of(
    suffix: str, model: str, sounds: Path, tmp_path: Path, ran: list[BlockTask]
) -> None:
    """The same network with the other front end is another model; a copy is the same."""
    other = copy_with_front_end(model, tmp_path / "kaldi", front_end="kaldi")
    copy = copy_with_front_end(model, tmp_path / "copy", transformers_version="0.0")
    outs = [tmp_path / f"{name}.{suffix}" for name in ("first", "other", "copy")]
    for folder, out in zip((model, other, copy), outs, strict=True):
        embed(sounds, out, EmbedOptions(folder))
    first, second, third = (read_embeddings(out) for out in outs)
    assert first.model is not None
    assert second.model is not None
    assert first.model.front_end == "SpeakerFeatureExtractor voxblink2 std"
    assert second.model.front_end == "SpeakerFeatureExtractor kaldi hamming"
    assert first.model == third.model
    assert first.model.model != second.model.model
    # Kaldi's frames are whole ones: a tenth of a second is too short for the deepest network.
    assert [name for name in first.names if name not in second.names] == ["b-9"]
    assert "b-9 has 1600 samples; a model needs at least 1680" in rejects_of(outs[1]).read_text()
    assert apart(second.vectors[:3].copy(), first.vectors[:3].copy()) > SAME
    check_same_model((first.model, "a"), (third.model, "c"))
    match = r"different models: a \(.*voxblink2 std\) and b \(.*kaldi hamming\)\. Their cosines"
    with pytest.raises(ScoringError, match=match):
        check_same_model((first.model, "a"), (second.model, "b"))


@pytest.mark.usefixtures("ran")
def test_embeddings_of_two_front_ends_are_never_in_one_file(
    model: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_with_front_end(model, tmp_path / "kaldi", front_end="kaldi")
    out = tmp_path / "out.parquet"
    embed(sounds, out, EmbedOptions(model))
    with pytest.raises(EmbeddingError, match="made from other audio, by another model or with"):
        embed(sounds, out, EmbedOptions(other))
    half = tmp_path / "half.parquet"
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        embed(sounds, half, EmbedOptions(model))
    with pytest.raises(EmbeddingError, match="an interrupted run on other audio, of another model"):
        embed(sounds, half, EmbedOptions(other))


def test_a_model_that_has_no_front_end_of_its_own_has_an_identity(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        identify_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert identify_model(tmp_path).front_end == "unknown"


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
@pytest.mark.usefixtures("ran")
def test_a_file_says_of_which_store_and_shards_it_is(
    model: str, sounds: Path, tmp_path: Path, suffix: str
) -> None:
    store, out = Store(tmp_path / "store"), tmp_path / f"out.{suffix}"
    with Ledger(store.ledger, "audio") as ledger:
        shards = [_sealed(store, number, [number]) for number in range(2)]
        for shard in shards:
            ledger.recovered.switch(shard, [], tail=None, closed=[])
        store_id = ledger.store_id
    embed(store.root, out, EmbedOptions(model))
    assert provenance_of(out) == Provenance.of(store_id, [shard.sha256 for shard in shards])
    assert copies_from(store_id, frozenset([shards[1].sha256])) == [str(out)]
    assert len(read_embeddings(out).names) == 2
    # Of what is not chosen, nothing is in it.
    some = tmp_path / f"some.{suffix}"
    embed(store.root, some, EmbedOptions(model), keep=lambda name: name.endswith("00001"))
    assert provenance_of(some) == Provenance.of(store_id, [shards[1].sha256])
    embed(sounds, tmp_path / f"list.{suffix}", EmbedOptions(model))
    assert provenance_of(tmp_path / f"list.{suffix}") is None


def test_names_with_spaces_come_back_from_both_formats(
    model: str, tmp_path: Path, ran: list[BlockTask]
) -> None:
    names = ["her first word", "her second word"]
    for place, name in enumerate(names):
        write(tmp_path / "sounds" / f"{name}.wav", voice(place, 0.5))
    for suffix in ("parquet", "safetensors"):
        embed(tmp_path / "sounds", tmp_path / f"out.{suffix}", EmbedOptions(model))
        assert read_embeddings(tmp_path / f"out.{suffix}").names == names


def test_many_blocks_become_row_groups_of_some_size(
    model: str, sounds: Path, tmp_path: Path, ran: list[BlockTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.embedding.run._ROWS_PER_GROUP", 2)
    embed(sounds, tmp_path / "out.parquet", EmbedOptions(model))
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups == 3
    assert read_embeddings(tmp_path / "out.parquet").names == list(VOICES)


def test_without_a_place_it_is_kept_in_the_cache(
    model: str, sounds: Path, tmp_path: Path, ran: list[BlockTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_in(monkeypatch, tmp_path)
    first = embed(sounds, None, EmbedOptions(model))
    assert first.out.parent.parent == tmp_path / "voxblink2" / "embeddings"
    assert (embed(sounds, None, EmbedOptions(model)), len(ran)) == (first, 5)
    selected = embed(sounds, None, EmbedOptions(model), keep=lambda name: name != "zoe")
    assert (selected.utterances, selected.out.parent) == (4, first.out.parent)
    assert selected.out != first.out


# -- Running again ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_a_finished_run_is_not_run_again(
    suffix: str, model: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embed(sounds, tmp_path / f"out{suffix}", EmbedOptions(model))
    before = {path: path.stat() for path in tmp_path.iterdir()}
    no_workers(monkeypatch)
    assert embed(sounds, tmp_path / f"out{suffix}", EmbedOptions(model)) == made
    assert {path: path.stat() for path in tmp_path.iterdir()} == before


def _other_model(folder: Path, model: str, sounds: Path) -> tuple[Path, EmbedOptions]:
    return sounds, EmbedOptions(tiny_models.save_small(folder / "other", seed=2))


def _other_audio(folder: Path, model: str, sounds: Path) -> tuple[Path, EmbedOptions]:
    lines = sounds.read_text().splitlines(keepends=True)
    (folder / "fewer.scp").write_text("".join(lines[1:]))
    return folder / "fewer.scp", EmbedOptions(model)


def _other_window(_: Path, model: str, sounds: Path) -> tuple[Path, EmbedOptions]:
    return sounds, EmbedOptions(model, window_seconds=1.0)


def _other_dtype(_: Path, model: str, sounds: Path) -> tuple[Path, EmbedOptions]:
    return sounds, EmbedOptions(model, dtype="bfloat16")


Other = Callable[[Path, str, Path], tuple[Path, EmbedOptions]]
others = pytest.mark.parametrize("other", [_other_model, _other_audio, _other_window, _other_dtype])


@others
@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_a_file_of_another_run_is_refused(
    suffix: str, other: Other, model: str, sounds: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    embed(sounds, out, EmbedOptions(model))
    before = out.read_bytes()
    with pytest.raises(EmbeddingError, match=r"out\.\w+ was made from other audio, by another mod"):
        embed(*_placed(other(tmp_path, model, sounds), out))
    assert out.read_bytes() == before


def _placed(request: tuple[Path, EmbedOptions], out: Path) -> tuple[Path, Path, EmbedOptions]:
    return request[0], out, request[1]


@others
def test_parts_of_another_run_are_refused(
    other: Other, model: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        embed(sounds, out, EmbedOptions(model))
    before = _parts(out)
    calls_here(monkeypatch)  # from here on nothing stops a run
    with pytest.raises(EmbeddingError, match=r"out.parquet.parts has the parts of an interrupted"):
        embed(*_placed(other(tmp_path, model, sounds), out))
    assert _parts(out) == before
    assert len(before) == 2


def _parts(out: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a part was made again."""
    parts = {}
    for path in out.with_name(f"{out.name}.parts").glob("*.parquet"):
        about = path.stat()
        parts[path.name] = (about.st_ino, about.st_mtime_ns)
    return parts


# -- Stopped ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", range(5))
def test_a_stopped_run_goes_on_where_it_was(
    moment: int, model: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    stop_after(monkeypatch, moment)
    with pytest.raises(KeyboardInterrupt):
        embed(sounds, out, EmbedOptions(model))
    assert len(_parts(out)) == moment
    # A run that had nothing yet leaves nothing.
    assert contents(tmp_path) == (["out.parquet.parts"] if moment else [])
    ran = calls_here(monkeypatch)
    embed(sounds, out, EmbedOptions(model))
    assert len(ran) == 5 - moment
    embed(sounds, whole, EmbedOptions(model))
    assert out.read_bytes() == whole.read_bytes()
    assert contents(tmp_path) == ["out.parquet", "whole.parquet"]


def test_a_file_that_is_mended_between_runs_is_embedded_again_alone(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: write(tmp_path / f"{name}.wav", voice(1, 0.5)) for name in "abcd"}
    files["b"].write_text("404 Not Found")
    sounds, out = write_scp(tmp_path / "wav.scp", files), tmp_path / "out.parquet"
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        embed(sounds, out, EmbedOptions(model))
    write(files["b"], voice(2, 0.5))
    ran = calls_here(monkeypatch)
    assert embed(sounds, out, EmbedOptions(model)).utterances == 4
    assert [task.block.files[0][0] for task in ran] == ["b", "d"]
    write(files["c"], voice(3, 0.75))
    with pytest.raises(EmbeddingError, match=r"out\.parquet was made from other audio"):
        embed(sounds, out, EmbedOptions(model))


def test_of_a_store_that_changed_between_runs_the_new_shards_are_embedded(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last shard is superseded by a fuller one, under another name."""
    store, out = Store(tmp_path / "store"), tmp_path / "out.parquet"
    with Ledger(store.ledger, "audio") as ledger:
        for number in range(3):
            ledger.recovered.switch(_sealed(store, number, [number]), [], tail=None, closed=[])
        calls_here(monkeypatch)
        with monkeypatch.context() as patched:
            patched.setattr("voxblink2_lib.embedding.run._join", _stop)
            with pytest.raises(StoppedError, match="the test stops here"):
                embed(store.root, out, EmbedOptions(model))
        tail = ledger.recovered.tail(full=2)
        ledger.recovered.switch(_sealed(store, 3, [2, 3]), [], tail=tail, closed=[])
    (store.shards("audio") / shard_name("audio", 2)).unlink()
    ran = calls_here(monkeypatch)
    embed(store.root, out, EmbedOptions(model))
    assert {Path(task.block.path).name for task in ran} == {shard_name("audio", 3)}
    names = read_embeddings(out).names
    assert [name.split("/")[2] for name in names] == ["00000", "00001", "00002", "00003"]


def _stop(*_: object) -> None:
    raise StoppedError("the test stops here")


def _sealed(store: Store, number: int, utterances: list[int]) -> SealedShard:
    """Write a shard of voices."""
    target = store.shards("audio") / shard_name("audio", number)
    clips = [
        shard_builder.clip(
            utterance, data=write(store.root / "v.wav", voice(utterance, 0.5)).read_bytes()
        )
        for utterance in utterances
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    shard_builder.seal(target, clips)
    return SealedShard(number, target.name, sha256_of(target), len(clips), target.stat().st_size)


def test_progress_shows_utterances_hours_and_speed(
    model: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, progress = tmp_path / "out.parquet", RecordedProgress()
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        embed(sounds, out, EmbedOptions(model))
    calls_here(monkeypatch)
    embed(sounds, out, EmbedOptions(model), progress=progress)
    (task,) = progress.tasks
    assert (task.task, task.unit, task.total, task.done) == ("Embedding", "utterance", 5, 2)
    assert task.counts == [1, 1, 1]
    assert all(re.fullmatch(r"0\.00 h, \d+\.\d{4} h/s", note) for note in task.notes)


def test_progress_shows_rejected_utterances(
    model: str, tmp_path: Path, ran: list[BlockTask]
) -> None:
    good, missing = write(tmp_path / "a.wav", voice(1, 0.5)), tmp_path / "b.wav"
    sounds, progress = (
        write_scp(tmp_path / "wav.scp", {"a": good, "b": missing}),
        RecordedProgress(),
    )
    embed(sounds, tmp_path / "out.parquet", EmbedOptions(model), progress=progress)
    assert len(ran) == sum(progress.tasks[0].counts) == 2
    assert [note.partition("h/s")[2] for note in progress.tasks[0].notes] == ["", ", 1 rejected"]


def test_a_worker_that_dies_stops_the_run(
    model: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> Any:
        yield None, WorkerDiedError("the worker process died of SIGKILL")

    monkeypatch.setattr(WorkerPool, "run", dies)
    with pytest.raises(StoppedError, match=r"died of SIGKILL.* Nothing finished is lost; run the "
                       r"same command again\. .* use fewer --workers") as error:  # fmt: skip
        embed(sounds, tmp_path / "out.parquet", EmbedOptions(model))
    assert error.value.exit_code == 3


LONG = 10


@pytest.fixture(scope="module")
def long_list(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list that keeps a worker busy for some seconds: names of one long sound."""
    folder = tmp_path_factory.mktemp("long")
    file = write(folder / "long.wav", voice(3, 119), subtype="PCM_16")
    return write_scp(folder / "wav.scp", {f"u{place}": file for place in range(LONG)})


@pytest.fixture(scope="module")
def undisturbed_bytes(
    model: str, long_list: Path, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """What two workers make of it, undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "out.parquet"
    embed(long_list, out, EmbedOptions(model), workers=2)
    return out.read_bytes()


def _start(*words: object) -> subprocess.Popen[str]:
    """Start the program as a shell does, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "voxblink2_lib.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=cli_process.environment(),
        start_new_session=True,
    )


def test_killed_and_interrupted_runs_end_in_the_file_of_an_undisturbed_one(
    model: str,
    long_list: Path,
    undisturbed_bytes: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And that with one worker, where the undisturbed run had two."""
    out = tmp_path / "out.parquet"
    words = ("embed", "--model", model, "--wav-scp", long_list, "--out", out, "--workers", 1)
    made: dict[str, tuple[int, int]] = {}
    for how in (signal.SIGKILL, signal.SIGINT):
        goal = len(_parts(out)) + 1
        process = _start(*words)
        assert cli_process.wait_for(lambda goal=goal: len(_parts(out)) >= goal, process)  # type: ignore[misc]
        # It stands still, so that it does not get to its end while we look.
        os.killpg(process.pid, signal.SIGSTOP)
        with pytest.raises(EmbeddingError, match=r"Another process is making .*out\.parquet"):
            embed(long_list, out, EmbedOptions(model, device="cpu"))
        os.killpg(process.pid, how)
        os.killpg(process.pid, signal.SIGCONT)
        _, err = process.communicate(timeout=cli_process.DEADLINE_SECONDS)
        assert process.returncode == (3 if how == signal.SIGINT else -9), err
        if how == signal.SIGINT:
            assert "Finished work is kept; run the same command to resume." in err
        now = _parts(out)
        assert now.items() >= made.items(), "a finished part was made again"
        made = now
    assert 2 <= len(made) < LONG
    calls_here(monkeypatch)
    assert cli_process.run_inline_json(*words, "--device", "cpu") == {
        **{"out": str(out), "utterances": LONG, "dimensions": 12},
        **{"rejected": 0, "rejects": None},
        **{"duplicates": 0, "skipped": {}},
    }
    assert contents(tmp_path) == ["out.parquet"]
    assert out.read_bytes() == undisturbed_bytes


# -- What was rejected -----------------------------------------------------------------------------


def _rejects(path: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pyarrow.csv.read_csv(path).to_pylist()
    return rows


def test_rejects_are_told_beside_the_file_and_forgotten_with_it(
    model: str, tmp_path: Path, ran: list[BlockTask]
) -> None:
    out, late = tmp_path / "out.parquet", tmp_path / "late.wav"
    good = write(tmp_path / "good.wav", voice(1, 0.5))
    (tmp_path / "text.wav").write_text("words")
    sounds = write_scp(
        tmp_path / "wav.scp", {"x,1": late, "good": good, "y": tmp_path / "text.wav"}
    )
    made = embed(sounds, out, EmbedOptions(model))
    assert made == Embedded(out, 1, 12, 2, tmp_path / "out.parquet.rejects.csv")
    first, second = _rejects(tmp_path / "out.parquet.rejects.csv")
    assert first == {"name": "x,1", "reason": f"x,1: there is no file {late}."}
    assert second["name"] == "y"
    assert second["reason"].startswith("y cannot be decoded: ")
    assert read_embeddings(out).names == ["good"]
    assert embed(sounds, out, EmbedOptions(model)) == made
    # The file is removed and all audio is there: what was said before is no longer true.
    out.unlink()
    for path in (late, tmp_path / "text.wav"):
        shutil.copy(good, path)
    assert embed(sounds, out, EmbedOptions(model)) == Embedded(out, 3, 12, 0, None)
    assert not (tmp_path / "out.parquet.rejects.csv").exists()


def test_when_nothing_can_be_embedded_nothing_is_left_in_the_way(
    model: str, tmp_path: Path, ran: list[BlockTask]
) -> None:
    out = tmp_path / "out" / "out.safetensors"
    files = {name: tmp_path / f"{name}.wav" for name in ("one", "two")}
    sounds = write_scp(tmp_path / "wav.scp", files)
    with pytest.raises(EmbeddingError, match=r"Nothing could be embedded: 2 utterances were tried"
                       r"\. The first reason: one: there is no file .*one\.wav"):  # fmt: skip
        embed(sounds, out, EmbedOptions(model))
    assert contents(out.parent) == []
    for path in files.values():
        write(path, voice(1, 0.5))
    assert embed(sounds, out, EmbedOptions(model)).utterances == 2


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_utterances_of_one_name_are_all_rejected(
    suffix: str, model: str, tmp_path: Path, ran: list[BlockTask]
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for place, names in enumerate((["a", "twice"], ["twice", "b"])):
        sounds = [write(tmp_path / "x.wav", voice(place, 0.5)).read_bytes() for _ in names]
        pq.write_table(pa.table({"name": names, "audio": sounds}), folder / f"{place}.parquet")
    out = tmp_path / f"out{suffix}"
    made = embed(folder, out, EmbedOptions(model))
    assert (made.utterances, made.rejected) == (2, 2)
    reason = {"name": "twice", "reason": "another utterance has the same name"}
    assert _rejects(tmp_path / f"out{suffix}.rejects.csv") == [reason, reason]
    assert read_embeddings(out).names == ["a", "b"]


# -- Wrong use -------------------------------------------------------------------------------------


def _parquet_of_others(out: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), out)


def _text(out: Path) -> None:
    out.write_text("words")


def _tensors_of_others(out: Path) -> None:
    safetensors.numpy.save_file({"embeddings": np.eye(2, dtype=np.float32)}, out)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.parquet", _parquet_of_others),
        ("x.parquet", _text),
        ("x.parquet", Path.mkdir),
        ("x.safetensors", _tensors_of_others),
        ("x.safetensors", _text),
    ],
)
def test_what_others_made_is_not_overwritten(
    name: str, make: Callable[[Path], None], model: str, sounds: Path, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(EmbeddingError, match=r"exists and was not made by the command embed"):
        embed(sounds, tmp_path / name, EmbedOptions(model))


def test_a_model_that_cannot_be_loaded_leaves_nothing(
    sounds: Path, tmp_path: Path, ran: list[BlockTask]
) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        embed(sounds, tmp_path / "out.parquet", EmbedOptions(str(tmp_path / "model")))
    assert contents(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--out x.npy", "x.npy must end in .parquet or .safetensors."),
        ("--workers 0", "There must be at least 1 worker, got 0."),
        ("--window 0.05", "A window must have at least 0.1 s, got 0.05."),
        ("--audio nowhere", "There is no file or folder {here}/nowhere."),
    ],
)
def test_the_command_refuses_bad_options(
    changed: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    no_workers(monkeypatch)
    words = ["embed", "--model", "any", "--audio", "any", "--out", "out.parquet"]
    assert main([*words, *changed.split(), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"voxblink2: {message.format(here=tmp_path)}\n")
    assert contents(tmp_path) == []


def test_the_command_says_what_it_made(
    model: str, tmp_path: Path, ran: list[BlockTask], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "sounds" / "good.wav", voice(1, 2.5))
    write(tmp_path / "sounds" / "silent.wav", np.zeros(9000))
    out = tmp_path / "out.parquet"
    words = ["embed", "--model", model, "--audio", str(tmp_path / "sounds"), "--out", str(out)]
    words += ["--window", "1", "--dtype", "bfloat16", "--device", "cpu"]
    assert main(words) == 0
    rejects = tmp_path / "out.parquet.rejects.csv"
    assert capsys.readouterr().out.splitlines() == [
        f"Embeddings {out}: 1 of 12 dimensions",
        f"Rejected   1 utterance; reasons in {rejects}",
    ]
    assert {task.options for task in ran} == {EmbedOptions(model, 1.0, "bfloat16", "cpu")}
    assert main([*words, "--json"]) == 0
    expected = asdict(Embedded(out, 1, 12, 1, rejects))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(expected, default=str))
