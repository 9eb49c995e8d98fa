"""Cookie files, good and bad; no message contains a value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voxblink2_lib.doctor.cookies import CookieCheck, check_cookies

NOW = 1_800_000_000.0
DAY = 86_400
HEADER = "# Netscape HTTP Cookie File"
HOST = "www.youtube.com"
SECRET = "s3cr3t"


def cookie(name: str, *, domain: str = ".youtube.com", expires: float = NOW + 30 * DAY) -> str:
    dotted = "TRUE" if domain.startswith(".") else "FALSE"
    return "\t".join([domain, dotted, "/", "TRUE", str(int(expires)), name, f"{SECRET}-{name}"])


LOGIN = [cookie("LOGIN_INFO"), cookie("SAPISID", expires=NOW + 2 * DAY)]


def check(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], *lines: str, host: str = HOST
) -> CookieCheck:
    path = tmp_path / "cookies.txt"
    path.write_text("\n".join([*lines, ""]))
    result = check_cookies(path, host=host, now=NOW)
    output = capfd.readouterr()
    assert SECRET not in f"{result} {output.out} {output.err}"
    assert (result.level == "ok") == (not result.remedy)
    return result


def test_a_login(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = check(tmp_path, capfd, HEADER, *LOGIN)
    assert result == CookieCheck("ok", f"cookies for {HOST}: 2, the first expires in 2.0 days")


def test_cookies_of_a_session_do_not_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [cookie("LOGIN_INFO", expires=0), cookie("SAPISID", expires=0)]
    assert check(tmp_path, capfd, HEADER, *lines) == CookieCheck("ok", f"cookies for {HOST}: 2")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["<html>log in</html>"],
        [cookie("LOGIN_INFO")],  # no first line
        [HEADER, '{"name": "LOGIN_INFO", "value": "s3cr3t"}'],
        [HEADER, f"youtube.com\tTRUE\t/\tTRUE\t0\tSID\t{SECRET}"],  # a domain without its dot
    ],
    ids=["empty", "html", "headless", "json", "dotless"],
)
def test_other_forms(lines: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = check(tmp_path, capfd, *lines)
    assert result.level == "error"
    assert result.message == "is not a cookie file in Netscape format"
    assert "Export them again, in Netscape format" in result.remedy


def test_not_a_text(tmp_path: Path) -> None:
    (tmp_path / "cookies.txt").write_bytes(b"SQLite format 3\0\xff\xfe")
    result = check_cookies(tmp_path / "cookies.txt", host=HOST)
    assert (result.level, result.message) == ("error", "is not a text file in UTF-8")


def test_not_there(tmp_path: Path) -> None:
    result = check_cookies(tmp_path / "cookies.txt", host=HOST)
    assert (result.level, result.message) == ("error", "cannot be read: No such file or directory")
    assert check_cookies(tmp_path, host=HOST).message == "cannot be read: Is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_not_ours_to_read(tmp_path: Path) -> None:
    (tmp_path / "cookies.txt").touch(mode=0)
    result = check_cookies(tmp_path / "cookies.txt", host=HOST)
    assert (result.level, result.message) == ("error", "cannot be read: Permission denied")


def test_lines_that_yt_dlp_skips(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = [f"one two {SECRET}", cookie("SID").replace("\tTRUE\t/", "\t/"), f"x\t{SECRET}"]
    result = check(tmp_path, capfd, HEADER, *LOGIN, *bad)
    assert result.level == "warning"
    assert "; skipped lines that are not in Netscape format: 3" in result.message


def test_all_expired(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [cookie(name, expires=NOW - days * DAY) for name, days in (("SID", 9), ("HSID", 3))]
    result = check(tmp_path, capfd, HEADER, *lines)
    assert result.level == "error"
    assert result.message == f"cookies for {HOST}: 2, all expired, the last 3 days ago"


def test_some_expired(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = check(tmp_path, capfd, HEADER, *LOGIN, cookie("HSID", expires=NOW - 1))
    assert result.level == "warning"
    assert result.message.endswith("; expired: 1 (HSID)")


def test_no_login_among_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [cookie("SAPISID"), cookie("LOGIN_INFO", expires=NOW - 1)]
    result = check(tmp_path, capfd, HEADER, *lines)
    assert result.level == "warning"
    assert "no YouTube login among them; expired: 1 (LOGIN_INFO)" in result.message


@pytest.mark.parametrize(
    ("domain", "host", "fits"),
    [
        (".example.org", "media.example.org", True),
        (".example.org", "example.org", True),
        ("media.example.org", "media.example.org", True),
        (".example.org", "badexample.org", False),
        (".media.example.org", "example.org", False),
        (".youtube.com", "example.org", False),
    ],
)
def test_the_sources_domain(
    domain: str, host: str, fits: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = check(tmp_path, capfd, HEADER, cookie("a", domain=domain), host=host)
    assert result.level == ("ok" if fits else "error")
    if not fits:
        assert result.message == f"has no cookie for {host}, only for {domain.lstrip('.')}"
