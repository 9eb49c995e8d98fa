"""Schedules follow the published formulas, at any length, and stay within their ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.recipes.schedules import ExponentialMargin, ExponentialRate
from voxblink2_lib.recipes.stages import STAGES, scaled_rate

ITERATIONS = 1000  # of an epoch


def published_rate(
    iteration: int, *, epochs: int, first: float, last: float, warm_up: int
) -> float:
    """The rate that WeSpeaker's recipe has at an iteration, in steps of its own."""
    rate = first * math.exp(iteration / (epochs * ITERATIONS) * math.log(last / first))
    return rate * min(1.0, iteration / (warm_up * ITERATIONS))


def published_margin(iteration: int, *, start_epoch: int, fix_epoch: int, final: float) -> float:
    """The margin there; epochs are counted from 1."""
    start, fixed = (start_epoch - 1) * ITERATIONS, (fix_epoch - 1) * ITERATIONS
    if iteration < start:
        return 0.0
    if iteration >= fixed:
        return final
    return final * (1 - math.exp((iteration - start) / (fixed - start) * math.log(1e-3)))


@pytest.mark.parametrize("epoch", [0, 0.25, 3, 6, 19, 20.5, 30, 38.999, 39, 75, 149.9, 150])
def test_the_first_stage_is_the_published_one(epoch: float) -> None:
    stage, iteration = STAGES["pretrain"], round(epoch * ITERATIONS)
    rate = stage.rate_schedule(150, stage.first_rate("sgd")).at(epoch)
    expected = published_rate(iteration, epochs=150, first=0.1, last=5e-5, warm_up=6)
    assert rate == pytest.approx(expected, rel=1e-9, abs=1e-12)
    margin = stage.margin_schedule(150, 0.2).at(epoch)
    expected = published_margin(iteration, start_epoch=20, fix_epoch=40, final=0.2)
    assert margin == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "first", "last", "margin"),
    [("finetune", 5e-3, 2.5e-5, 0.2), ("lmft", 1e-4, 2.5e-5, 0.5)],
)
def test_later_stages_have_lower_rates(name: str, first: float, last: float, margin: float) -> None:
    stage = STAGES[name]
    rates = stage.rate_schedule(stage.epochs, stage.first_rate("sgd"))
    assert rates.first == first
    assert rates.last == pytest.approx(last)
    assert stage.margin_schedule(stage.epochs, stage.margin).at(stage.epochs) == margin
    assert STAGES["lmft"].margin_schedule(5, 0.5).at(0) == 0.5


@given(
    epochs=st.integers(1, 300),
    first=st.floats(1e-5, 1),
    ratio=st.floats(1e-4, 1),
    done=st.floats(-5, 400),
)
def test_a_rate_never_leaves_its_range(
    epochs: int, first: float, ratio: float, done: float
) -> None:
    rate = ExponentialRate(epochs, first, first * ratio, warm_up_epochs=epochs / 10)
    assert 0 <= rate.at(done) <= first
    if done >= epochs:
        assert rate.at(done) == pytest.approx(first * ratio)
    if done >= epochs / 10:
        assert rate.at(done + 1) <= rate.at(done)


@given(final=st.floats(0, 1), starts=st.floats(0, 50), span=st.floats(0, 50), done=st.floats(0, 99))
def test_a_margin_rises_to_its_final_value(
    final: float, starts: float, span: float, done: float
) -> None:
    margin = ExponentialMargin(final, starts, starts + span)
    assert 0 <= margin.at(done) <= margin.at(done + 1) <= final
    assert margin.at(starts + span) == final


@given(epochs=st.integers(1, 400), share=st.floats(0, 1))
def test_another_number_of_epochs_stretches_the_whole_schedule(epochs: int, share: float) -> None:
    stage = STAGES["pretrain"]
    ours, theirs = (stage.rate_schedule(count, 0.1) for count in (epochs, stage.epochs))
    assert ours.at(share * epochs) == pytest.approx(theirs.at(share * stage.epochs), rel=1e-6)
    margins = (stage.margin_schedule(count, 0.2).at(share * count) for count in (epochs, 150))
    assert next(margins) == pytest.approx(next(margins), abs=1e-6)
    assert 1 <= stage.averaged_epochs(epochs) <= max(1, epochs)


def test_the_rate_is_for_the_crops_of_a_step() -> None:
    assert scaled_rate(0.1, crops=64, optimizer="sgd") == 0.1
    assert scaled_rate(0.1, crops=4 * 128, optimizer="sgd") == pytest.approx(0.8)
    assert scaled_rate(0.1, crops=4 * 64, optimizer="adamw") == pytest.approx(0.2)


def test_a_schedule_without_epochs_or_rate_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"of 0 epochs .* must be above 0"):
        ExponentialRate(0, 0.1, 1e-5)
    with pytest.raises(TrainingError, match="rates from -1 to"):
        ExponentialRate(1, -1, 1e-5)
