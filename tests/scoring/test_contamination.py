"""Trials, protocols and cohorts that share what must be apart are refused, or in the output."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import Embeddings, TrialList, evaluate_protocol, evaluate_trials
from voxblink2_lib.scoring.contamination import check_protocol, check_trials
from voxblink2_lib.scoring.embedding_files import corpus_key
from voxblink2_lib.scoring.enrolment import EnrolmentMap, speaker_means
from voxblink2_lib.scoring.protocols import OpenSetProtocol, read_protocols
from voxblink2_lib.scoring.trial_lists import read_trials

CLEAN = ["1 a/1.wav a/2.wav", "0 a/1.wav b/1.wav", "0 a/2.wav b/1.wav"]
VIDEO = "abcdefghijk"


def trials(*pairs: tuple[str, str], labels: Sequence[bool] | None = None) -> TrialList:
    names = sorted({name for pair in pairs for name in pair})
    rows = np.array([[names.index(name) for name in pair] for pair in pairs])
    flags = None if labels is None else np.array(labels)
    return TrialList(names, rows[:, 0], rows[:, 1], flags)


def embeddings(*names: str, source: str = "cohort", corpus: str | None = None) -> Embeddings:
    vectors = np.random.default_rng(5).normal(size=(len(names), 4)).astype(np.float32)
    return Embeddings(list(names), vectors, source, corpus)


def written(folder: Path, *lines: str) -> TrialList:
    (folder / "trials").write_text("# a comment\n" + "".join(f"{line}\n" for line in lines))
    return read_trials(folder / "trials")


# -- Trials ----------------------------------------------------------------------------------------


def test_clean_trials_have_only_zeros(tmp_path: Path) -> None:
    overlap = check_trials(written(tmp_path, *CLEAN))
    assert overlap.as_dict() == {
        "duplicate_trials": 0,
        "self_trials": 0,
        "pairs_with_both_labels": 0,
    }
    assert overlap.texts == ()


@pytest.mark.parametrize("name", ["a/1.wav", "a/1", "a@1.flac"])
def test_a_trial_against_itself_is_refused_by_its_line(name: str, tmp_path: Path) -> None:
    listed = written(tmp_path, *CLEAN, f"1 a/1.wav {name}")
    message = (
        rf"^1 trial is of an utterance with itself, such as {tmp_path}/trials, line 5: "
        rf"'a/1.wav' against '{name}'\. Take them out; .* \(--allow-overlap\)\.$"
    )
    with pytest.raises(ScoringError, match=message):
        check_trials(listed)
    overlap = check_trials(listed, allow_overlap=True)
    assert overlap.counts["self_trials"] == 1
    assert "line 5" in overlap.texts[0]


def test_at_most_three_examples_are_shown() -> None:
    listed = trials(*((name, name) for name in "abcde"))
    with pytest.raises(ScoringError, match=r"^5 trials .* trial 1: .* trial 2: .* trial 3: 'c'"):
        check_trials(listed)
    with pytest.raises(ScoringError) as error:
        check_trials(listed)
    assert "trial 4" not in str(error.value)


def test_a_pair_with_both_labels_is_refused_in_either_order(tmp_path: Path) -> None:
    listed = written(tmp_path, *CLEAN, "1 b/1.wav a/1.wav")
    message = (
        "^1 pair is both a target and a non-target trial, such as .*line 3: 'a/1.wav' against "
        "'b/1.wav'; .*line 5: 'b/1.wav' against 'a/1.wav'"
    )
    with pytest.raises(ScoringError, match=message):
        check_trials(listed)
    assert check_trials(listed, allow_overlap=True).counts["pairs_with_both_labels"] == 1


def test_repeated_trials_are_counted() -> None:
    listed = trials(("a", "b"), ("b", "a"), ("a", "b"), ("a", "c"), labels=[True] * 3 + [False])
    overlap = check_trials(listed)
    assert overlap.counts["duplicate_trials"] == 2
    assert overlap.texts == ("2 trials repeat another one.",)


@given(st.lists(st.tuples(*[st.sampled_from("abcd")] * 2, st.booleans()), min_size=1))
def test_counts_are_those_of_sets(rows: list[tuple[str, str, bool]]) -> None:
    listed = trials(*((a, b) for a, b, _ in rows), labels=[label for _, _, label in rows])
    pairs = [frozenset((a, b)) for a, b, _ in rows]
    labelled = {(pair, label) for pair, (_, _, label) in zip(pairs, rows, strict=True)}
    assert check_trials(listed, allow_overlap=True).as_dict() == {
        "duplicate_trials": len(pairs) - len(set(pairs)),
        "self_trials": sum(a == b for a, b, _ in rows),
        "pairs_with_both_labels": len(labelled) - len(set(pairs)),
    }


MODELS = EnrolmentMap({"m": ["a/1", "a/2"], "n": ["b/1"], "unused": ["c/1"]}, "map")


def test_a_test_utterance_that_is_enrolled_is_refused() -> None:
    pairs = [("m", "a/3"), ("n", "b/2"), ("m", "b/1.wav"), ("n", "c/1")]
    message = "^1 trial has a test utterance that is also enrolled, such as trial 3: 'm' against"
    with pytest.raises(ScoringError, match=message):
        check_trials(trials(*pairs), models=MODELS)
    assert check_trials(trials(*pairs[:2], pairs[3]), models=MODELS).counts["enrolled_tests"] == 0


def test_a_model_and_an_utterance_of_one_name_are_no_trial_against_itself() -> None:
    models = EnrolmentMap({"x": ["a/1"], "y": ["b/1"]}, "map")
    assert check_trials(trials(("x", "x"), ("x", "y"), ("y", "x")), models=models).counts == {
        "duplicate_trials": 0,
        "self_trials": 0,
        "pairs_with_both_labels": 0,
        "enrolled_tests": 0,
    }


def test_the_metrics_refuse_contaminated_trials() -> None:
    listed = trials(("a", "a"), ("a", "b"), labels=[True, False])
    vectors = embeddings("a", "b")
    with pytest.raises(ScoringError, match="of an utterance with itself"):
        evaluate_trials(listed, vectors)
    report = evaluate_trials(listed, vectors, allow_overlap=True)
    assert report.as_dict()["overlap"]["self_trials"] == 1


# -- Cohorts ---------------------------------------------------------------------------------------

OURS = trials(
    *combinations([f"id{speaker}/{VIDEO}/00001" for speaker in ("00012", "00013", "000012")], 2)
)


def test_a_cohort_of_the_trials_own_embeddings_is_refused() -> None:
    listed = trials(("a", "b"), ("a", "c"), labels=[True, False])
    own = embeddings("a", "b", "c")
    message = (
        "^3 utterances of the cohort memory are also among the trials, such as trial 1: 'a' "
        "against 'b'; trial 2: 'a' against 'c'"
    )
    own = Embeddings(own.names, own.vectors, "memory")
    with pytest.raises(ScoringError, match=message):
        evaluate_trials(listed, own, cohort=own, top_n=2)
    report = evaluate_trials(listed, own, cohort=own, top_n=2, allow_overlap=True)
    assert report.overlap.counts["cohort_utterances"] == 3
    # Nothing in these names says who speaks, which is no proof that all are others.
    assert report.overlap.counts["cohort_speakers"] is None


@pytest.mark.parametrize(
    ("ours", "theirs", "same_ids", "shared", "unknown"),
    [
        ("VoxCeleb1", "voxceleb_1", False, 1, 0),
        ("VoxCeleb2", "VoxBlink1", False, 0, 0),
        ("VoxCeleb2", "VoxBlink1", True, 1, 0),
        (None, "VoxBlink1", False, 0, 1),
        ("VoxBlink1", None, False, 0, 1),
        (None, None, False, 0, 1),
        (None, None, True, 1, 0),
    ],
)
def test_a_speaker_is_a_corpus_and_an_id(
    ours: str | None, theirs: str | None, same_ids: bool, shared: int, unknown: int
) -> None:
    cohort = embeddings(f"id00012-zzzzzzzzzzz-{3:05}", "id00099-zzzzzzzzzzz-00001", corpus=theirs)
    given: dict[str, Any] = {
        "embeddings": embeddings("a", source="embeddings", corpus=ours),
        "cohort": cohort,
        "same_ids": same_ids,
    }
    if shared:
        with pytest.raises(ScoringError, match=r"^1 speaker of the cohort cohort is also among"):
            check_trials(OURS, **given)
    overlap = check_trials(OURS, **given, allow_overlap=True)
    assert overlap.counts["cohort_speakers"] == shared
    assert overlap.counts["cohort_ids_of_unknown_corpora"] == unknown
    assert ("(--same-ids)" in " ".join(overlap.texts)) == bool(unknown)


def test_six_digits_are_of_voxblink2_whatever_is_known() -> None:
    with pytest.raises(ScoringError, match=r"^1 speaker of the cohort"):
        check_trials(OURS, cohort=embeddings("id000012/zzzzzzzzzzz/00009"))


def test_one_file_is_of_one_corpus() -> None:
    mine = embeddings("x", source="all.parquet")
    cohort = embeddings("id00012/zzzzzzzzzzz/00009", source="all.parquet")
    with pytest.raises(ScoringError, match=r"^1 speaker of the cohort all.parquet"):
        check_trials(OURS, embeddings=mine, cohort=cohort)


def test_equal_names_in_different_corpora_are_different_utterances() -> None:
    listed = trials(("x1", "y1"))
    ours = embeddings("x1", source="x", corpus="A")
    theirs = embeddings("x1", corpus="B")
    assert check_trials(listed, embeddings=ours, cohort=theirs).counts["cohort_utterances"] == 0
    with pytest.raises(ScoringError, match="1 utterance of the cohort"):
        check_trials(listed, embeddings=ours, cohort=embeddings("x1"))


def test_means_of_speakers_are_still_of_their_utterances() -> None:
    cohort = embeddings("u1", "u2", "u3")
    means = speaker_means(cohort, {"u1": "s", "u2": "s", "u3": "t"}, "utt2spk")
    with pytest.raises(ScoringError, match=r"^1 utterance of the cohort"):
        check_trials(trials(("u2", "v")), cohort=means)
    overlap = check_trials(
        trials(("v", "w")), speakers=np.array(["t", "x"]), cohort=means, same_ids=True,
        allow_overlap=True,
    )  # fmt: skip
    assert overlap.counts["cohort_speakers"] == 1


def test_utterances_of_models_count() -> None:
    with pytest.raises(ScoringError, match=r"^1 utterance of the cohort .* trial 1: 'm' against"):
        check_trials(trials(("m", "x")), models=MODELS, cohort=embeddings("a/2.wav"))


def test_spellings_of_a_corpus_are_one() -> None:
    assert corpus_key("VoxCeleb 2") == corpus_key("voxceleb-2") != corpus_key("voxceleb1")


# -- Open-set protocols ----------------------------------------------------------------------------


def protocol(folder: Path, gallery: Sequence[str], probe: Sequence[str]) -> OpenSetProtocol:
    for name, lines in (("gallery", gallery), ("probe", probe)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return read_protocols(folder)[0]


GALLERY, PROBE = ["a1 0", "b1 1"], ["a2 0", "b2 1", "c1 2"]


@pytest.mark.parametrize(
    ("gallery", "probe", "kind", "message"),
    [
        ([], ["a1.wav 0"], "enrolled_probes", "1 probe of .* is also enrolled, .*probe, line 4:"),
        (
            ["a1 1"],
            [],
            "gallery_utterances_with_two_labels",
            "2 lines of .*gallery have an utterance under two labels, .*line 1: 'a1'; .*line 3",
        ),
        (
            [],
            ["c1 0"],
            "probes_with_two_labels",
            "2 lines of .*probe have .*line 3: 'c1'; .*line 4",
        ),
    ],
)
def test_contaminated_protocols_are_refused(
    gallery: list[str], probe: list[str], kind: str, message: str, tmp_path: Path
) -> None:
    read = protocol(tmp_path, GALLERY + gallery, PROBE + probe)
    with pytest.raises(ScoringError, match=f"^{message}.*--allow-overlap"):
        check_protocol(read)
    assert check_protocol(read, allow_overlap=True).counts[kind] == len(gallery + probe) + (
        "two" in kind
    )


def test_repeated_lines_of_protocols_are_counted(tmp_path: Path) -> None:
    read = protocol(tmp_path, [*GALLERY, "a1 0"], [*PROBE, "c1 2", "c1 2"])
    names = embeddings("a1", "b1", "a2", "b2", "c1")
    assert evaluate_protocol(read, names, far=(0.5,)).as_dict()["overlap"] == {
        "duplicate_gallery_utterances": 1,
        "gallery_utterances_with_two_labels": 0,
        "duplicate_probes": 2,
        "probes_with_two_labels": 0,
        "enrolled_probes": 0,
    }
