"""The first Ctrl-C is noted, the second raises; elsewhere nothing changes."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from voxblink2_lib.materialize.interruption import Interruption


def test_the_first_is_noted_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        requested = [interruption.is_requested]
        signal.raise_signal(signal.SIGINT)
        requested.append(interruption.is_requested)
        assert requested == [False, True]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_the_program_stays() -> None:
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert noted == [signal.SIGINT]
        assert not interruption.is_requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_use_it() -> None:
    def used() -> bool:
        with Interruption() as interruption:
            return interruption.is_requested

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(used).result() is False
