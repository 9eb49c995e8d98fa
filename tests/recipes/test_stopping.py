"""Signals are noted while a run looks for them, and are as before afterwards."""

from __future__ import annotations

import os
import signal

import pytest

from voxblink2_lib.recipes.stopping import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.must_stop(1)
        os.kill(os.getpid(), number)
        assert signals.received
        assert signals.must_stop(1)  # at any step, since this process is alone
    assert signal.getsignal(number) is before


def test_a_second_interrupt_interrupts() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # schedulers may repeat it
        assert signals.received
