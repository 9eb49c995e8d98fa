"""Models of several utterances, against plain loops; speakers of names."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.score_oracle import cosine

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import evaluate_trials
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.enrolment import (
    EnrolmentMap,
    read_enrolment,
    read_speakers,
    speaker_means,
    speakers_of_names,
)
from voxblink2_lib.scoring.trial_lists import read_trials
from voxblink2_lib.scoring.trial_scores import normalized_scores
from voxblink2_lib.scoring.trials import TrialList, cosine_scores

NAMES = [f"test/s{speaker}-{n}.wav" for speaker in range(4) for n in range(4)]
_RNG = np.random.default_rng(3)
VECTORS = (np.repeat(_RNG.normal(size=(4, 8)), 4, axis=0) + 0.9 * _RNG.normal(size=(16, 8))).astype(
    np.float32
)
EMBEDDINGS = Embeddings(NAMES, VECTORS, "memory")
COHORT = Embeddings([f"c{n}" for n in range(12)], _RNG.normal(size=(12, 8)).astype("f4"), "cohort")
MODELS = EnrolmentMap(
    {f"s{s}-enroll": [f"s{s}-{n}" for n in range(s + 1)] for s in range(3)}, "map"
)
TRIALS = [
    (f"s{model}-enroll", f"test/s{speaker}-3.wav", model == speaker)
    for model in range(3)
    for speaker in range(4)
]


def listed(trials: list[tuple[str, str, bool]]) -> TrialList:
    names = list(dict.fromkeys(name for trial in trials for name in trial[:2]))
    rows = [(names.index(enrol), names.index(test), label) for enrol, test, label in trials]
    enrolment, test, labels = (np.array(column) for column in zip(*rows, strict=True))
    return TrialList(names, enrolment, test, labels)


def vector(name: str) -> Any:
    row = NAMES.index(name if name in NAMES else f"test/{name}.wav")
    return VECTORS[row].astype(np.float64)


def expected(model: str, test: str, enrolment: str) -> float:
    enrolled = [vector(name) for name in MODELS.utterances[model]]
    if enrolment == "mean":
        return cosine(np.mean(enrolled, axis=0), vector(test))
    if enrolment == "normalized-mean":
        units = [each / np.linalg.norm(each) for each in enrolled]
        return cosine(np.mean(units, axis=0), vector(test))
    scores = [cosine(each, vector(test)) for each in enrolled]
    return max(scores) if enrolment == "max" else float(np.mean(scores))


@pytest.mark.parametrize("enrolment", ["mean", "normalized-mean", "mean-of-scores", "max"])
def test_scores_are_those_of_plain_loops(enrolment: Any) -> None:
    scored, normalization = normalized_scores(
        listed(TRIALS), EMBEDDINGS, models=MODELS, enrolment=enrolment
    )
    plain_scores = [expected(model, test, enrolment) for model, test, _ in TRIALS]
    np.testing.assert_allclose(scored.scores, plain_scores, atol=1e-6)
    assert scored.scores.dtype == np.float32
    assert (scored.rows.tolist(), scored.missing, normalization) == ([*range(12)], [], None)
    assert [NAMES[row] for row in scored.test] == [test for _, test, _ in TRIALS]


@pytest.mark.parametrize("enrolment", ["mean-of-scores", "max"])
def test_a_model_of_one_utterance_is_that_utterance(enrolment: Any) -> None:
    models = EnrolmentMap({f"m{n}": [NAMES[n]] for n in range(8)}, "map")
    pairs = [(f"m{n}", NAMES[15 - n], bool(n % 2)) for n in range(8)]
    plain = [(NAMES[n], NAMES[15 - n], bool(n % 2)) for n in range(8)]
    cohorts: list[dict[str, Any]] = [{}, {"cohort": COHORT, "top_n": 5}]
    for options in cohorts:
        single = normalized_scores(listed(plain), EMBEDDINGS, **options)
        several = normalized_scores(
            listed(pairs),
            EMBEDDINGS,
            models=models,
            enrolment=enrolment,
            **options,
        )
        np.testing.assert_array_equal(several.scored.scores, single.scored.scores)
        assert several.normalization == single.normalization


@pytest.mark.parametrize("enrolment", ["mean-of-scores", "max"])
@pytest.mark.parametrize("pairs", [1, 7, 30])
def test_pairs_are_scored_in_chunks_of_any_size_to_the_same_bits(
    enrolment: Any, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(3)
    lists = [generator.choice(12, size, replace=False) for size in (1, 5, 11, 2)]
    models = EnrolmentMap({f"m{n}": [NAMES[i] for i in rows] for n, rows in enumerate(lists)}, "m")
    trials = listed([(f"m{n % 4}", NAMES[12 + n % 4], bool(n % 3)) for n in range(40)])
    seen: list[int] = []

    def counted(vectors: Any, enrolled: Any, test: Any) -> Any:
        seen.append(len(test))
        return cosine_scores(vectors, enrolled, test)

    monkeypatch.setattr("voxblink2_lib.scoring.trial_scores.cosine_scores", counted)
    for options in ({}, {"cohort": COHORT, "top_n": 5}):
        given: dict[str, Any] = {"models": models, "enrolment": enrolment, **options}
        whole = normalized_scores(trials, EMBEDDINGS, **given).scored.scores
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("voxblink2_lib.scoring.trial_scores._PAIRS", pairs)
            seen.clear()
            parts = normalized_scores(trials, EMBEDDINGS, **given).scored.scores
        np.testing.assert_array_equal(parts, whole)
        assert parts.dtype == whole.dtype
        assert sum(seen) == sum(len(lists[n % 4]) for n in range(40))
        # A trial is never divided, however many utterances its model has.
        assert max(seen) <= max(pairs, 11)


def test_each_score_of_a_model_is_normalized() -> None:
    options: dict[str, Any] = {"cohort": COHORT, "top_n": 5}
    pairs = [(name, TRIALS[8][1], True) for name in MODELS.utterances["s2-enroll"]]
    single = normalized_scores(listed(pairs), EMBEDDINGS, **options).scored.scores
    pooled: dict[Any, float] = {"max": single.max(), "mean-of-scores": single.mean()}
    for enrolment, score in pooled.items():
        options |= {"models": MODELS, "enrolment": enrolment}
        several = normalized_scores(listed(TRIALS[8:9]), EMBEDDINGS, **options).scored
        np.testing.assert_allclose(several.scores, [score], rtol=1e-12)


def test_a_model_may_have_the_name_of_an_utterance() -> None:
    models = EnrolmentMap({NAMES[0]: NAMES[1:3], NAMES[3]: [NAMES[0]]}, "map")
    trials = listed([(NAMES[0], NAMES[3], True), (NAMES[3], NAMES[0], False)])
    scores = normalized_scores(trials, EMBEDDINGS, models=models).scored.scores
    mean = (vector(NAMES[1]) + vector(NAMES[2])) / 2
    np.testing.assert_allclose(scores, [cosine(mean, vector(NAMES[3])), 1], atol=1e-6)


def without(*names: str) -> Embeddings:
    rows = [row for row, name in enumerate(NAMES) if name not in names]
    return Embeddings([NAMES[row] for row in rows], VECTORS[rows], "memory")


def test_missing_utterances_and_models_are_named_or_counted() -> None:
    few = without("test/s0-0.wav", "test/s2-1.wav", "test/s3-3.wav")
    trials = listed([*TRIALS, ("s9-enroll", NAMES[3], False)])
    with pytest.raises(
        ScoringError,
        match=r"1 model of the trials is not in map\. Names without a match: 's9-enroll' "
        r"\(nearest: 's\d-enroll'\)\. .*--missing skip",
    ):
        normalized_scores(trials, EMBEDDINGS, models=MODELS)
    with pytest.raises(
        ScoringError,
        match=r"3 utterances of the trials are not in memory\. Names without a match: 's0-0' "
        r"\(nearest: 'test/s0-\d\.wav'\), 's2-1' .*--missing skip",
    ):
        normalized_scores(listed(TRIALS), few, models=MODELS)
    scored = normalized_scores(trials, few, models=MODELS, missing="skip").scored
    # Model 0 has no utterance left, and utterance 3 of speaker 3 is in no trial.
    assert scored.rows.tolist() == [4, 5, 6, 8, 9, 10]
    assert scored.missing == ["s9-enroll", "s0-0", "s2-1", "test/s3-3.wav"]
    mean = (vector("s2-0") + vector("s2-2")) / 2
    np.testing.assert_allclose(scored.scores[3], cosine(mean, vector(TRIALS[8][1])), atol=1e-6)
    with pytest.raises(ScoringError, match=r"None of the 13 trials has its embeddings in cohort"):
        normalized_scores(trials, COHORT, models=MODELS, missing="skip")


def test_reports_are_of_models() -> None:
    report = evaluate_trials(listed(TRIALS), EMBEDDINGS, models=MODELS, enrolment="max")
    assert (report.trials, report.scored, report.targets) == (12, 12, 3)
    with pytest.raises(
        ScoringError, match=r"enrolment is 'sum'; allowed are 'mean', 'normalized-m"
    ):
        evaluate_trials(listed(TRIALS), EMBEDDINGS, models=MODELS, enrolment="sum")  # type: ignore[arg-type]


# -- Files -----------------------------------------------------------------------------------------

BOTH = {"m1": ["a", "b"], "m2": ["c"]}


@pytest.mark.parametrize(
    "text",
    [
        "m1 a b\nm2 c\n",
        "m1 a\nm1 b\nm2 c\n",
        "m1 a\nm2 c\nm1 b\nm1 a\n",
        "m1\ta\tb\nm2\tc\n",
        "m1 a,b\nm2 c\n",
        "# a comment\n\nm1   a  b\r\nm2 c\r\n",
        "modelid\tsegmentid\tside\nm1\ta\ta\nm1\tb\ta\nm2\tc\ta\n",
        "model,utterance\nm1,a\nm1,b\nm2,c\n",
    ],
)
def test_maps_come_in_every_form(text: str, tmp_path: Path) -> None:
    path = tmp_path / "enroll.map"
    for content in (text.encode(), gzip.compress(text.encode("utf-16"))):
        path.write_bytes(content)
        assert read_enrolment(path).utterances == BOTH


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"enroll.map is empty"),
        (
            "m1 a\n\nm2\n",
            r"enroll.map, line 3: 'm2' has no utterance\. Allowed are 'model utteranc",
        ),
        ("modelid\tsegmentid\n", r"enroll.map contains no model\. Allowed are"),
        ("modelid\tsegmentid\nm1\n", r"enroll.map, line 2: 'm1' has no utterance"),
    ],
)
def test_what_is_no_map_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "enroll.map").write_text(text)
    with pytest.raises(ScoringError, match=message):
        read_enrolment(tmp_path / "enroll.map")


def test_cn_celeb(tmp_path: Path) -> None:
    (tmp_path / "enroll.map").write_text("s0-enroll s0-0.wav s0-1.wav\ns1-enroll s1-0.wav\n")
    (tmp_path / "trials.lst").write_text(
        "s0-enroll test/s0-3.wav 1\ns0-enroll test/s1-3.wav 0\ns1-enroll test/s1-3.wav 1\n"
    )
    trials = read_trials(tmp_path / "trials.lst")
    models = read_enrolment(tmp_path / "enroll.map")
    scored = normalized_scores(trials, EMBEDDINGS, models=models).scored
    mean = (vector("s0-0") + vector("s0-1")) / 2
    plain_scores = [cosine(mean, vector(f"s{n}-3")) for n in (0, 1)]
    np.testing.assert_allclose(scored.scores[:2], plain_scores, atol=1e-6)


# -- Speakers --------------------------------------------------------------------------------------


def test_speakers_are_those_of_a_file_or_in_names(tmp_path: Path) -> None:
    (tmp_path / "utt2spk").write_text(
        "".join(f"s{s}-{n} {s}\n" for s in range(4) for n in range(4))
    )
    speakers = read_speakers(tmp_path / "utt2spk")
    trials = listed(TRIALS)
    result = speakers_of_names(trials, speakers=speakers, models=MODELS).tolist()
    assert result == [name.removeprefix("test/")[1] for name in trials.names]
    with pytest.raises(
        ScoringError, match=r"3 of 7 names have no speaker in file\. Names without .* 's0-enroll'"
    ):
        speakers_of_names(trials, speakers=speakers, source="file")
    named = TrialList(["id10001/a/1", "m", "x"], np.array([1]), np.array([0]), None)
    models = EnrolmentMap({"m": ["id10002/b/1"], "x": ["id10003/b/1"]}, "map")
    assert speakers_of_names(named, models=models).tolist() == ["id10001", "id10002", "id10003"]
    (tmp_path / "utt2spk").write_text("a 1\nb 2\na 3\n")
    with pytest.raises(
        ScoringError, match=r"utt2spk, line \d: 'a' has the speaker '3' here, and '1' bef"
    ):
        read_speakers(tmp_path / "utt2spk")


def test_a_cohort_may_be_the_means_of_its_speakers() -> None:
    speakers = {f"c{n}": str(n % 3) for n in range(12)}
    means = speaker_means(COHORT, speakers, "file")
    assert means.names == ["0", "1", "2"]
    for row in range(3):
        mean = COHORT.vectors[row::3].mean(axis=0)
        np.testing.assert_allclose(means.vectors[row], mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(ScoringError, match=r"11 of 12 names have no speaker in file"):
        speaker_means(COHORT, {"c1": "x"}, "file")
