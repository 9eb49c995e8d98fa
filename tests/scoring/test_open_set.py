"""Open-set identification against its definition, whatever the order, names, ties and blocks."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import FrozenInstanceError
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.score_oracle import Array, Protocol, all_cosines, golden, golden_protocol

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import blockwise, open_set
from voxblink2_lib.scoring.open_set import (
    Enrolment,
    Method,
    OpenSetResult,
    open_set_identification,
)

MEBIBYTE = 1 << 20
ENROLMENTS: tuple[Enrolment, ...] = ("mean", "normalized-mean", "max")
METHODS: tuple[Method, ...] = ("exact", "voxblink2")
GOLDEN_CASES = [pytest.param(case, id=f"seed{case['case']['seed']}") for case in golden("ossi")]
SPEAKERS = 3


class Probe(NamedTuple):
    """A probe of a protocol whose scores are known: ``SPEAKERS`` axes, and one that nobody has."""

    label: int  # from SPEAKERS on it is not in the gallery
    nearest: int
    tenths: int  # of the cosine with the nearest; all others are 0

    @property
    def right(self) -> bool:
        return self.label == self.nearest

    @property
    def known(self) -> bool:
        return self.label < SPEAKERS


class Steps(NamedTuple):
    """What the definition says about probes."""

    dir: dict[float, Fraction]
    auc: Fraction
    rank1: Fraction
    known: int
    unknown: int


PROBES = (
    st.lists(
        st.builds(
            Probe, st.integers(0, SPEAKERS + 2), st.integers(0, SPEAKERS - 1), st.integers(1, 9)
        ),
        min_size=2,
        max_size=30,
    )
    .filter(lambda probes: any(probe.known for probe in probes))
    .filter(lambda probes: any(not probe.known for probe in probes))
)
FARS = st.lists(
    st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.1, 0.01, 0.29, 1 / 3]), st.floats(0, 1)),
    min_size=1,
    max_size=4,
)


def protocol_of(probes: list[Probe]) -> Protocol:
    """Return embeddings whose cosines are whole tenths, and exactly equal where these are."""
    rows = np.zeros((len(probes), SPEAKERS + 1))
    for row, probe in zip(rows, probes, strict=True):
        row[probe.nearest] = probe.tenths / 10
        row[-1] = math.sqrt(1 - (probe.tenths / 10) ** 2)
    return Protocol(
        np.eye(SPEAKERS, SPEAKERS + 1),
        np.arange(SPEAKERS),
        rows,
        np.array([probe.label for probe in probes]),
    )


def by_definition(probes: list[Probe], fars: list[float]) -> Steps:
    known = [probe for probe in probes if probe.known]
    unknown = [probe for probe in probes if not probe.known]

    def rates(threshold: float) -> tuple[float, Fraction]:
        passing = sum(probe.tenths > threshold for probe in unknown)
        right = sum(probe.right and probe.tenths > threshold for probe in known)
        # In floats: 29 of 100 are a rate of 0.29 to whoever writes 0.29.
        return passing / len(unknown), Fraction(right, len(known))

    thresholds = [-math.inf, math.inf, *(probe.tenths for probe in probes)]
    curve = [rates(threshold) for threshold in thresholds]
    pairs = [
        Fraction(1 + (probe.tenths > other.tenths) - (probe.tenths < other.tenths), 2) * probe.right
        for probe in known
        for other in unknown
    ]
    return Steps(
        {far: max(rate for at, rate in curve if at <= far) for far in fars},
        Fraction(sum(pairs), len(pairs)),
        Fraction(sum(probe.right for probe in known), len(known)),
        len(known),
        len(unknown),
    )


def identify(protocol: Protocol, **options: Any) -> OpenSetResult:
    return open_set_identification(*protocol, **options)


def random_protocol(
    seed: int, *, noise: float = 0.14, each: int = 3, speakers: int = 25
) -> Protocol:
    case = {"seed": seed, "speakers": speakers, "enrol_per_speaker": each, "dim": 16}
    return golden_protocol({**case, "known_probes": 200, "unknown_probes": 300, "noise": noise})


# -- Published numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_rates_of_the_published_method(case: dict[str, Any]) -> None:
    result = identify(golden_protocol(case["case"]), method="voxblink2")
    published = case["voxblink2_grid"]
    assert {f"dir@far={far}" for far in result.dir} == set(published)
    for far, rate in result.dir.items():
        assert rate == pytest.approx(published[f"dir@far={far}"], rel=0, abs=1e-4)
    assert result.auc == pytest.approx(case["voxblink2_auc"], rel=0, abs=1e-4)


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_the_exact_method_keeps_to_the_far_where_the_published_lets_more_pass(
    case: dict[str, Any],
) -> None:
    protocol = golden_protocol(case["case"])
    exact, published = identify(protocol), identify(protocol, method="voxblink2")
    fars, _, thresholds = exact.curve
    for far, rate in exact.dir.items():
        assert fars[thresholds == exact.thresholds[far]] <= far
        # Its thresholds are no grid, so it may find a little more.
        assert rate <= published.dir[far] + 0.005
    assert exact.rank1 == published.rank1
    assert exact.auc == pytest.approx(case["voxblink2_auc"], abs=0.005)
    for result in (exact, published):
        counts = {"known": result.known, "unknown": result.unknown}
        assert counts == {kind: case["case"][f"{kind}_probes"] for kind in counts}
        assert result.speakers == case["case"]["speakers"]


# -- Against the definition ------------------------------------------------------------------------
@given(probes=PROBES, fars=FARS, enrolment=st.sampled_from(ENROLMENTS))
def test_exact_rates_are_those_of_the_definition(
    probes: list[Probe], fars: list[float], enrolment: Enrolment
) -> None:
    result = identify(protocol_of(probes), far=fars, enrolment=enrolment)
    expected = by_definition(probes, fars)
    assert result.dir == {far: float(rate) for far, rate in expected.dir.items()}
    assert result.auc == pytest.approx(float(expected.auc), rel=0, abs=1e-12)
    assert result.rank1 == float(expected.rank1)
    assert (result.known, result.unknown) == (expected.known, expected.unknown)
    assert result.speakers == SPEAKERS
    assert result.fnir == {far: 1 - rate for far, rate in result.dir.items()}


@given(probes=PROBES, fars=FARS, method=st.sampled_from(METHODS))
def test_thresholds_have_the_rates_that_are_said(
    probes: list[Probe], fars: list[float], method: Method
) -> None:
    result = identify(protocol_of(probes), far=fars, method=method)
    fars_of_curve, dirs_of_curve, thresholds = result.curve
    assert len(fars_of_curve) == len(dirs_of_curve) == len(thresholds)
    # The scores themselves are to be had from a curve: they are where its thresholds are.
    tenths = sorted({probe.tenths for probe in probes if not probe.known}, reverse=True)
    if method == "exact":
        np.testing.assert_allclose(thresholds[:-1], np.array(tenths) / 10, rtol=1e-6)
        assert thresholds[-1] == -math.inf
    known = [probe for probe in probes if probe.known]
    unknown = [probe for probe in probes if not probe.known]
    for far, threshold in result.thresholds.items():
        # No score lies between a tenth and the same less rounding.
        above, at_least = (
            sum(probe.right and probe.tenths > threshold * 10 + slack for probe in known)
            / len(known)
            for slack in (1e-5, -1e-5)
        )
        if method == "exact":
            passing = sum(probe.tenths > threshold * 10 + 1e-5 for probe in unknown) / len(unknown)
            assert result.dir[far] == above
            assert passing <= far
        # A threshold of the grid may equal a score but for rounding.
        assert above <= result.dir[far] <= at_least
    assert (np.diff(fars_of_curve) >= 0).all()
    assert (np.diff(dirs_of_curve) >= 0).all()


@fewer_examples(2)
@given(probes=PROBES, far=st.floats(0, 1))
def test_the_published_method_is_that_of_its_description(probes: list[Probe], far: float) -> None:
    result = identify(protocol_of(probes), far=[far], method="voxblink2")
    unknown = [probe.tenths for probe in probes if not probe.known]
    known = [probe for probe in probes if probe.known]
    low, high = min(unknown), max(unknown)
    points = []
    for step in range(1000):
        # Fractions: where a threshold meets a score, rounding must not decide. It does there.
        threshold = low + Fraction(high - low, 999) * step
        near = any(0 < abs(probe.tenths - threshold) < Fraction(1, 10**5) for probe in probes)
        assert not near
        points.append(
            (
                sum(score > threshold for score in unknown) / len(unknown),
                sum(probe.right and probe.tenths > threshold for probe in known) / len(known),
                threshold.denominator == 1 and low < threshold < high,
            )
        )
    # A threshold on a score may fall to either side in float32; then the definition is not told.
    assume(not any(on_score for _, _, on_score in points))
    closest = min(abs(at - far) for at, _, _ in points)
    expected = max(rate for at, rate, _ in points if abs(at - far) <= closest + 1e-12)
    assert result.dir[far] == expected
    inside = [(at, rate) for at, rate, _ in points if at >= 1e-5 and rate >= 1e-5][::-1]
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(inside))
    assert result.auc == pytest.approx(area, abs=1e-9)


def slow_models(protocol: Protocol, enrolment: Enrolment) -> tuple[Array, Array]:
    """Return models in float64, and the label of each."""
    gallery = protocol.gallery.astype(float)
    lengths = np.linalg.norm(gallery, axis=1, keepdims=True)
    if enrolment == "max":
        return gallery, protocol.gallery_labels
    if enrolment == "normalized-mean":
        gallery = gallery / lengths
    labels = np.array(sorted(set(protocol.gallery_labels.tolist())))
    means = [gallery[protocol.gallery_labels == label].mean(axis=0) for label in labels]
    return np.stack(means), labels


@pytest.mark.parametrize("enrolment", ENROLMENTS)
@pytest.mark.parametrize(("seed", "noise"), [(1, 0.1), (2, 0.3), (3, 0.6)])
def test_enrolment_is_that_of_a_loop_in_float64(
    seed: int, noise: float, enrolment: Enrolment
) -> None:
    protocol = random_protocol(seed, noise=noise)
    models, owners = slow_models(protocol, enrolment)
    cosines = all_cosines(protocol.probes, models)
    scores, names = cosines.max(axis=1), owners[cosines.argmax(axis=1)]
    known = np.isin(protocol.probe_labels, protocol.gallery_labels)
    right = known & (names == protocol.probe_labels)
    result = identify(protocol, enrolment=enrolment, far=[0.2, 0.05, 0.0])
    assert result.rank1 == right.sum() / known.sum()
    assert 0 < result.rank1 < 1 or noise == 0.1
    above = scores[known][:, None] > scores[~known]
    assert result.auc == pytest.approx((above * right[known][:, None]).mean(), abs=1e-6)
    for far, rate in result.dir.items():
        threshold = np.sort(scores[~known])[::-1][int(far * 300)]
        assert rate == (right & (scores > threshold)).sum() / known.sum()
        assert result.thresholds[far] == pytest.approx(threshold, abs=1e-6)
    assert result.enrolment == enrolment


def test_max_is_the_best_of_a_speakers_rows() -> None:
    protocol = random_protocol(4)
    # Each utterance a speaker of its own; whoever has the nearest is found.
    apart = identify(
        protocol._replace(
            gallery_labels=np.arange(len(protocol.gallery)),
            probe_labels=np.where(protocol.probe_labels < 25, 3 * protocol.probe_labels, 10**6),
        )
    )
    together = identify(protocol, enrolment="max")
    np.testing.assert_array_equal(apart.curve[0], together.curve[0])
    np.testing.assert_allclose(apart.curve[2], together.curve[2], rtol=1e-6)
    assert together.rank1 > apart.rank1


def test_one_utterance_a_speaker_is_the_same_for_every_enrolment() -> None:
    protocol = random_protocol(5, each=1)
    first, two, three = (identify(protocol, enrolment=enrolment) for enrolment in ENROLMENTS)
    assert first.dir == two.dir == three.dir
    assert first.auc == pytest.approx(two.auc, abs=1e-6) == pytest.approx(three.auc, abs=1e-6)


def test_a_loud_utterance_pulls_the_plain_mean_only() -> None:
    protocol = Protocol(
        np.array([[100.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.7, 0.7]]),
        np.array([0, 0, 1]),
        np.array([[0.0, 1.0, 0.1], [0.0, 0.0, 1.0]]),
        np.array([0, 9]),
    )
    assert identify(protocol, enrolment="mean").rank1 == 0
    assert identify(protocol, enrolment="max").rank1 == 1


# -- False acceptance rates ------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [7, 10, 49, 100, 1000])
def test_a_far_that_is_a_share_of_the_unknown_probes_lets_so_many_pass(unknown: int) -> None:
    # Known probes in between the unknown ones, so that each that passes tells.
    generator = np.random.default_rng(0)
    angles = np.sort(generator.permutation(100_000)[: 2 * unknown]) / 100_000
    probes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.tile([5, 0], unknown)  # the nearest is unknown, then known, and so on
    protocol = Protocol(np.array([[1.0, 0.0]]), np.array([0]), probes, labels)
    fars = [passing / unknown for passing in range(unknown + 1)]
    fars += [round(far, 2) for far in fars]  # 0.29 and its like
    result = identify(protocol, far=fars)
    for far in fars:
        passing = max(k for k in range(unknown + 1) if k / unknown <= far)
        assert result.dir[far] == min(passing, unknown) / unknown


def test_29_of_100_unknown_probes_pass_at_a_far_of_029() -> None:
    tenths = [9] * 29 + [5] * 71
    probes = [Probe(SPEAKERS, 0, score) for score in tenths] + [Probe(0, 0, 7), Probe(1, 1, 6)]
    below = math.nextafter(0.29, 0)
    result = identify(protocol_of(probes), far=[below, 0.29])
    assert result.dir == {below: 0.0, 0.29: 1.0}


def test_a_far_of_0_lets_none_pass_and_one_of_1_all() -> None:
    probes = [Probe(0, 0, 9), Probe(1, 1, 6), Probe(2, 0, 8), Probe(3, 0, 7), Probe(4, 1, 2)]
    probes += [Probe(0, 0, 1), Probe(1, 1, 7)]
    result = identify(protocol_of(probes), far=[0, 1])
    # 7 ties with the highest unknown and is not above it; the third is not identified.
    assert result.dir == {0: 1 / 5, 1: result.rank1}
    assert result.rank1 == 4 / 5
    assert result.thresholds[1] == -math.inf
    assert result.fnir == {0: 1 - 1 / 5, 1: 1 - 4 / 5}


def test_ties_are_one_step() -> None:
    # Half of the unknown probes tie at the top: at any FAR below 1/2 they all stay out.
    probes = [Probe(3, 0, 8)] * 5 + [Probe(3, 0, 2)] * 5 + [Probe(0, 0, 8), Probe(1, 1, 9)]
    result = identify(protocol_of(probes), far=[0.1, 0.49, 0.5])
    assert result.dir == {0.1: 0.5, 0.49: 0.5, 0.5: 1.0}
    # The tie counts by half over half of the range.
    assert result.auc == pytest.approx((1 + (0.5 * 0.5 + 0.5)) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_all_unknown_probes_may_tie(method: Method) -> None:
    probes = [Probe(3, 0, 5)] * 4 + [Probe(0, 0, 9), Probe(1, 1, 1)]
    result = identify(protocol_of(probes), far=[0.5], method=method)
    assert result.dir == {0.5: 0.5}


def test_perfect_and_hopeless_protocols() -> None:
    perfect = [Probe(0, 0, 9), Probe(1, 1, 8), Probe(3, 2, 7), Probe(4, 0, 1)]
    result = identify(protocol_of(perfect))
    assert set(result.dir.values()) == {1.0}
    assert (result.auc, result.rank1) == (1, 1)
    hopeless = [Probe(0, 1, 9), Probe(1, 0, 8), Probe(3, 2, 7), Probe(4, 0, 1)]
    result = identify(protocol_of(hopeless))
    assert set(result.dir.values()) == {0.0}
    assert (result.auc, result.rank1) == (0, 0)


# -- What must not matter --------------------------------------------------------------------------


def outcome(result: OpenSetResult) -> tuple[Any, ...]:
    return (result, *(array.tolist() for array in result.curve))


@pytest.mark.parametrize("enrolment", ENROLMENTS)
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_does_not_matter(method: Method, enrolment: Enrolment) -> None:
    protocol = random_protocol(6, noise=0.3)
    expected = outcome(identify(protocol, enrolment=enrolment, method=method))
    for seed in range(5):
        generator = np.random.default_rng(seed)
        gallery = generator.permutation(len(protocol.gallery))
        probes = generator.permutation(len(protocol.probes))
        shuffled = Protocol(
            protocol.gallery[gallery],
            protocol.gallery_labels[gallery],
            protocol.probes[probes],
            protocol.probe_labels[probes],
        )
        assert outcome(identify(shuffled, enrolment=enrolment, method=method)) == expected


@given(probes=PROBES, order=st.randoms(use_true_random=False))
def test_the_order_of_tied_probes_does_not_matter(probes: list[Probe], order: Any) -> None:
    shuffled = list(probes)
    order.shuffle(shuffled)
    fars = [0.0, 0.1, 0.5, 1.0]
    for method in METHODS:
        first = identify(protocol_of(probes), far=fars, method=method)
        other = identify(protocol_of(shuffled), far=fars, method=method)
        assert outcome(first) == outcome(other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "relabel",
    [
        lambda label: f"id{label:05}",
        lambda label: f"speaker {-label}",  # which sorts otherwise
        lambda label: 10**12 - 7 * label,
        lambda label: -label,
        lambda label: "ü" * (label + 1),
    ],
)
def test_the_names_of_speakers_do_not_matter(relabel: Any, method: Method) -> None:
    protocol = random_protocol(7, noise=0.3)
    expected = outcome(identify(protocol, method=method))
    renamed = protocol._replace(
        gallery_labels=np.array([relabel(label) for label in protocol.gallery_labels.tolist()]),
        probe_labels=np.array([relabel(label) for label in protocol.probe_labels.tolist()]),
    )
    assert outcome(identify(renamed, method=method)) == expected


def test_unknown_probes_may_have_any_labels_and_stand_anywhere() -> None:
    protocol = random_protocol(8, noise=0.3)
    expected = outcome(identify(protocol))
    generator = np.random.default_rng(0)
    unknown = protocol.probe_labels == 25
    labels = protocol.probe_labels.copy()
    labels[unknown] = generator.choice([-5, 25, 26, 1000, 10**15], unknown.sum())
    assert outcome(identify(protocol._replace(probe_labels=labels))) == expected
    order = generator.permutation(len(labels))
    shuffled = protocol._replace(probes=protocol.probes[order], probe_labels=labels[order])
    assert outcome(identify(shuffled)) == expected
    # Among the labels of the gallery, too: 25 odd speakers, unknown ones are even.
    between = np.where(unknown, 2 * generator.integers(-3, 30, len(labels)), 2 * labels + 1)
    odd = protocol._replace(gallery_labels=2 * protocol.gallery_labels + 1, probe_labels=between)
    assert outcome(identify(odd)) == expected


def test_labels_of_signed_and_unsigned_integers_agree_however_large() -> None:
    protocol = random_protocol(9, noise=0.3)
    expected = outcome(identify(protocol))
    large = 2**60
    renamed = protocol._replace(
        gallery_labels=(protocol.gallery_labels + large).astype(np.uint64),
        probe_labels=protocol.probe_labels + large,
    )
    assert renamed.probe_labels.dtype == np.int64
    assert outcome(identify(renamed)) == expected


def test_lengths_of_probes_do_not_matter() -> None:
    protocol = random_protocol(10, noise=0.3)
    lengths = np.random.default_rng(0).uniform(0.1, 50, (len(protocol.probes), 1))
    result = identify(protocol._replace(probes=protocol.probes * lengths))
    assert result.dir == identify(protocol).dir
    assert result.rank1 == identify(protocol).rank1


@pytest.mark.parametrize("enrolment", ENROLMENTS)
def test_memory_blocks_and_engines_do_not_show(
    enrolment: Enrolment, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = random_protocol(11, noise=0.3)
    expected = outcome(identify(protocol, enrolment=enrolment))
    for options in ({"memory_bytes": MEBIBYTE}, {"device": "cpu"}):
        assert outcome(identify(protocol, enrolment=enrolment, **options)) == expected
    monkeypatch.setattr(blockwise, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(blockwise, "_BLOCK_COLUMNS", 4)
    assert outcome(identify(protocol, enrolment=enrolment)) == expected
    assert outcome(identify(protocol, enrolment=enrolment, device="cpu")) == expected
    if hasattr(open_set, "_SPEAKERS"):
        monkeypatch.setattr(open_set, "_SPEAKERS", 3)
        assert outcome(identify(protocol, enrolment=enrolment)) == expected


def test_speakers_of_different_numbers_of_utterances() -> None:
    protocol = random_protocol(12, each=6)
    generator = np.random.default_rng(0)
    kept = np.unique(np.concatenate([generator.choice(150, 60), np.arange(0, 150, 6)]))
    uneven = protocol._replace(
        gallery=protocol.gallery[kept], gallery_labels=protocol.gallery_labels[kept]
    )
    assert len(set(np.bincount(uneven.gallery_labels))) > 2
    for enrolment in ENROLMENTS:
        models, owners = slow_models(uneven, enrolment)
        names = owners[all_cosines(uneven.probes, models).argmax(axis=1)]
        known = uneven.probe_labels < 25
        expected = (names == uneven.probe_labels)[known].mean()
        assert identify(uneven, enrolment=enrolment).rank1 == pytest.approx(expected)


def test_memory_beside_arguments_models_and_scores_is_bounded() -> None:
    generator = np.random.default_rng(0)
    models, rows, dimensions = 9000, 4000, 32
    protocol = Protocol(
        generator.normal(size=(models, dimensions)).astype(np.float32),
        np.arange(models),
        generator.normal(size=(rows, dimensions)).astype(np.float32),
        np.arange(rows) * 3,
    )
    identify(protocol, memory_bytes=MEBIBYTE)
    tracemalloc.start()
    identify(protocol, memory_bytes=MEBIBYTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Models in float32 and while they are summed in float64; some numbers for each row.
    assert peak < MEBIBYTE + models * dimensions * (4 + 2 * 8) + 100 * (models + rows)


# -- Arguments -------------------------------------------------------------------------------------


def test_the_result_says_what_was_asked() -> None:
    protocol = random_protocol(13)
    result = identify(protocol, far=(0.3, 0.02), enrolment="max", method="voxblink2")
    assert list(result.dir) == list(result.thresholds) == list(result.fnir) == [0.3, 0.02]
    assert (result.method, result.enrolment) == ("voxblink2", "max")
    numbers = [*result.dir.values(), *result.thresholds.values(), result.auc, result.rank1]
    assert {type(number) for number in numbers} == {float}
    assert {type(count) for count in (result.speakers, result.known, result.unknown)} == {int}
    with pytest.raises(FrozenInstanceError):
        result.auc = 1.0  # type: ignore[misc]
    assert "curve" not in repr(result)
    assert list(identify(protocol).dir) == [0.1, 0.01, 0.001]


def test_lists_and_tensors_serve() -> None:
    protocol = random_protocol(14)
    expected = outcome(identify(protocol))
    lists = Protocol(*(array.tolist() for array in protocol))
    assert outcome(identify(lists)) == expected
    tensors = Protocol(*(cast(Any, torch.tensor(array)) for array in protocol))
    assert (
        outcome(identify(tensors, far=torch.tensor([0.1, 0.01, 0.001]).tolist()))[1:]
        == (expected[1:])
    )


GALLERY = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
VALID: dict[str, Any] = {
    "gallery": GALLERY,
    "gallery_labels": [0, 1, 1],
    "probes": [[1.0, 0.1], [0.2, 1.0], [-1.0, 0.0], [0.5, 0.5]],
    "probe_labels": [0, 1, 7, 8],
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gallery": [], "gallery_labels": []}, r"gallery is empty"),
        ({"gallery": np.empty((0, 2)), "gallery_labels": []}, r"gallery is empty, its shape is"),
        ({"probes": [], "probe_labels": []}, r"probes is empty"),
        ({"gallery_labels": [0, 1]}, r"gallery has 3 rows and gallery_labels 2; both must agree"),
        ({"probe_labels": [0, 1, 7]}, r"probes has 4 rows and probe_labels 3; both must agree"),
        ({"probe_labels": [0, 1, 1, 0]}, r"probe_labels: all of them are in the gallery"),
        ({"probe_labels": [5, 6, 7, 8]}, r"probe_labels: none of them is in the gallery"),
        (
            {"probe_labels": ["0", "1", "7", "8"]},
            r"gallery_labels are int64 and probe_labels <U1; both must be integers or both strings",
        ),
        ({"gallery_labels": ["a", "b", "b"]}, r"gallery_labels are <U1 and probe_labels int64"),
        ({"probe_labels": [0, 1, "x", "y"]}, r"probe_labels|gallery_labels"),
        (
            {"gallery_labels": [0.0, 1.0, 1.0]},
            r"gallery_labels must be integers or strings, got fl",
        ),
        (
            {"gallery_labels": [True, False, False]},
            r"gallery_labels must be .* or strings, got bool",
        ),
        (
            {"probe_labels": [0, 1, None, 8]},
            r"probe_labels must be integers or strings, all of one",
        ),
        ({"probe_labels": [[0], [1], [7], [8]]}, r"probe_labels must have one dimension, got sha"),
        ({"probes": np.ones((4, 3))}, r"probes has 3 dimensions where 2 are needed"),
        ({"probes": np.ones(4)}, r"probes must have the shape \(rows, dimensions\), got \(4,\)"),
        ({"gallery": [[1, 0], [0], [1, 1]]}, r"gallery has rows of different lengths"),
        ({"gallery": [["a", "b"]] * 3}, r"gallery must be numbers, got <U1"),
        ({"gallery": [[1, 0], [0, 1], [0, math.nan]]}, r"gallery must be finite, got nan in row 2"),
        ({"probes": [[1, 0], [math.inf, 1], [1, 1], [1, 0]]}, r"probes must be finite, got inf in"),
        ({"gallery": [[1, 0], [0, 0], [1, 1]]}, r"gallery: row 1 has the length 0"),
        ({"probes": [[1, 0], [1, 1], [1, 1], [0, 0]]}, r"probes: row 3 has the length 0"),
        ({"far": []}, r"far is empty"),
        ({"far": [0.1, -0.1]}, r"far must lie between 0 and 1, got -0\.1"),
        ({"far": [1.1]}, r"far must lie between 0 and 1, got 1\.1"),
        ({"far": [math.nan]}, r"far must lie between 0 and 1, got nan"),
        ({"enrolment": "median"}, r"enrolment is 'median'; allowed are 'mean', 'normalized-mean'"),
        ({"method": "grid"}, r"method is 'grid'; allowed are 'exact' and 'voxblink2'"),
        ({"memory_bytes": 1000}, r"memory_bytes must be at least 1,048,576, got 1,000"),
        ({"device": "nonsense"}, r"device is 'nonsense', and PyTorch cannot use it"),
    ],
)
def test_what_is_not_possible_is_named(options: dict[str, Any], message: str) -> None:
    for enrolment in ENROLMENTS:
        with pytest.raises(ScoringError, match=message) as caught:
            open_set_identification(**{**VALID, "enrolment": enrolment, **options})
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("enrolment", ["mean", "normalized-mean"])
def test_embeddings_of_a_speaker_that_cancel_are_named(enrolment: Enrolment) -> None:
    cancel = {"gallery": [[1.0, 2.0], [3.0, 4.0], [-3.0, -4.0]]}
    with pytest.raises(ScoringError, match=r"the mean of the speaker of row 1 is zero; .* cancel"):
        open_set_identification(**{**VALID, **cancel, "enrolment": enrolment})
    assert open_set_identification(**{**VALID, **cancel, "enrolment": "max"}).speakers == 2
