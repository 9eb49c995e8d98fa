"""One budget for all bytes of a video: rate, bytes, seconds. Servers are in the other tests."""

from __future__ import annotations

import pytest

from voxblink2_lib.errors import FetchError
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def meter_of(
    budget: TransferBudget, clock: Clock, limit_rate: float | None = None
) -> TransferMeter:
    return TransferMeter(budget, limit_rate=limit_rate, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize(
    ("needed_seconds", "budget"),
    [
        (0.0, TransferBudget(64 << 20, 600.0)),
        (61.0, TransferBudget((64 << 20) + 152_500_000, 905.0)),
        (3600.0, TransferBudget((64 << 20) + 9_000_000_000, 18_600.0)),
    ],
)
def test_the_budget_grows_with_the_needed_seconds(
    needed_seconds: float, budget: TransferBudget
) -> None:
    assert TransferBudget.of(needed_seconds) == budget


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    meter = meter_of(TransferBudget(1 << 30, 1e6), clock)
    for _ in range(600):
        clock.now += 1
        meter.add(1024)
    # Time that is not spent waiting for the server does not count.
    clock.now += 10_000
    meter.start()
    for _ in range(59):
        clock.now += 1
        meter.add(1023)
    clock.now += 1
    with pytest.raises(
        FetchError, match="the server sends too slowly: 61380 bytes in 60 s"
    ) as caught:
        meter.add(1023)
    assert caught.value.status == "transient"
    assert meter.received == 600 * 1024 + 60 * 1023


def test_more_bytes_than_allowed_are_an_error_that_states_both() -> None:
    clock = Clock()
    meter = meter_of(TransferBudget(1000, 60.0), clock)
    meter.add(1000)
    with pytest.raises(FetchError, match=r"sent 1001 bytes .* at most 1000 bytes") as caught:
        meter.add(1)
    assert caught.value.status == "media-unusable"


def test_what_an_index_states_is_allowed_besides() -> None:
    clock = Clock()
    meter = meter_of(TransferBudget(1000, 60.0), clock)
    meter.allow(5_000_000)
    meter.add(5_001_000)
    # With 0.5 MB a second to read it.
    clock.now += 70
    meter.start()
    with pytest.raises(FetchError, match=r"not done after 71 s and 5001000 bytes; .* take 70 s"):
        meter.wait(1)
    clock.now = 0
    with pytest.raises(FetchError, match="at most 5001000 bytes"):
        meter.add(1)


def test_a_low_rate_limit_has_its_time() -> None:
    """The limit is the user's: 1 MB at 1,000 bytes a second takes more than the minute."""
    clock = Clock()
    meter = meter_of(TransferBudget(1_000_000, 60.0), clock, limit_rate=1000.0)
    for _ in range(1000):
        meter.add(1000)
    assert clock.now == pytest.approx(1000)
    with pytest.raises(FetchError, match=r"not done after 1061 s and .* may take 1060 s"):
        meter.wait(61)


@pytest.mark.parametrize("limit_rate", [0, -1.0, float("nan")])
def test_a_rate_limit_must_be_positive(limit_rate: float) -> None:
    with pytest.raises(ValueError, match="limit_rate must be above 0 bytes a second, got"):
        TransferMeter(TransferBudget.of(1.0), limit_rate=limit_rate)
