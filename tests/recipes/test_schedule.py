"""The rate never rises after the end, and a run goes on as planned with other ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.recipes.training import Schedule


@given(st.integers(1, 500), st.floats(0, 1), st.integers(0, 2_000))
def test_the_rate_after_the_end_is_the_last(steps: int, rises: float, beyond: int) -> None:
    schedule = Schedule(steps, 0.1, 0.2, rate_rises=rises)
    last = schedule.rate_at(steps - 1)
    assert 0 < last <= 0.1
    assert schedule.rate_at(steps + beyond) == last
    assert schedule.margin_at(steps + beyond) == pytest.approx(0.2)


def test_the_rate_falls_to_the_end() -> None:
    schedule = Schedule(100, 0.1, 0.2)
    rates = [schedule.rate_at(step) for step in range(20, 100)]
    assert rates == sorted(rates, reverse=True)
    assert schedule.rate_at(50) > schedule.rate_at(50.5) > schedule.rate_at(51)
