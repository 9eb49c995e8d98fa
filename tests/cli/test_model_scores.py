"""`score` with a model: from audio to an equal error rate, embedding only what is asked for."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from support import cli_process, tiny_models
from support.model_oracle import small_wespeaker_folder
from support.tiny_models import cache_in, calls_here, directly, write_scp
from support.tiny_onnx import SPEAKER_3D, WESPEAKER, write_onnx

from voxblink2_lib.cli import main
from voxblink2_lib.embedding.block_worker import BlockTask
from voxblink2_lib.embedding.onnx_network import features_of
from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.models.onnx_description import OnnxDescription
from voxblink2_lib.scoring import read_embeddings

# The command would look for an accelerator, where numbers are a little different.
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_models.save_separating(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clips(undisturbed: Path) -> dict[str, bytes]:
    """The demo's utterances: `speaker/video/utterance`, with their sound."""
    names = (f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}"
             for row in cli_process.rows(undisturbed))  # fmt: skip
    sounds = (row["audio"]["bytes"] for row in cli_process.rows(undisturbed))
    return dict(zip(names, sounds, strict=True))


@pytest.fixture(scope="module")
def vectors(model: str, clips: dict[str, bytes]) -> dict[str, Any]:
    """Their embeddings, by the model alone."""
    return {
        name: directly(model, soundfile.read(io.BytesIO(sound), dtype="float32")[0])
        for name, sound in clips.items()
    }


@pytest.fixture(scope="module")
def wav_scp(clips: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of the same sounds, spelled the other way."""
    folder = tmp_path_factory.mktemp("clips")
    files = {f"{name.replace('/', '-')}.wav": folder / f"{place}.flac"
             for place, name in enumerate(clips)}  # fmt: skip
    for path, sound in zip(files.values(), clips.values(), strict=True):
        path.write_bytes(sound)
    return write_scp(folder / "wav.scp", files)


class Demo(NamedTuple):
    """A model, a list of the demo's sounds, and what the model alone makes of them."""

    model: str
    wav_scp: Path
    vectors: dict[str, Any]


@pytest.fixture(scope="module")
def demo(model: str, wav_scp: Path, vectors: dict[str, Any]) -> Demo:
    return Demo(model, wav_scp, vectors)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[BlockTask]:
    """What was embedded, in this process; the cache is another for each test."""
    cache_in(monkeypatch, tmp_path / "assets")
    return calls_here(monkeypatch)


def speaker(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


def write_trials(path: Path, names: Sequence[str]) -> Path:
    """Write all pairs."""
    pairs = itertools.combinations(names, 2)
    lines = (f"{int(speaker(first) == speaker(other))} {first} {other}\n" for first, other in pairs)
    path.write_text("".join(lines))
    return path


def eer_by_hand(vectors: dict[str, Any]) -> float:
    """Return the rate where misses and false alarms are equal, over all pairs."""
    targets: list[float] = []
    others: list[float] = []
    for (first, a), (other, b) in itertools.combinations(vectors.items(), 2):
        score = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        (targets if speaker(first) == speaker(other) else others).append(score)
    thresholds = np.sort([*targets, *others])
    misses = np.array([np.mean(np.array(targets) < first) for first in thresholds])
    alarms = np.array([np.mean(np.array(others) >= first) for first in thresholds])
    nearest = int(np.argmin(np.abs(misses - alarms)))
    return float(misses[nearest] + alarms[nearest]) / 2


def sv(model: str, audio: Path, trials: Path, *words: object) -> list[str]:
    given = ["--model", model, "--wav-scp", audio, "--trials", trials, "--workers", 1, *CPU]
    return list(map(str, ["score", "sv", *given, *words]))


def answered(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Run a command in this process and return what it prints."""
    capsys.readouterr()
    assert main(words) == 0
    out, err = capsys.readouterr()
    return out, err


# -- Verification ----------------------------------------------------------------------------------


def test_from_audio_to_an_equal_error_rate(
    model: str, wav_scp: Path, vectors: dict[str, Any], tmp_path: Path
) -> None:
    """The whole program twice; the second time it embeds nothing again."""
    trials = write_trials(tmp_path / "trials", list(vectors))
    words = [*sv(model, wav_scp, trials), "--json"]
    home = tmp_path / "hf"
    done = cli_process.run(*words, extra={"HF_HOME": str(home)})
    record = json.loads(done.stdout)
    assert record["trials"] == record["scored"] == 48 * 47 // 2
    expected = eer_by_hand(vectors)
    # One trial of the rarer kind is the finest step there is.
    assert record["eer"] == pytest.approx(expected, abs=1 / record["targets"])
    assert 0 < record["eer"] < 0.25
    (made,) = (home / "assets" / "voxblink2" / "embeddings").rglob("*.parquet")
    assert record["embeddings"] == str(made)
    before = made.stat()
    assert f"Embeddings: 48 in {made}, kept for the next run" in done.stderr
    again = cli_process.run(*words, extra={"HF_HOME": str(home)})
    assert again.stdout == done.stdout
    assert "Embedding:" in done.stderr
    assert "Embedding:" not in again.stderr
    assert made.stat() == before


def test_only_utterances_of_the_trials_are_embedded(
    demo: Demo, undisturbed: Path, tmp_path: Path, ran: list[BlockTask],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model, _, vectors = demo
    few = {name: vectors[name] for name in sorted(vectors)[5:25]}
    trials = write_trials(tmp_path / "trials", list(few))
    kept = tmp_path / "kept.safetensors"
    words = [*sv(model, undisturbed, trials, "--embeddings", kept), "--json"]
    out, err = answered(words, capsys)
    assert sum(len(task.block.rows) for task in ran) == 20
    assert f"Embeddings: 20 in {kept}" in err
    record = json.loads(out)
    assert record["embeddings"] == str(kept)
    assert record["eer"] == pytest.approx(eer_by_hand(few), abs=1 / record["targets"])
    result = read_embeddings(kept)
    assert sorted(result.names) == sorted(few)
    for name, vector in zip(result.names, result.vectors, strict=True):
        np.testing.assert_allclose(vector, few[name], rtol=1e-3, atol=1e-4)
    assert not (tmp_path / "assets").exists()
    ran.clear()
    assert answered(words, capsys)[0] == out
    assert ran == []
    assert record["proof"]["model"]["name"] == Path(model).name
    (tmp_path / "result.json").write_text(out)
    # The model is not needed for that, nor is the audio.
    answered(["score", "verify", str(tmp_path / "result.json")], capsys)
    assert ran == []


@pytest.mark.usefixtures("ran")
def test_what_could_not_be_embedded_is_said_and_then_missing(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, wav_scp, vectors = demo
    bad = sorted(vectors)[3]
    lines = wav_scp.read_text().splitlines(keepends=True)
    spelled = f"{bad.replace('/', '-')}.wav "
    gone = [
        f"{spelled}{tmp_path}/gone.flac\n" if line.startswith(spelled) else line for line in lines
    ]
    (tmp_path / "wav.scp").write_text("".join(gone))
    trials = write_trials(tmp_path / "trials", sorted(vectors)[:12])
    kept = tmp_path / "kept.parquet"
    words = sv(model, tmp_path / "wav.scp", trials, "--embeddings", kept)
    assert main(words) == 2
    err = capsys.readouterr().err
    message = (
        f"1 utterance could not be embedded; reasons in {tmp_path / 'kept.parquet.rejects.csv'}\n"
    )
    assert message in err
    assert bad in err.splitlines()[-1]
    assert "there is no file" in (tmp_path / "kept.parquet.rejects.csv").read_text()
    out, err = answered([*words, "--missing", "skip", "--json"], capsys)
    assert message in err
    record = json.loads(out)
    assert record["missing"] == [bad]
    assert record["scored"] == 11 * 10 // 2


# -- Published results -----------------------------------------------------------------------------


def _released(model: str, folder: Path, release: dict[str, Any] | None) -> str:
    """Return a copy of a model that says which release it is."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    if release is not None:
        config["voxblink2_release"] = release
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


FINE = ("Vox1-O: ResNet34-GSP, VoxBlink2 + VoxCeleb2", 0.553, 0.056)
PRE = ("Vox1-O: ResNet34-GSP, VoxBlink2", 1.728, 0.176)


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    ("release", "rows"),
    [
        ({"arch": "resnet34", "stage": "finetuned"}, [FINE]),
        ({"arch": "resnet34", "stage": "pretrained"}, [PRE]),
        ({"arch": "resnet34", "stage": None}, [PRE, FINE]),
        ({"arch": "resnet9"}, []),
        (None, []),
    ],
)
def test_published_results_stand_beside_ours(
    release: dict[str, Any] | None,
    rows: list[tuple[str, float, float]],
    demo: Demo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, wav_scp, vectors = demo
    trials = write_trials(tmp_path / "trials", sorted(vectors)[:12])
    words = sv(_released(model, tmp_path / "model", release), wav_scp, trials)
    record = json.loads(answered([*words, "--json"], capsys)[0])
    assert record["published"] == {
        name: {"eer_percent": eer, "min_dcf": cost} for name, eer, cost in rows
    }
    table = answered(words, capsys)[0].split("\n\n")[1:]
    if not rows:
        assert table == []
        return
    head, here, *published = (re.split(r"\s{2,}", line) for line in table[0].rstrip().split("\n"))
    assert head == ["", "EER", "minDCF (p_target 0.01)"]
    cost = record["min_dcf"][0]["min_dcf"]
    assert here == ["here", f"{100 * record['eer']:.3f} %", f"{cost:.3f}"]
    assert published == [
        [f"published, {name}", f"{eer:.3f} %", f"{cost:.3f}"] for name, eer, cost in rows
    ]


@pytest.mark.usefixtures("ran")
def test_published_costs_of_a_prior_that_was_not_asked_for(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, wav_scp, vectors = demo
    release = {"arch": "resnet34", "stage": "finetuned"}
    trials = write_trials(tmp_path / "trials", sorted(vectors)[:12])
    words = sv(_released(model, tmp_path / "model", release), wav_scp, trials, "--p-target", 0.5)
    here, published = answered(words, capsys)[0].splitlines()[-2:]
    assert re.fullmatch(r"here +[0-9.]+ % +-", here)
    assert published.endswith(" 0.553 %                   0.056")


# -- A model of WeSpeaker --------------------------------------------------------------------------


def test_from_a_folder_of_wespeaker_to_an_equal_error_rate(
    demo: Demo, tmp_path: Path, ran: list[BlockTask], capsys: pytest.CaptureFixture[str]
) -> None:
    """Converted, embedded and scored; its result is beside the published ones."""
    folder, model = small_wespeaker_folder(tmp_path / "wespeaker"), tmp_path / "model"
    out, _ = answered(["convert", str(folder), str(model), "--json"], capsys)
    assert json.loads(out) == {
        "model": str(model),
        "arch": "wespeaker_simam_resnet34",
        "parameters": 66_666,
        "onnx": None,
        "left_out": ["projection.weight"],
    }
    sounds = dict(line.split() for line in demo.wav_scp.read_text().splitlines())
    expected = {}
    for name in sorted(demo.vectors)[:16]:
        samples, _ = soundfile.read(sounds[f"{name.replace('/', '-')}.wav"], dtype="float32")
        expected[name] = directly(str(model), samples)
    trials = write_trials(tmp_path / "trials", list(expected))
    words = sv(str(model), demo.wav_scp, trials)
    record = json.loads(answered([*words, "--json"], capsys)[0])
    assert record["eer"] == pytest.approx(eer_by_hand(expected), abs=1 / record["targets"])
    title = "WeSpeaker SimAM_ResNet34_ASP, AS-norm and quality measures"
    eers = {"Vox1-O": 0.372, "Vox1-E": 0.559, "Vox1-H": 0.997}
    assert record["published"] == {
        f"{trials}: {title}": {"eer_percent": eer, "min_dcf": None} for trials, eer in eers.items()
    }
    ran.clear()
    published = [re.split(r"\s{2,}", line) for line in answered(words, capsys)[0].splitlines()]
    assert published[-3:] == [
        [f"published, {trials}: {title}", f"{eer:.3f} %", "-"] for trials, eer in eers.items()
    ]
    assert ran == []
    # With the other front end it is another model: nothing of this one is used again.
    other = tmp_path / "other"
    shutil.copytree(model, other)
    SpeakerFeatureExtractor().save_pretrained(other)
    again = json.loads(answered([*sv(str(other), demo.wav_scp, trials), "--json"], capsys)[0])
    assert sum(len(task.block.rows) for task in ran) == len(expected)
    words = ["score", "sv", "--trials", str(trials), "--embeddings", record["embeddings"]]
    assert main([*words, "--cohort", again["embeddings"], "--allow-overlap"]) == 2
    assert "These embeddings are of different models" in capsys.readouterr().err


# -- An ONNX file ----------------------------------------------------------------------------------


def test_from_an_onnx_file_to_rates(
    demo: Demo, tmp_path: Path, ran: list[BlockTask], capsys: pytest.CaptureFixture[str]
) -> None:
    """Embedded by `embed` and by both commands of `score`, once; without a description, refused."""
    description = {**WESPEAKER, "voxblink2_release": {"arch": "wespeaker_simam_resnet34"}}
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=description)
    names = sorted(demo.vectors)[:16]
    sounds = dict(line.split() for line in demo.wav_scp.read_text().splitlines())
    spelled = {name: sounds[f"{name.replace('/', '-')}.wav"] for name in names}
    expected = {}
    for name, file in spelled.items():
        frames = features_of(soundfile.read(file, dtype="float32")[0], OnnxDescription(**WESPEAKER))
        expected[name] = np.concatenate([frames.mean(axis=0), frames.max(axis=0)])
    trials = write_trials(tmp_path / "trials", names)
    words = sv(str(path), demo.wav_scp, trials)
    record = json.loads(answered([*words, "--json"], capsys)[0])
    assert record["eer"] == pytest.approx(eer_by_hand(expected), abs=1 / record["targets"])
    assert record["proof"]["model"]["back_end"] == "onnx"
    assert [row["eer_percent"] for row in record["published"].values()] == [0.372, 0.559, 0.997]
    ran.clear()
    listed = write_scp(tmp_path / "wav.scp", {name: Path(file) for name, file in spelled.items()})
    out = tmp_path / "out.parquet"
    given = ["--model", path, "--audio", listed, "--out", out, "--workers", 1, *CPU]
    answered([*map(str, ["embed", *given])], capsys)
    result = read_embeddings(out)
    assert (len(result.names), len(ran)) == (16, 16)
    for name, vector in zip(result.names, result.vectors, strict=True):
        np.testing.assert_allclose(vector, expected[name], rtol=1e-3, atol=1e-3)
    # With another description it is another model.
    (tmp_path / "a.json").write_text(json.dumps(SPEAKER_3D))
    assert main([*map(str, ["embed", *given])]) == 2
    assert "made from other audio, by another model" in capsys.readouterr().err
    (tmp_path / "a.json").unlink()
    assert main(words) == 2
    assert "If WeSpeaker exported it, write into a.json: {" in capsys.readouterr().err


# -- Open-set identification -----------------------------------------------------------------------


def test_open_set_identification_from_audio(
    demo: Demo, tmp_path: Path, ran: list[BlockTask], capsys: pytest.CaptureFixture[str]
) -> None:
    model, wav_scp, vectors = demo
    speakers = sorted({speaker(name) for name in vectors})
    of = {
        person: sorted(name for name in vectors if speaker(name) == person) for person in speakers
    }
    protocol = tmp_path / "protocol"
    protocol.mkdir()
    lists = {
        "gallery": [(of[person][0], place) for place, person in enumerate(speakers[:4])],
        "probe": [(of[person][-1], min(place, 4)) for place, person in enumerate(speakers)],
    }
    for name, lines in lists.items():
        (protocol / name).write_text(
            "".join(f"{utterance} {label}\n" for utterance, label in lines)
        )
    words = ["score", "ossi", "--protocol", protocol, "--model", model, "--wav-scp", wav_scp, *CPU]
    out, err = answered([*map(str, words), "--json"], capsys)
    expected = {name.replace("/", "-") + ".wav" for lines in lists.values() for name, _ in lines}
    assert {name for task in ran for name, _ in task.block.files} == expected
    assert f"Embeddings: {len(expected)} in " in err
    (result,) = json.loads(out)["protocols"]
    enrolled = [vectors[name] / np.linalg.norm(vectors[name]) for name, _ in lists["gallery"]]
    first = [
        int(np.argmax([vector @ vectors[name] for vector in enrolled])) == label
        for name, label in lists["probe"]
        if label < 4
    ]
    assert (result["known"], result["unknown"]) == (4, 4)
    assert result["rank1"] == pytest.approx(np.mean(first))


# -- Wrong use -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sv --trials x", "ossi --protocol x"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "",
            "Name a file of embeddings, --embeddings FILE, or a model and audio to compute them: "
            "--model MODEL --wav-scp FILE.",
        ),
        ("--model m", "--model needs audio to embed: --wav-scp FILE."),
        (
            "--model m --audio a --names n",
            "--names goes with existing embeddings, not with --model.",
        ),
        ("--window 3", "--window goes with the model that embeds: --model MODEL."),
        ("--embeddings e --workers 2", "--workers goes with the model that embeds: --model MODEL."),
        ("--embeddings e --wav-scp a", "--audio goes with the model that embeds: --model MODEL."),
    ],
)
def test_where_embeddings_come_from_is_said_once(
    command: str, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *command.split(), *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"voxblink2: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--embeddings x.npy", "x.npy must end in .parquet or .safetensors."),
        ("--window 0.01", "A window must have at least 0.1 s, got 0.01."),
        ("--workers 0", "There must be at least 1 worker, got 0."),
    ],
)
def test_what_embed_refuses_score_refuses(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = write_trials(tmp_path / "trials", ["id990001/a", "id990001/b", "id990002/c"])
    assert main([*sv("model", tmp_path / "wav.scp", trials), *words.split()]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"voxblink2: {message}"


def test_trials_whose_audio_is_not_there(
    model: str, wav_scp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = write_trials(tmp_path / "trials", ["id990001/a", "id990001/b", "id990002/c"])
    assert main(sv(model, wav_scp, trials)) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"None of the requested utterances is in {wav_scp}." in message
