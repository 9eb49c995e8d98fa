"""Open-set identification from the authors' archive of cut audio to rates, all nine protocols.

What the commands say is compared with embeddings of the very samples that were packed, and with
rates by their definition. Names are joined four times on the way (member, row, embedding, list).
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import cli_process, tiny_models
from support.ossi_builder import OssiCorpus, protocol_names, voice
from support.score_oracle import Array, all_cosines
from support.tiny_models import SAME, calls_here, directly

from voxblink2_lib.scoring import read_embeddings

FARS = (0.5, 0.1, 0.01)
Vectors = Mapping[str, Array]
Run = Callable[..., subprocess.CompletedProcess[str]]


class Place(NamedTuple):
    """Where everything of a test is.

    Attributes:
        corpus: what was packed.
        parts: the archive.
        release: lists and annotations.
        model: a speaker model.
        vectors: what the model makes of each utterance that was packed, by its path.
    """

    corpus: OssiCorpus
    parts: Path
    release: Path
    model: str
    vectors: Vectors


def make_place(folder: Path, corpus: OssiCorpus) -> Place:
    model = tiny_models.save_separating(folder / "model")
    vectors = {
        name: directly(model, np.divide(voice(*made), 32768, dtype=np.float32))
        for name, made in corpus.utterances.items()
    }
    parts = corpus.write_parts(folder / "parts")
    return Place(corpus, parts, corpus.write_release(folder / "release"), model, vectors)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("ossi"), OssiCorpus())


# -- By definition ---------------------------------------------------------------------------------


class Rates(NamedTuple):
    """What the definition gives for a protocol."""

    dir: dict[float, float]
    auc: float
    rank1: float


def by_definition(gallery: Mapping[str, int], probes: Mapping[str, int], vectors: Vectors) -> Rates:
    labels = sorted(set(gallery.values()))
    models = [
        np.mean([vectors[name] for name, of in gallery.items() if of == label], axis=0)
        for label in labels
    ]
    scores = all_cosines(np.stack([vectors[name] for name in probes]), np.stack(models))
    best = scores.max(axis=1)
    truth = np.array(list(probes.values()))
    right = np.array(labels)[scores.argmax(axis=1)] == truth
    known = np.isin(truth, labels)
    passing = [(np.mean(best[~known] > t), np.mean((best > t)[known] & right[known]))
               for t in (-math.inf, *best)]  # fmt: skip
    pairs = [
        is_right * ((score > other) + (score == other) / 2)
        for score, is_right in zip(best[known], right[known], strict=True)
        for other in best[~known]
    ]
    rates = {
        far: float(max((rate for at, rate in passing if at <= far), default=0)) for far in FARS
    }
    return Rates(rates, float(np.mean(pairs)), float(np.mean(right[known])))


# -- The way ---------------------------------------------------------------------------------------


def assert_all_rates(record: Mapping[str, Any], place: Place, vectors: Vectors) -> None:
    """Compare what ``score ossi --json`` says with the definition."""
    corpus, reports = place.corpus, record["protocols"]
    # The smallest gallery first.
    assert [report["protocol"] for report in reports] == protocol_names()
    for report in reports:
        gallery, probes = corpus.lists(report["protocol"])
        speakers = len(set(gallery.values()))
        assert (report["enrolled"], report["scored"]) == (len(gallery), len(probes))
        assert (report["speakers"], report["missing"]) == (speakers, [])
        assert report["known"] == speakers * corpus.probes
        assert report["unknown"] == corpus.unknown * corpus.probes
        rates = by_definition(gallery, probes, vectors)
        assert report["rank1"] == rates.rank1
        assert {far: report[f"dir@far={far:g}"] for far in FARS} == rates.dir
        assert report["auc"] == pytest.approx(rates.auc, abs=1e-9)


def assert_own_embeddings(path: Path, place: Place, names: Iterable[str]) -> Vectors:
    """Compare embeddings with those of the samples that were packed; return them by their names."""
    made = read_embeddings(path)
    vectors = dict(zip(made.names, made.vectors, strict=True))
    assert vectors.keys() == set(names)
    for name, vector in vectors.items():
        expected = place.vectors[name]
        assert np.linalg.norm(vector - expected) <= SAME * np.linalg.norm(expected), name
    return vectors


def named_utterances(corpus: OssiCorpus) -> set[str]:
    """Return the utterances that any protocol names."""
    return {name for protocol in protocol_names() for names in corpus.lists(protocol)
            for name in names}  # fmt: skip


def assert_all_rows(store: Path, corpus: OssiCorpus, *, is_annotated: bool) -> None:
    """Check that a store has each utterance once, with its times or with none."""
    times = {
        "/".join(row[part] for part in ("speaker_id", "video_id", "utterance_id")): (
            row["start_seconds"],
            row["end_seconds"],
        )
        for row in cli_process.rows(store)
    }
    assert times == {
        name: corpus.seconds(name) if is_annotated else (None, None) for name in corpus.utterances
    }


def score(place: Place, *words: object, run: Run = cli_process.run_inline) -> dict[str, Any]:
    words = (*words, "--protocol", place.release, "--far", *FARS, "--device", "cpu", "--json")
    return dict(json.loads(run("score", "ossi", *words).stdout))


@pytest.mark.parametrize(
    "joined_by",
    [
        pytest.param(slice(2, 3), id="utterance"),
        pytest.param(slice(1, 3), id="video and utterance"),
        pytest.param(slice(0, 3, 2), id="speaker and utterance"),
        pytest.param(slice(0, 2), id="speaker and video"),
    ],
)
def test_a_join_by_less_than_the_whole_name_changes_the_rates(
    joined_by: slice, place: Place
) -> None:
    def rates_by(parts: slice) -> list[Rates]:
        keys = {name: tuple(name.split("/")[parts]) for name in place.vectors}
        last = {keys[name]: vector for name, vector in place.vectors.items()}
        vectors = {name: last[key] for name, key in keys.items()}
        return [by_definition(*place.corpus.lists(each), vectors) for each in protocol_names()]

    right = rates_by(slice(0, 3))
    assert all(rates.rank1 > 0.5 for rates in right)
    assert any(rates.dir[0.01] < rates.rank1 < 1 for rates in right)
    assert rates_by(joined_by) != right


@pytest.mark.parametrize("is_annotated", [False, True], ids=["archive alone", "with annotations"])
def test_from_the_archive_to_the_rates_of_all_nine_protocols(
    is_annotated: bool, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = calls_here(monkeypatch)
    store, embeddings = tmp_path / "store", tmp_path / "embeddings.parquet"
    release = ("--data-dir", place.release) if is_annotated else ()
    words = ("--source", place.parts, "--store", store, "--workers", 1, *release)
    cli_process.run_inline("materialize", *words)
    assert_all_rows(store, place.corpus, is_annotated=is_annotated)
    words = ("--model", place.model, "--audio", store, "--workers", 1, "--device", "cpu")
    cli_process.run_inline("embed", *words, "--out", embeddings)
    vectors = assert_own_embeddings(embeddings, place, place.corpus.utterances)
    record = score(place, "--embeddings", embeddings)
    assert_all_rates(record, place, vectors)
    # With a model, only what the protocols name is embedded.
    ran.clear()
    few = tmp_path / "few.parquet"
    assert_all_rates(score(place, *words[:-2], "--embeddings", few), place, vectors)
    named = named_utterances(place.corpus)
    assert sum(len(task.block.rows) for task in ran) == len(named) < len(vectors)
    assert_own_embeddings(few, place, named)


@pytest.mark.slow
@pytest.mark.parametrize("is_annotated", [False, True], ids=["archive alone", "with annotations"])
def test_the_whole_program_on_a_larger_archive(is_annotated: bool, tmp_path: Path) -> None:
    place = make_place(tmp_path, OssiCorpus(speakers=(12, 24, 48), probes=4, unknown=40))
    store, embeddings = tmp_path / "store", tmp_path / "embeddings.parquet"
    release = ("--data-dir", place.release) if is_annotated else ()
    words = ("--source", place.parts, "--store", store, "--workers", 2, *release)
    cli_process.run("materialize", *words)
    assert_all_rows(store, place.corpus, is_annotated=is_annotated)
    words = ("--model", place.model, "--audio", store, "--workers", 2, "--device", "cpu")
    cli_process.run("embed", *words, "--out", embeddings)
    vectors = assert_own_embeddings(embeddings, place, place.corpus.utterances)
    plot = tmp_path / "dir.png"
    record = score(place, "--embeddings", embeddings, "--plot", plot, run=cli_process.run)
    assert_all_rates(record, place, vectors)
    assert plot.stat().st_size > 10_000
