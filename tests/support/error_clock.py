"""A clock of downloads that goes on with each error, so that deadlines need no waiting."""

from __future__ import annotations

import time
from typing import Any

import pytest

from voxblink2_lib.training import patient_downloads
from voxblink2_lib.training.patient_downloads import PatientDownloads


class ErrorClock:
    """Stands for the module ``time``: five seconds go by with each error of a download.

    Attributes:
        now: seconds.
        errors: how many there were.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.localtime, self.strftime, self.time = time.localtime, time.strftime, time.time
        self.errors = 0
        note = PatientDownloads._note

        def noted(downloads: PatientDownloads[Any], error: Exception, *, is_final: bool) -> None:
            with downloads._news:  # nobody reads the clock before the error is noted
                self.now += 5.0
                self.errors += 1
                note(downloads, error, is_final=is_final)

        monkeypatch.setattr(PatientDownloads, "_note", noted)
        monkeypatch.setattr(patient_downloads, "PAUSES_SECONDS", (0.001,))
        monkeypatch.setattr(patient_downloads, "time", self)

    def monotonic(self) -> float:
        return self.now
