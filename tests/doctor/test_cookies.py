"""Files of cookies, good and bad, and never a value of one in a message."""

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
    found = check_cookies(path, host=host, now=NOW)
    said = capfd.readouterr()
    assert SECRET not in f"{found} {said.out} {said.err}"
    assert (found.level == "ok") == (not found.remedy)
    return found


def test_a_login(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = check(tmp_path, capfd, HEADER, *LOGIN)
    assert found == CookieCheck("ok", f"2 cookies for {HOST}, the first ends in 2.0 days")


def test_cookies_of_a_session_do_not_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [cookie("LOGIN_INFO", expires=0), cookie("SAPISID", expires=0)]
    assert check(tmp_path, capfd, HEADER, *lines) == CookieCheck("ok", f"2 cookies for {HOST}")


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
    found = check(tmp_path, capfd, *lines)
    assert found.level == "error"
    assert found.says == "is not a file of cookies in Netscape format"
    assert "Export them again, in Netscape format" in found.remedy


def test_not_a_text(tmp_path: Path) -> None:
    (tmp_path / "cookies.txt").write_bytes(b"SQLite format 3\0\xff\xfe")
    found = check_cookies(tmp_path / "cookies.txt", host=HOST)
    assert (found.level, found.says) == ("error", "is not a text file in UTF-8")


def test_not_there(tmp_path: Path) -> None:
    found = check_cookies(tmp_path / "cookies.txt", host=HOST)
    assert (found.level, found.says) == ("error", "cannot be read: No such file or directory")
    assert check_cookies(tmp_path, host=HOST).says == "cannot be read: Is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_not_ours_to_read(tmp_path: Path) -> None:
    (tmp_path / "cookies.txt").touch(mode=0)
    found = check_cookies(tmp_path / "cookies.txt", host=HOST)
    assert (found.level, found.says) == ("error", "cannot be read: Permission denied")


def test_lines_that_yt_dlp_skips(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = [f"one two {SECRET}", cookie("SID").replace("\tTRUE\t/", "\t/"), f"x\t{SECRET}"]
    found = check(tmp_path, capfd, HEADER, *LOGIN, *bad)
    assert found.level == "warning"
    assert "; 3 lines are not in Netscape format and are skipped" in found.says


def test_all_expired(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [cookie(name, expires=NOW - days * DAY) for name, days in (("SID", 9), ("HSID", 3))]
    found = check(tmp_path, capfd, HEADER, *lines)
    assert found.level == "error"
    assert found.says == f"all 2 cookies for {HOST} have expired, the last 3 days ago"


def test_some_expired(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = check(tmp_path, capfd, HEADER, *LOGIN, cookie("HSID", expires=NOW - 1))
    assert found.level == "warning"
    assert found.says.endswith("; 1 more have expired (HSID)")


def test_no_login_among_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [cookie("SAPISID"), cookie("LOGIN_INFO", expires=NOW - 1)]
    found = check(tmp_path, capfd, HEADER, *lines)
    assert found.level == "warning"
    assert "no login to YouTube among them; 1 more have expired (LOGIN_INFO)" in found.says


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
    found = check(tmp_path, capfd, HEADER, cookie("a", domain=domain), host=host)
    assert found.level == ("ok" if fits else "error")
    if not fits:
        assert found.says == f"has no cookie for {host}, but for {domain.lstrip('.')}"
