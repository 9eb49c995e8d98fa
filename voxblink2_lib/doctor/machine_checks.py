"""Checks of this machine: Python, packages, FFmpeg, JavaScript."""

from __future__ import annotations

import contextlib
import datetime
import functools
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from voxblink2_lib.doctor.findings import Finding, Findings
from voxblink2_lib.sources.javascript import find_javascript

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

_PYTHON = (3, 11)
_OLD_DAYS = 90
_LOADING = """
try:
    import torchcodec.decoders
except (ImportError, RuntimeError, OSError) as error:
    raise SystemExit((str(error).strip().splitlines() or [type(error).__name__])[0])
"""


def check_python(*_: object) -> Findings:
    """Check that Python is recent enough."""
    message = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
    if sys.version_info >= _PYTHON:
        yield Finding("ok", "python", message)
    else:
        remedy = f"Install Python {'.'.join(map(str, _PYTHON))} or later."
        yield Finding("error", "python", message, remedy)


def check_plugins(*_: object) -> Findings:
    """List the plugins that yt-dlp would load."""
    from voxblink2_lib.sources.plugins import find_plugins

    plugins = ", ".join(find_plugins())
    note = "foreign code, which --no-plugins of materialize turns off"
    yield Finding("ok", "plugins", f"yt-dlp plugins: {plugins}: {note}" if plugins else "none")


def check_packages(*_: object) -> Findings:
    """Check the installed versions of everything that this package requires."""
    try:
        requirements = declared_requirements()
    except metadata.PackageNotFoundError:
        remedy = "Install it with pip, which also installs its dependencies."
        yield Finding("warning", "packages", "voxblink2 itself is not installed", remedy)
        return
    findings = [_judge_package(item.name, item.specifier) for item in requirements]
    yield from (finding for finding in findings if finding.level != "ok")
    satisfied = ", ".join(finding.message for finding in findings if finding.level == "ok")
    yield Finding("ok", "packages", satisfied)


def declared_requirements(extra: str = "") -> list[Requirement]:
    """Return what this package requires here, or what an extra of it requires besides.

    Raises:
        PackageNotFoundError: the package itself is not installed.
    """
    from packaging.requirements import Requirement

    requirements = map(Requirement, metadata.requires("voxblink2") or ())
    return [requirement for requirement in requirements if _applies(requirement, extra)]


def _applies(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    if marker is None:
        return not extra
    in_any_case = marker.evaluate({"extra": ""})
    return marker.evaluate({"extra": extra}) and not (extra and in_any_case)


def _judge_package(name: str, versions: SpecifierSet) -> Finding:
    install = f"Run pip install -U '{name}{versions}'."
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding("error", "packages", f"{name} is missing", install)
    if versions.contains(version, prereleases=True):
        return Finding("ok", "packages", f"{name} {version}")
    message = f"{name} {version}, but {versions} is required"
    return Finding("warning", "packages", message, install)


def check_yt_dlp(*_: object) -> Findings:
    """Check that yt-dlp is recent."""
    with contextlib.suppress(metadata.PackageNotFoundError):  # reported by the check of packages
        yield _judge_age(metadata.version("yt-dlp"), datetime.datetime.now(datetime.UTC))


def _judge_age(version: str, now: datetime.datetime) -> Finding:
    """Judge yt-dlp by its version, which is a date: sites change, and releases follow them."""
    try:
        released = datetime.date(*map(int, version.split(".")[:3]))
    except (TypeError, ValueError):
        return Finding("ok", "yt-dlp", f"yt-dlp {version}, release date unknown")
    days = (now.date() - released).days
    message = f"yt-dlp {version} is {days} days old"
    if days <= _OLD_DAYS:
        return Finding("ok", "yt-dlp", message)
    return Finding("warning", "yt-dlp", message, "Run pip install -U yt-dlp: sites change often.")


def check_ffmpeg(*_: object) -> Findings:
    """Check that torchcodec can load FFmpeg's shared libraries, as rows are decoded with it."""
    if problem := torchcodec_problem():
        yield Finding(
            "error",
            "ffmpeg",
            "datasets cannot decode rows: torchcodec or the FFmpeg libraries that it needs are "
            f"missing: {problem}",
            "Run 'apt install ffmpeg', or install FFmpeg 4 to 8 with its shared libraries.",
        )
    else:
        yield Finding("ok", "ffmpeg", "torchcodec loads FFmpeg's shared libraries")


@functools.cache
def torchcodec_problem() -> str:
    """Return why torchcodec cannot be loaded; empty if it can.

    In a process of its own, since it brings PyTorch, which takes half a gigabyte of memory, and
    since libraries that do not fit each other may end the process.
    """
    run = subprocess.run(  # noqa: S603  # this Python
        [sys.executable, "-c", _LOADING], capture_output=True, text=True, check=False
    )
    if not run.returncode:
        return ""
    *_, last = run.stderr.strip().splitlines() or [f"loading it ended with {run.returncode}"]
    return last


def check_javascript(*_: object) -> Findings:
    """Check for the JavaScript runtime and solver that yt-dlp needs for YouTube."""
    support = find_javascript()
    if support.problem:
        yield Finding("error", "javascript", support.problem, support.remedy)
    else:
        yield Finding("ok", "javascript", support.seen)
