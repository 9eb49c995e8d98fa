"""Reports of trial lists and protocols: coverage, rates, and what is never dropped silently."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import AdvanceWithNote
from voxblink2_lib.scoring import (
    Embeddings,
    Sweep,
    TrialList,
    as_norm,
    bootstrap_intervals,
    cosine_scores,
    eer,
    evaluate_protocol,
    evaluate_trials,
    min_cllr,
    min_dcf,
    open_set_identification,
    read_protocols,
    read_trials,
    trial_scores,
)
from voxblink2_lib.scoring.det import ErrorCounts
from voxblink2_lib.scoring.protocols import OpenSetProtocol

Array = npt.NDArray[Any]

# Eight speakers with four utterances each, in two spellings of their names.
SPEAKERS = [f"id{number:06}" for number in range(8)]
NAMES = [f"{speaker}/abcdefghij{speaker[-1]}/{n:05}.wav" for speaker in SPEAKERS for n in range(4)]
DASHED = [name.removesuffix(".wav").replace("/", "-") for name in NAMES]
_RNG = np.random.default_rng(13)
_CENTRES = np.repeat(_RNG.normal(size=(8, 16)), 4, axis=0)
VECTORS = (_CENTRES + 1.1 * _RNG.normal(size=(32, 16))).astype(np.float32)
COHORT = _RNG.normal(size=(20, 16)).astype(np.float32)


def embeddings(rows: Sequence[int] = range(32), names: Sequence[str] = NAMES) -> Embeddings:
    return Embeddings([names[row] for row in rows], VECTORS[list(rows)], "memory")


def without(*rows: int) -> Embeddings:
    return embeddings([row for row in range(32) if row not in rows])


def cohort() -> Embeddings:
    return Embeddings([f"cohort{row}" for row in range(20)], COHORT, "cohort")


# All pairs, in an order that mixes speakers and sides.
PAIRS = np.array([(i, j) for i in range(32) for j in range(32) if i < j])
PAIRS = PAIRS[_RNG.permutation(len(PAIRS))]
TARGETS = PAIRS[:, 0] // 4 == PAIRS[:, 1] // 4


def trials(rows: Array | slice = slice(None)) -> TrialList:
    """Pairs as a list of trials, of names in an order of their own."""
    return TrialList(
        NAMES[::-1], 31 - PAIRS[rows, 0], 31 - PAIRS[rows, 1], TARGETS[rows].astype(bool)
    )


def scores(rows: Array | slice = slice(None)) -> Array:
    return cosine_scores(VECTORS, PAIRS[rows, 0], PAIRS[rows, 1])


def has(*rows: int) -> Array:
    """Which pairs have an embedding on both sides when these rows are gone."""
    return np.asarray(~np.isin(PAIRS, rows).any(axis=1))


# -- Trials ----------------------------------------------------------------------------------------


def test_trials_give_the_metrics_of_their_scores() -> None:
    report = evaluate_trials(trials(), embeddings(), p_target=(0.01, 0.5))
    assert (report.trials, report.scored, report.targets) == (496, 496, 48)
    assert report.missing == []
    assert report.intervals is None
    assert report.eer == eer(scores(), TARGETS)
    assert report.hull_eer == eer(scores(), TARGETS, method="hull").eer
    assert report.min_dcf == {p: min_dcf(scores(), TARGETS, p_target=p) for p in (0.01, 0.5)}
    assert report.min_cllr == min_cllr(scores(), TARGETS)
    np.testing.assert_array_equal(report.sweep.target, np.sort(scores()[TARGETS]))
    np.testing.assert_array_equal(report.sweep.nontarget, np.sort(scores()[~TARGETS]))
    # Neither perfect nor hopeless, or much of the above would hold by accident.
    assert 0.02 < report.hull_eer < report.eer.eer < 0.4


def test_trials_are_scored_by_cosine() -> None:
    wide = VECTORS.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    expected = np.einsum("ij,ij->i", wide[PAIRS[:, 0]], wide[PAIRS[:, 1]])
    report = evaluate_trials(trials(), embeddings())
    np.testing.assert_allclose(report.sweep.target, np.sort(expected[TARGETS]), atol=1e-6)
    np.testing.assert_allclose(report.sweep.nontarget, np.sort(expected[~TARGETS]), atol=1e-6)


def test_neither_the_order_of_trials_nor_of_embeddings_matters() -> None:
    report = evaluate_trials(trials(), embeddings(), interval="trials")
    order = np.random.default_rng(1).permutation(len(PAIRS))
    turned = evaluate_trials(trials(order), embeddings(range(32)[::-1]))
    assert turned == evaluate_trials(trials(), embeddings())
    assert turned.eer == report.eer


def test_spellings_of_a_name_are_one() -> None:
    dashed = embeddings(names=DASHED)
    assert evaluate_trials(trials(), dashed) == evaluate_trials(trials(), embeddings())


def test_a_trial_without_an_embedding_is_an_error() -> None:
    with pytest.raises(ScoringError, match=r"2 of 32 utterances have no embedding in memory, so 6"):
        evaluate_trials(trials(), without(3, 17))


def test_the_missing_name_is_that_of_the_first_trial_that_cannot_be_scored(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    path.write_text("1 a b\n0 c a\n")
    only_a = Embeddings(["a"], VECTORS[:1], "memory")
    with pytest.raises(ScoringError, match=r"the first is .*trials, line 1, 'b' is missing"):
        evaluate_trials(read_trials(path), only_a)


def test_skipped_trials_are_counted_and_change_nothing_else() -> None:
    report = evaluate_trials(trials(), without(3, 17), missing="skip", p_target=(0.05,))
    left = has(3, 17)
    assert report.trials == 496
    assert report.scored == left.sum() == 30 * 29 // 2
    assert report.targets == (TARGETS & left).sum() == 42
    assert sorted(report.missing) == [NAMES[3], NAMES[17]]
    alone = evaluate_trials(trials(left), embeddings(), p_target=(0.05,))
    assert report.eer == alone.eer == eer(scores(left), TARGETS[left])
    assert report.hull_eer == alone.hull_eer
    assert report.min_dcf == alone.min_dcf
    assert report.min_cllr == alone.min_cllr


def test_skip_has_nothing_to_say_when_all_is_there() -> None:
    skipped = evaluate_trials(trials(), embeddings(), missing="skip")
    assert skipped == evaluate_trials(trials(), embeddings())


def test_a_name_that_no_trial_uses_is_no_trial_lost() -> None:
    few = trials(has(3))
    report = evaluate_trials(few, without(3))  # its list of names has all 32
    assert report.scored == report.trials == len(few.enrolment)


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_trials_none_of_which_can_be_scored_are_an_error(missing: Any) -> None:
    other = Embeddings(["x", "y"], VECTORS[:2], "memory")
    with pytest.raises(ScoringError, match=r"match: 'id00000\d/abcdefghij.*\(nearest: '[xyz]'\)"):
        evaluate_trials(trials(), other, missing=missing)


def test_skipping_may_leave_only_one_class_which_is_an_error() -> None:
    with pytest.raises(
        ScoringError, match=r"labels are all 0; error rates need target.* among the 420 with"
    ):
        evaluate_trials(trials(~TARGETS), without(3), missing="skip")
    two = embeddings([0, 1])
    with pytest.raises(ScoringError, match=r"labels are all 1; .* among the 1 with"):
        evaluate_trials(trials(), two, missing="skip")


@pytest.mark.parametrize("gone", [(), (3, 17)])
def test_a_cohort_normalises_the_scores(gone: tuple[int, ...]) -> None:
    left = has(*gone)
    normalised = as_norm(
        scores(left),
        enrolment_rows=PAIRS[left, 0],
        test_rows=PAIRS[left, 1],
        embeddings=VECTORS,
        cohort=COHORT,
        top_n=7,
    )
    report = evaluate_trials(
        trials(), without(*gone), missing="skip", cohort=cohort(), top_n=7, interval="trials"
    )
    assert report.eer.eer == pytest.approx(eer(normalised, TARGETS[left]).eer, abs=1e-12)
    np.testing.assert_allclose(report.sweep.target, np.sort(normalised[TARGETS[left]]), atol=1e-5)
    assert report.sweep.target.max() > 1  # these are cosines no longer
    assert report.intervals is not None
    assert report.intervals.eer.value == report.eer.eer


@pytest.mark.parametrize("top_n", [1, 21, 300])
def test_a_cohort_that_is_too_small_is_an_error(top_n: int) -> None:
    with pytest.raises(ScoringError, match=f"top_n must lie between 2 and .* 20; got {top_n}"):
        evaluate_trials(trials(), embeddings(), cohort=cohort(), top_n=top_n)


def test_a_cohort_of_another_model_is_an_error() -> None:
    other = Embeddings(["a", "b", "c"], COHORT[:3, :4], "cohort")
    with pytest.raises(ScoringError, match="cohort has 4 dimensions where 16 are needed"):
        evaluate_trials(trials(), embeddings(), cohort=other, top_n=2)


def test_intervals_over_trials_are_those_of_the_scores_and_the_first_prior() -> None:
    report = evaluate_trials(trials(), embeddings(), p_target=(0.1, 0.5), interval="trials")
    assert report.intervals == bootstrap_intervals(scores(), TARGETS, p_target=0.1)
    assert report.intervals.over == "trials"
    assert report.intervals.eer.value == report.eer.eer
    assert report.intervals.min_dcf.value == report.min_dcf[0.1].min_dcf
    assert report.intervals.eer.low < report.eer.eer < report.intervals.eer.high


@pytest.mark.parametrize("gone", [(), (3, 17)])
def test_intervals_over_speakers_know_the_speakers_by_the_names(gone: tuple[int, ...]) -> None:
    generator = np.random.default_rng(7)
    spoken = np.repeat([f"id{number:05}" for number in range(12)], 4)
    names = [f"{speaker}/abcdefghijk/{row % 4:05}.wav" for row, speaker in enumerate(spoken)]
    vectors = np.repeat(generator.normal(size=(12, 8)), 4, axis=0) + generator.normal(size=(48, 8))
    first, second = np.triu_indices(48, 1)
    listed = TrialList(names, first, second, first // 4 == second // 4)
    kept = [row for row in range(48) if row not in gone]
    made = Embeddings([names[row] for row in kept], vectors[kept].astype(np.float32), "memory")
    left = ~np.isin([first, second], gone).any(axis=0)
    first, second = first[left], second[left]
    expected = bootstrap_intervals(
        cosine_scores(vectors, first, second),
        first // 4 == second // 4,
        speakers=(spoken[first], spoken[second]),
    )
    report = evaluate_trials(listed, made, missing="skip", interval="speakers")
    assert report.intervals == expected
    assert report.intervals.over == "speakers"


def test_intervals_over_few_speakers_are_refused() -> None:
    with pytest.raises(ScoringError, match="8 of the enrolment sides and 8 of the test sides"):
        evaluate_trials(trials(), embeddings(), interval="speakers")


def test_errors_are_counted_at_each_threshold() -> None:
    report = evaluate_trials(trials(), embeddings(), p_target=(0.01, 0.5))
    points: list[tuple[Any, ErrorCounts]] = [(report.eer.threshold, report.errors)]
    points += [
        (cost.threshold, report.min_dcf_errors[prior]) for prior, cost in report.min_dcf.items()
    ]
    for threshold, errors in points:
        accepted = scores() >= threshold
        assert errors.misses == (TARGETS & ~accepted).sum()
        assert errors.false_accepts == (~TARGETS & accepted).sum()
        assert errors.few == (min(errors) < 30)
    assert report.as_dict()["eer_errors"] == report.errors._asdict()


def test_intervals_over_speakers_need_names_that_tell_them() -> None:
    names = [f"recording{row}" for row in range(32)]
    listed = TrialList(names, PAIRS[:, 0], PAIRS[:, 1], TARGETS)
    with pytest.raises(
        ScoringError, match=r"'recording0' does not contain its speaker; names such"
    ):
        evaluate_trials(listed, embeddings(names=names), interval="speakers")
    assert evaluate_trials(listed, embeddings(names=names), interval="trials").intervals


def test_labels_against_the_names_are_an_error_of_intervals_over_speakers() -> None:
    wrong = TrialList(NAMES, PAIRS[:, 0], PAIRS[:, 1], ~TARGETS)
    with pytest.raises(ScoringError, match=r"labels say that trial .* is a target trial, speakers"):
        evaluate_trials(wrong, embeddings(), interval="speakers")


@pytest.mark.parametrize("prior", [0, 1, -0.1, float("nan")])
def test_a_prior_outside_0_to_1_is_an_error(prior: float) -> None:
    with pytest.raises(ScoringError, match=f"p_target must lie between 0 and 1, got {prior}"):
        evaluate_trials(trials(), embeddings(), p_target=(0.01, prior))


def test_a_misspelt_interval_is_an_error_and_not_one_over_trials() -> None:
    wrong: Any = "speaker"
    with pytest.raises(ScoringError, match=r"interval is 'speaker'; allowed are"):
        evaluate_trials(trials(), embeddings(), interval=wrong)


@pytest.mark.parametrize(
    "score",
    [
        lambda missing: evaluate_trials(trials(), without(3), missing=missing),
        lambda missing: evaluate_protocol(protocol(), without(3), missing=missing),
    ],
    ids=["trials", "protocol"],
)
def test_a_misspelt_missing_is_an_error_and_skips_nothing(score: Callable[[str], object]) -> None:
    with pytest.raises(ScoringError, match=r"missing is 'eror'; allowed are 'error'"):
        score("eror")


def test_a_zero_vector_is_an_error() -> None:
    vectors = VECTORS.copy()
    vectors[9] = 0
    with pytest.raises(ScoringError, match="embeddings: row 9 has the length 0"):
        evaluate_trials(trials(), Embeddings(NAMES, vectors, "memory"))


class CountedProgress:
    """Counts what each task advances by, while it runs."""

    def __init__(self) -> None:
        self.tasks: dict[tuple[str, str], tuple[int | None, int]] = {}

    @contextmanager
    def __call__(
        self, task: str, *, unit: str, total: int | None = None, done: int = 0
    ) -> Iterator[AdvanceWithNote]:
        counts = [done]

        def advance(count: int, /, *, note: str = "") -> None:
            counts.append(count)

        yield advance
        self.tasks[task, unit] = (total, sum(counts))


def test_progress_reaches_its_total() -> None:
    progress = CountedProgress()
    evaluate_trials(
        trials(), embeddings(), cohort=cohort(), top_n=7, interval="trials", progress=progress
    )
    evaluate_protocol(protocol(), embeddings(), progress=progress)
    assert progress.tasks == {
        ("Normalizing", "utterance"): (32, 32),
        ("Resampling", "resample"): (1000, 1000),
        ("Small_5/perspk2", "probe"): (16, 16),
    }


@pytest.mark.parametrize(
    "score",
    [
        lambda **options: evaluate_trials(trials(), embeddings(), interval="trials", **options),
        lambda **options: evaluate_protocol(protocol(), embeddings(), **options),
    ],
    ids=["trials", "protocol"],
)
def test_the_old_name_of_progress_is_accepted_with_a_warning(score: Callable[..., object]) -> None:
    progress = CountedProgress()
    with pytest.warns(DeprecationWarning, match=r"^watch= is now progress=; the old name") as seen:
        report = score(watch=progress)
    assert seen[0].filename == __file__
    assert report == score()
    assert len(progress.tasks) == 1
    with pytest.raises(TypeError, match=r"watch= is the old name of progress=; give only progress"):
        score(watch=progress, progress=progress)


def test_an_old_progress_that_yields_nothing_is_accepted() -> None:
    @contextmanager
    def unwatched(task: str, *, unit: str, total: int) -> Iterator[None]:
        del task, unit, total
        yield

    options: dict[str, Any] = {"watch": unwatched}
    with pytest.warns(DeprecationWarning, match="watch="):
        report = evaluate_trials(trials(), embeddings(), interval="trials", **options)
    assert report.intervals is not None


def test_reports_compare_and_print_without_their_scores() -> None:
    report = evaluate_trials(trials(), embeddings())
    assert "sweep" not in repr(report)
    assert isinstance(report.sweep, Sweep)
    assert report == evaluate_trials(trials(), embeddings())


# -- Open-set protocols ----------------------------------------------------------------------------

# Speakers 0 to 4 are enrolled with two utterances; everybody's other two are probes.
KNOWN = 5
ENROLLED = [row for row in range(4 * KNOWN) if row % 4 < 2]
PROBES = [row for row in range(32) if row % 4 >= 2]


def label(row: int) -> str:
    """As the release has it: known speakers are numbered, all others have the number after."""
    return str(min(row // 4, KNOWN))


def protocol(enrolled: Sequence[int] = ENROLLED, probes: Sequence[int] = PROBES) -> OpenSetProtocol:
    return OpenSetProtocol(
        name="Small_5/perspk2",
        gallery=[DASHED[row] for row in enrolled],
        gallery_labels=[label(row) for row in enrolled],
        probes=[DASHED[row] for row in probes],
        probe_labels=[label(row) for row in probes],
    )


def rates(
    enrolled: Sequence[int] = ENROLLED, probes: Sequence[int] = PROBES, **options: Any
) -> Any:
    return open_set_identification(
        VECTORS[enrolled],
        [label(row) for row in enrolled],
        VECTORS[probes],
        [label(row) for row in probes],
        **options,
    )


def test_a_protocol_gives_the_rates_of_its_embeddings() -> None:
    report = evaluate_protocol(protocol(), embeddings())
    assert report.protocol == "Small_5/perspk2"
    assert (report.gallery, report.enrolled) == (10, 10)
    assert (report.probes, report.scored) == (16, 16)
    assert report.missing == report.lost_speakers == []
    assert report.result == rates()
    assert (report.result.speakers, report.result.known, report.result.unknown) == (5, 10, 6)
    # Neither perfect nor hopeless, or much of what follows would hold by accident.
    assert 0.3 < report.result.auc < report.result.rank1 < 1


@pytest.mark.parametrize(
    "options",
    [
        {"far": (0.5, 0.2)},
        {"method": "voxblink2"},
        {"enrolment": "max"},
        {"enrolment": "normalized-mean"},
        {"device": "cpu"},
    ],
    ids=str,
)
def test_choices_reach_the_identification(options: dict[str, Any]) -> None:
    assert evaluate_protocol(protocol(), embeddings(), **options).result == rates(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"far": (2,)}, "far must lie between 0 and 1, got 2"),
        ({"method": "grid"}, "method is 'grid'; allowed are"),
        ({"enrolment": "median"}, "enrolment is 'median'; allowed are"),
        ({"device": "abacus"}, "device is 'abacus', and PyTorch cannot use it"),
    ],
    ids=str,
)
def test_choices_that_are_not_possible_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        evaluate_protocol(protocol(), embeddings(), **options)


@pytest.mark.parametrize("row", [ENROLLED[3], PROBES[3]])
def test_an_utterance_without_an_embedding_is_an_error(row: int) -> None:
    with pytest.raises(
        ScoringError,
        match=r"Small_5/perspk2: 1 of 26 utterances have no embedding in memory\. Names without a "
        rf"match: '{DASHED[row]}' \(nearest: 'id000001/abcdefghij1/0000\d.wav'\)",
    ):
        evaluate_protocol(protocol(), without(row))


def test_skipped_probes_are_counted_and_change_nothing_else() -> None:
    gone = PROBES[1], PROBES[12]  # a known and an unknown one
    report = evaluate_protocol(protocol(), without(*gone), missing="skip")
    assert (report.gallery, report.enrolled, report.probes, report.scored) == (10, 10, 16, 14)
    assert report.missing == [DASHED[row] for row in gone]
    assert report.lost_speakers == []
    assert report.result == rates(probes=[row for row in PROBES if row not in gone])
    assert (report.result.known, report.result.unknown) == (9, 5)


def test_a_speaker_is_enrolled_with_what_is_left() -> None:
    gone = ENROLLED[4]
    report = evaluate_protocol(protocol(), without(gone), missing="skip")
    assert (report.gallery, report.enrolled, report.scored) == (10, 9, 16)
    assert report.missing == [DASHED[gone]]
    assert report.lost_speakers == []
    assert report.result == rates(enrolled=[row for row in ENROLLED if row != gone])


def test_probes_of_a_speaker_who_lost_all_enrolled_utterances_are_not_unknown() -> None:
    # Speaker 2 loses both enrolled utterances and keeps its probes.
    report = evaluate_protocol(protocol(), without(8, 9), missing="skip")
    left = [row for row in ENROLLED if row // 4 != 2]
    probes = [row for row in PROBES if row // 4 != 2]
    assert report.lost_speakers == ["2"]
    assert report.missing == [DASHED[8], DASHED[9]]
    assert (report.enrolled, report.scored, report.probes) == (8, 14, 16)
    assert (report.result.speakers, report.result.known, report.result.unknown) == (4, 8, 6)
    assert report.result == rates(left, probes)


def test_a_probe_may_be_lost_twice_over() -> None:
    # Without embedding, and of a speaker who is not enrolled any more.
    report = evaluate_protocol(protocol(), without(8, 9, 10, 11), missing="skip")
    assert report.missing == [DASHED[row] for row in (8, 9, 10, 11)]
    assert report.lost_speakers == ["2"]
    assert report.scored == 14


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (PROBES, "no gallery utterance that could be scored has an embedding"),
        (ENROLLED, "no probe that could be scored has an embedding"),
        # Probes of speaker 0 only, of whom nothing is enrolled.
        ([2, 3, 4, 5], "no probe that could be scored has an embedding"),
        ([*ENROLLED, 2, 6], "all of them are in the gallery; FAR needs unknown probes"),
        ([*ENROLLED, 30, 31], "none of them is in the gallery; DIR needs known probes"),
    ],
)
def test_skipping_may_leave_nothing_to_score_which_is_an_error(
    kept: list[int], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        evaluate_protocol(protocol(), embeddings(kept), missing="skip")


# -- Protocols on the disk -------------------------------------------------------------------------


def write(folder: Path, gallery: Sequence[str], probe: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gallery").write_text("".join(f"{line}\n" for line in gallery))
    (folder / "probe").write_text("".join(f"{line}\n" for line in probe))


def test_one_folder_is_one_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "perspk2"
    gallery = [f"{DASHED[row]} {label(row)}" for row in ENROLLED]
    write(folder, gallery, [f"{DASHED[row]}\t{label(row)}" for row in PROBES])
    (read,) = read_protocols(folder)
    assert read == dataclasses.replace(protocol(), name="perspk2")
    monkeypatch.chdir(folder)
    (read,) = read_protocols(".")
    assert read.name == "perspk2"
    assert evaluate_protocol(read, embeddings()).result == rates()


def test_the_release_has_nine_which_come_by_size_of_gallery(tmp_path: Path) -> None:
    sizes = {"Large_12k": 9, "Medium_1.2k": 6, "Small_120": 3}
    for name, speakers in sizes.items():
        for each in (5, 1, 3):
            gallery = [
                f"id{s:05}-abcdefghijk-{n:05} {s}" for s in range(speakers) for n in range(each)
            ]
            write(tmp_path / name / f"perspk{each}", gallery, ["p0 0", f"p1 {speakers}"])
    (tmp_path / "README").write_text("not a protocol")
    read = read_protocols(str(tmp_path))
    assert [protocol.name for protocol in read] == [
        f"{name}/perspk{each}"
        for name in ("Small_120", "Medium_1.2k", "Large_12k")
        for each in (1, 3, 5)
    ]
    assert [len(protocol.gallery) for protocol in read] == [3, 9, 15, 6, 18, 30, 9, 27, 45]
    assert read[4].gallery[3] == "id00001-abcdefghijk-00000"
    assert read[4].gallery_labels[3] == "1"
    assert (read[4].probes, read[4].probe_labels) == (["p0", "p1"], ["0", "6"])


@pytest.mark.parametrize("inner", ["data/ossi", "ossi"])
def test_the_release_may_be_named_and_only_its_protocols_are_read(
    inner: str, tmp_path: Path
) -> None:
    write(tmp_path / inner / "Small_120" / "perspk1", ["a 0", "b 1"], ["c 0", "d 2"])
    # A folder of a speaker in the release is no protocol, whatever it holds.
    write(tmp_path / "meta" / "id000000", ["a 0"], ["c 0"])
    assert [protocol.name for protocol in read_protocols(tmp_path)] == ["Small_120/perspk1"]


@pytest.mark.parametrize("kind", ["empty", "nowhere", "file"])
def test_a_folder_without_protocols_is_an_error(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    if kind == "file":
        folder.write_text("x 0\n")
    message = (
        "contains no open-set protocol: a folder with the" if kind == "empty" else "is not a folder"
    )
    with pytest.raises(ScoringError, match=f"{kind} {message}"):
        read_protocols(folder)


@pytest.mark.parametrize("name", ["gallery", "probe"])
def test_half_a_protocol_is_an_error_and_not_left_out(name: str, tmp_path: Path) -> None:
    for folder in ("Small_2/perspk1", "Small_2/perspk3"):
        write(tmp_path / folder, ["a 0", "b 1"], ["c 0", "d 2"])
    (tmp_path / "Small_2/perspk3" / name).unlink()
    with pytest.raises(ScoringError, match=f"perspk3.*{name}"):
        read_protocols(tmp_path)


@pytest.mark.parametrize("name", ["gallery", "probe"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("only-a-name", "'only-a-name' has 1 word, but line 1 has 2"),
        ("name 0 more", "'name 0 more' has 3 words, but line 1 has 2"),
    ],
)
def test_a_bad_line_is_named_with_its_file(
    name: str, line: str, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "Small_2" / "perspk1"
    write(folder, ["a 0", "b 1"], ["c 0", "d 2"])
    (folder / name).write_text(f"a 0\nb 1\n{line}\nd 2\n")
    with pytest.raises(ScoringError, match=rf"{folder / name}, line 3: {message}"):
        read_protocols(tmp_path)


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, ["a 0"], [])
    with pytest.raises(
        ScoringError, match=r"probe is empty\. Each line holds an utterance and its"
    ):
        read_protocols(tmp_path)


# -- Before the first product ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_target": (0.01, 2)}, "p_target must lie between 0 and 1, got 2"),
        ({"top_n": 21}, "top_n must lie between 2 and the size of the cohort, 20; got 21"),
        ({"cohort": Embeddings(["a"], COHORT[:1], "cohort")}, "cohort has one row"),
        ({"cohort": Embeddings(["a", "b"], COHORT[:2, :3], "c")}, "cohort has 3 dimensions where"),
        (
            {"cohort": Embeddings(list("abcdefghij"), 0 * COHORT[:10], "c")},
            "cohort: row 0 has the length 0",
        ),
        ({"trials": trials(~TARGETS)}, "labels are all 0; .* among the 448 with"),
        (
            {
                "embeddings": Embeddings([f"a{row}" for row in range(32)], VECTORS, "memory"),
                "trials": TrialList(["a1", "a2"], np.array([0]), np.array([1]), np.array([True])),
            },
            "labels are all 1; .* among the 1 with",
        ),
        (
            {
                "interval": "speakers",
                "embeddings": Embeddings([f"a{row}" for row in range(32)], VECTORS, "memory"),
                "trials": dataclasses.replace(trials(), names=[f"a{row}" for row in range(32)]),
            },
            "'a0' does not contain its speaker",
        ),
    ],
    ids=["prior", "top-n", "one row", "dimensions", "zero row", "classes", "skipped", "names"],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_scored(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(trial_scores, "score_trials", None)
    given: dict[str, Any] = {
        "trials": trials(),
        "embeddings": embeddings(),
        "cohort": cohort(),
        "top_n": 10,
    }
    given |= options
    with pytest.raises(ScoringError, match=message):
        evaluate_trials(given.pop("trials"), given.pop("embeddings"), **given)
