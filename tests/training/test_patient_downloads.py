"""Downloads that are tried again: told soon, ended by a deadline, stopped at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest
from support.error_clock import ErrorClock

from voxblink2_lib.training import patient_downloads
from voxblink2_lib.training.patient_downloads import PatientDownloads

URL = "s3://somebody:secret@bucket/store"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_downloads, "PAUSES_SECONDS", (0.001,))
    monkeypatch.setattr(patient_downloads, "TELL_SECONDS", 0.02)


def failing(error: Exception, until: Callable[[], bool]) -> Callable[[], str]:
    def download() -> str:
        if until():
            return "data"
        raise error

    return download


def test_results_are_in_order_and_come_at_the_same_time() -> None:
    together = threading.Barrier(patient_downloads.AT_ONCE)

    def download(number: int) -> int:
        together.wait(30)
        return number

    count = 2 * patient_downloads.AT_ONCE
    downloads = [lambda number=number: download(number) for number in range(count)]
    assert PatientDownloads(URL, downloads, 60.0).run() == list(range(count))


def test_nothing_to_download() -> None:
    assert PatientDownloads(URL, [], 60.0).run() == []


def test_a_server_that_fails_is_told_once_and_so_is_its_recovery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ConnectionResetError("reset by s3://somebody:secret@bucket/store")
    recovered = failing(error, lambda: bool(caplog.records))
    assert PatientDownloads(URL, [recovered, recovered], 60.0).run() == ["data", "data"]
    first, last = (record.getMessage() for record in caplog.records)
    assert "secret" not in first
    assert "bucket/store fails (ConnectionResetError: reset by" in first
    assert "It is tried again until " in first
    assert last.endswith("bucket/store answers again.")


def test_a_short_failure_is_not_worth_a_word(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient_downloads, "TELL_SECONDS", 30.0)
    tries = iter(range(10))
    download = failing(ConnectionResetError("reset"), lambda: next(tries) == 3)
    assert PatientDownloads(URL, [download], 60.0).run() == ["data"]
    assert not caplog.records


def test_a_server_that_goes_on_failing_ends_at_the_deadline(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ErrorClock(monkeypatch)
    download = failing(ConnectionResetError("reset"), lambda: False)
    with pytest.raises(ConnectionResetError, match="reset"):
        PatientDownloads(URL, [download], 60.0).run()
    assert clock.errors >= 12
    assert len(caplog.records) == 1


def test_a_server_that_sends_nothing_ends_at_the_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="no answer for 0 s"):
            PatientDownloads(URL, [end.wait], 0.1).run()
    finally:
        end.set()
    assert "bucket/store has not answered. It is tried" in caplog.records[0].getMessage()


def test_the_deadline_counts_from_the_last_good_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_downloads, "AT_ONCE", 1)
    clock = ErrorClock(monkeypatch)

    def download() -> float:
        clock.now += 40.0
        return clock.now

    assert PatientDownloads(URL, [download] * 3, 60.0).run() == [1040.0, 1080.0, 1120.0]


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("Forbidden")])
def test_what_no_other_try_mends_is_raised_at_once(error: Exception) -> None:
    tries = []

    def download() -> None:
        tries.append(1)
        raise error

    end = threading.Event()
    try:
        with pytest.raises(type(error), match=str(error)):
            PatientDownloads[object](URL, [download, end.wait], 600.0).run()
    finally:
        end.set()
    assert len(tries) == 1


def test_an_interrupt_ends_the_wait_at_once() -> None:
    end = threading.Event()

    def download() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        end.wait(300)

    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            PatientDownloads(URL, [download], 600.0).run()
    finally:
        end.set()
    assert time.monotonic() - start < 60
