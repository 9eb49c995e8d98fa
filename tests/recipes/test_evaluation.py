"""Scores of a model in training are those of its saved folder; the confused are found."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support import tiny_models
from support.synthetic_voices import speech, voice, write_voices

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.models.features import SpeakerFeatureExtractor
from voxblink2_lib.recipes.evaluation import (
    TrialScores,
    most_confused,
    score_list,
)
from voxblink2_lib.recipes.holdout import (
    Share,
    hold_out_speakers,
    score_held_out,
    score_trials_held_out,
)
from voxblink2_lib.recipes.training import make_model
from voxblink2_lib.scoring import cosine_scores
from voxblink2_lib.training import Corpus, Reader

SPEAKERS = [f"id{number:05}" for number in range(1, 5)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight utterances of four voices."""
    folder = tmp_path_factory.mktemp("voices") / "store"
    return write_voices(folder, SPEAKERS, seed=1, videos=2, utterances=1, frames=12)


def test_the_scores_are_those_of_one_process(store: Path) -> None:
    network = make_model("small", classes=2, seed=0)
    held_out = hold_out_speakers(Corpus.open(store), np.array([True, True, True, False]))
    alone = score_trials_held_out(*network, held_out)
    parts: list[list[tuple[int, np.ndarray]]] = []

    def note(part: list[tuple[int, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
        parts.append(part)
        return [pair for each in parts for pair in each]

    with pytest.raises(KeyError):  # the first of two has only its own
        score_trials_held_out(*network, held_out, share=Share(0, 2, note))
    together = score_trials_held_out(*network, held_out, share=Share(1, 2, note))
    assert [len(part) for part in parts] == [3, 3]
    assert (together == alone).all()
    sweep, theirs = TrialScores.of(held_out, alone).sweep, score_held_out(*network, held_out)
    assert (sweep.target == theirs.target).all()
    assert (sweep.nontarget == theirs.nontarget).all()
    assert network.model.training


def test_scores_are_saved_whole(store: Path, tmp_path: Path) -> None:
    held_out = hold_out_speakers(Corpus.open(store), np.array([True, True, True, False]))
    values = np.linspace(0, 1, len(held_out.target), dtype=np.float32)
    trials = TrialScores.of(held_out, values)
    trials.save(tmp_path / "scores.npz")
    loaded = TrialScores.load(tmp_path / "scores.npz")
    for name in ("scores", "target", "speakers", "enrolment", "test"):
        assert (getattr(loaded, name) == getattr(trials, name)).all()
    assert list(loaded.speakers) == SPEAKERS[:3]
    is_same = loaded.speakers[loaded.enrolment] == loaded.speakers[loaded.test]
    assert (is_same == loaded.target).all()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_the_most_confused_pairs_come_first() -> None:
    random = np.random.default_rng(4)
    first, second = random.integers(0, 6, (2, 3000)).astype(np.int32)
    target = first == second
    closeness = random.normal(size=(6, 6))
    scores = closeness[np.minimum(first, second), np.maximum(first, second)]
    scores = np.where(target, 1.5, scores) + random.normal(size=3000)
    ids = np.array([f"id{number}" for number in range(6)])
    trials = TrialScores(scores.astype(np.float32), target, ids, first, second)
    threshold = trials.sweep.crossing().threshold
    expected = {}
    for low, high in combinations(range(6), 2):
        here = trials.scores[
            (np.minimum(first, second) == low) & (np.maximum(first, second) == high)
        ]
        expected[f"id{low}", f"id{high}"] = (len(here), int((here >= threshold).sum()), here.mean())
    pairs = most_confused(trials, 5)
    shares = [pair.accepted / pair.trials for pair in pairs]
    assert shares == sorted(shares, reverse=True)
    assert shares == sorted((b / a for a, b, _ in expected.values()), reverse=True)[:5]
    for pair in pairs:
        number, accepted, mean = expected[pair.speakers]
        assert (pair.trials, pair.accepted) == (number, accepted)
        assert pair.mean_score == pytest.approx(mean, rel=1e-5)
    nobody = TrialScores(trials.scores, target, np.array([], np.str_), first[:0], first[:0])
    assert most_confused(nobody) == []


def test_a_list_of_trials_is_scored_with_a_folder_or_a_store(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.calls_here(monkeypatch)
    tiny_models.cache_in(monkeypatch, tmp_path / "cache")
    network = make_model("small", classes=2, seed=0)
    for part in network:
        part.save_pretrained(tmp_path / "model")
    corpus, reader = Corpus.open(store), Reader(Corpus.open(store))
    names = corpus.names()
    vectors = [embedding(network.model, network.extractor, reader.read(row)) for row in range(8)]
    sides = list(combinations(range(8), 2))
    lines = [
        f"{int(corpus.speaker[one] == corpus.speaker[two])} {names[one]}.wav {names[two]}.wav\n"
        for one, two in sides
    ]
    (tmp_path / "trials").write_text("".join(lines))
    for row, name in enumerate(names):
        path = tmp_path / "wav" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, reader.read(row).numpy(), 16_000, subtype="FLOAT")
    expected = cosine_scores(np.stack(vectors), *map(np.array, zip(*sides, strict=True)))
    for audio in (store, tmp_path / "wav"):
        trials = score_list(tmp_path / "trials", audio, model=tmp_path / "model", workers=1)
        np.testing.assert_allclose(trials.scores, expected, atol=1e-5)
        assert trials.target.sum() == 4
    assert "EER" in trials.text
    assert "28 trials" in trials.text
    (tmp_path / "unlabelled").write_text(f"{names[0]} {names[1]}\n")
    with pytest.raises(ScoringError, match="has no labels"):
        score_list(tmp_path / "unlabelled", store, model=tmp_path / "model")


def embedding(
    model: torch.nn.Module, extractor: SpeakerFeatureExtractor, waveform: torch.Tensor
) -> np.ndarray:
    model.train(mode=False)
    with torch.inference_mode():
        features = extractor([waveform], sampling_rate=16_000)["input_features"]
        vector: np.ndarray = model(features).embeddings[0].numpy()
    return vector


def test_voices_differ_and_come_again() -> None:
    sounds = [speech(voice(seed), 0.4, seed=7) for seed in (1, 1, 2)]
    assert (sounds[0] == sounds[1]).all()
    assert np.abs(sounds[0] - sounds[2]).max() > 0.1
