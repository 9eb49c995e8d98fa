"""What failures that are all alike look like, in words that help."""

from __future__ import annotations

import datetime
import re

import pytest
import yt_dlp.version

from voxblink2_lib.materialize import diagnosis
from voxblink2_lib.materialize.diagnosis import diagnose
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import VideoKey


def failures(message: str, count: int = 12) -> list[Outcome]:
    keys = [VideoKey("id000001", f"video{number:06}") for number in range(count)]
    return [
        Outcome(key, "transient", message.replace("ID", key.video_id), is_explicit=False)
        for key in keys
    ]


SABR = "Some formats are missing a URL. YouTube is forcing SABR streaming for this client."
TOKEN = "ios client https formats require a GVS PO Token which was not provided."
VERSION = r"yt-dlp is [0-9.]+, [0-9,]+ days old: pip install -U yt-dlp$"


@pytest.mark.parametrize(
    ("message", "warnings", "expected"),
    [
        ("[youtube] ID: Video unavailable", (), rf"an account or an address .*--proxy.*{VERSION}"),
        ("Sign in to continue", (), rf"an account or an address that the source has.*{VERSION}"),
        ("Requested format is not available", (), rf"SABR or a PO token.*too old.*{VERSION}"),
        ("Requested format is not available", (SABR,), rf"warned: {re.escape(SABR)}\. .*PO token"),
        ("HTTP Error 403: Forbidden", ("something else", TOKEN), rf"warned: {re.escape(TOKEN)}"),
        ("HTTP Error 403: Forbidden", (), rf"refuses this address or account.*{VERSION}"),
        ("the server sent a page of HTML instead of media", (), "log-in.* in a browser"),
        ("The downloaded file is empty", (), "breaks off what it sends"),
        ("3 of 3 utterances could not be cropped; the first", (), "a proxy that truncates media"),
        ("HTTP Error 503: Service Unavailable", (), "a server that is failing"),
        ("yt-dlp failed: TypeError: 'NoneType'", (), rf"a yt-dlp that is too old.*{VERSION}"),
        ("", (), rf"a yt-dlp that is too old.*{VERSION}"),
    ],
)
def test_the_cause_is_named(message: str, warnings: tuple[str, ...], expected: str) -> None:
    text = diagnose(failures(message), warnings=warnings)
    assert re.search(expected, text), text
    assert "video000003" not in text


def test_the_most_frequent_failure_decides_and_canaries_are_counted() -> None:
    mixed = [*failures("HTTP Error 503", 3), *failures("[x] ID: Video unavailable", 1_000)]
    text = diagnose(mixed, canaries=6)
    assert text.startswith(
        "1,003 videos in a row failed alike ([x] <video>: Video unavailable), and so did 6 more "
        "that were requested to find out. This looks like an account"
    )


def test_the_age_of_yt_dlp_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yt_dlp.version, "__version__", "2025.01.31")
    today = datetime.date(2026, 11, 28)
    assert diagnosis._version_text(today).startswith("yt-dlp is 2025.01.31, 666 days old")
    monkeypatch.setattr(yt_dlp.version, "__version__", "2026.12.01.232828.dev0")
    assert ", 0 days old" in diagnosis._version_text(today)
