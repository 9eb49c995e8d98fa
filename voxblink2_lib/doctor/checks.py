"""A look at everything that a long run needs, before the first video.

Each check is one small function over what the user named. A check never raises for what it is
there to find: that becomes a finding, with the remedy.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from voxblink2_lib.doctor.cookies import check_cookies
from voxblink2_lib.doctor.disk_space import estimate_space
from voxblink2_lib.doctor.file_system import existing_folder, probe_capabilities
from voxblink2_lib.errors import (
    DependencyError,
    ReleaseError,
    SelectionError,
    SourceError,
    StoreError,
    StoreFullError,
    UnreachableError,
    first_line,
)
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.audio import audio_decoder
from voxblink2_lib.records import is_speaker_id
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.location import RELEASE_VARIABLE, Release, open_release
from voxblink2_lib.sources import SourceSpec, parse_source
from voxblink2_lib.sources.javascript import find_javascript
from voxblink2_lib.sources.probe import ProbeResult, probe_server, shown_proxy
from voxblink2_lib.store.layout import Store, named_store, open_store

_PYTHON = (3, 11)
_OLD_DAYS = 90
_CLOCK_WARNING_SECONDS, _CLOCK_ERROR_SECONDS = 60, 300
_LITTLE_BYTES = 5e9
Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says.

    Attributes:
        level: ``"error"``: a run would fail; ``"warning"``: it may.
        what: what was looked at.
        says: what was seen.
        remedy: what to do; empty when all is well.
    """

    level: Level
    what: str
    says: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Subject:
    """All that the checks look at. What could not be opened is ``None``."""

    request: MaterializeRequest
    release: Release | None
    source: SourceSpec | None
    store: Store | None
    index: Index | None
    proxies: tuple[str | None, ...]
    cookies: tuple[str, ...]


def run_checks(
    *, request: MaterializeRequest, proxies: Sequence[str] = (), cookies: Sequence[str] = ()
) -> list[Finding]:
    """Look at all that a run with this configuration would need.

    Nothing is left behind. The source is asked once a proxy, for its front page only, and given
    10 s to answer.

    Args:
        request: what would be done, and where.
        proxies: addresses of proxies, asked one by one; none means as the environment says.
        cookies: files of cookies in Netscape format.

    Returns:
        What was found, in the order of the checks.
    """
    findings: list[Finding] = []
    subject = _open(request, proxies, cookies, findings.append)
    for check in _CHECKS:
        findings += check(subject)
    return findings


def _open(
    request: MaterializeRequest,
    proxies: Sequence[str],
    cookies: Sequence[str],
    tell: Callable[[Finding], None],
) -> _Subject:
    """Open what was named, and tell what cannot be opened."""
    release = source = store = index = None
    try:
        if request.data_dir is not None or os.environ.get(RELEASE_VARIABLE):
            release = open_release(request.data_dir)
    except (ReleaseError, OSError) as error:
        tell(Finding("error", "release", first_line(error), "Name it with --data-dir."))
    try:
        default = None if release is None else release.default_source
        source = parse_source(request.source or default)
    except (SourceError, OSError) as error:
        tell(Finding("error", "source", first_line(error), "Name another one with --source."))
    try:
        if request.store is not None:
            store = named_store(request.store)
        elif release is not None:
            store = open_store(None, release)
        if store is not None and (store.index / "index.json").exists():
            index = Index(store.index)
    except (StoreError, OSError) as error:
        tell(Finding("error", "store", first_line(error), "Name another one with --store."))
    return _Subject(request, release, source, store, index, tuple(proxies) or (None,), (*cookies,))


# -- this machine -----------------------------------------------------------------------------


def _python(_: _Subject) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= _PYTHON:
        yield Finding("ok", "python", f"Python {version}")
    else:
        wanted = ".".join(map(str, _PYTHON))
        yield Finding("error", "python", f"Python {version}", f"Install {wanted} or later.")


def _packages(_: _Subject) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("voxblink2") or []
    except metadata.PackageNotFoundError:
        remedy = "Install it with pip, so that what it needs is installed too."
        yield Finding("warning", "packages", "voxblink2 itself is not installed", remedy)
        return
    good = []
    for one in map(Requirement, lines):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        install = f"Run pip install -U '{one.name}{one.specifier}'."
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield Finding("error", "packages", f"{one.name} is missing", install)
            continue
        if one.specifier.contains(version, prereleases=True):
            good.append(f"{one.name} {version}")
        else:
            says = f"{one.name} {version}, but {one.specifier} is needed"
            yield Finding("warning", "packages", says, install)
    yield Finding("ok", "packages", ", ".join(good))


def _yt_dlp(subject: _Subject) -> Iterator[Finding]:
    if subject.source is not None and subject.source.kind != "folder":
        with contextlib.suppress(metadata.PackageNotFoundError):  # told above
            yield _age_of_yt_dlp(metadata.version("yt-dlp"), datetime.datetime.now(datetime.UTC))


def _age_of_yt_dlp(version: str, now: datetime.datetime) -> Finding:
    """Judge yt-dlp by its version, which is a date: sites change, and it follows them."""
    try:
        released = datetime.date(*map(int, version.split(".")[:3]))
    except (TypeError, ValueError):
        return Finding("ok", "yt-dlp", f"yt-dlp {version}, of an unknown day")
    days = (now.date() - released).days
    says = f"yt-dlp {version} is {days} days old"
    if days <= _OLD_DAYS:
        return Finding("ok", "yt-dlp", says)
    return Finding("warning", "yt-dlp", says, "Run pip install -U yt-dlp: sites change often.")


def _ffmpeg(_: _Subject) -> Iterator[Finding]:
    try:
        audio_decoder()
    except DependencyError as error:
        remedy = "Run 'apt install ffmpeg', or install FFmpeg 4 to 8 with its shared libraries."
        yield Finding("error", "ffmpeg", str(error), remedy)
    else:
        yield Finding("ok", "ffmpeg", "torchcodec loads FFmpeg's shared libraries")


def _javascript(subject: _Subject) -> Iterator[Finding]:
    if subject.source is None or subject.source.kind != "youtube":
        return
    support = find_javascript()
    if support.problem:
        yield Finding("error", "javascript", support.problem, support.remedy)
    else:
        yield Finding("ok", "javascript", support.seen)


# -- release and store ------------------------------------------------------------------------


def _release(subject: _Subject) -> Iterator[Finding]:
    if subject.release is None:
        return
    path = subject.release.path
    try:
        first = next(iter(subject.release.annotations()), None)
    except (ReleaseError, OSError) as error:
        yield Finding("error", "release", first_line(error), "Fetch the release again.")
        return
    if first is None:
        yield Finding("error", "release", f"{path} is empty", "Fetch the release again.")
    elif first.problem:
        says = f"{first.path} in {path}: {first.problem}"
        yield Finding("warning", "release", says, "Make every file of the release readable.")
    else:
        yield Finding("ok", "release", f"{path} can be read")


def _disk(subject: _Subject) -> Iterator[Finding]:
    if subject.store is None:
        return
    try:
        size = estimate_space(subject.request, subject.store, subject.index)
    except SelectionError as error:
        yield Finding("error", "selection", first_line(error), "Change the selection.")
        return
    except StoreError as error:
        yield Finding("error", "store", first_line(error), "Name another one with --store.")
        return
    free = _free_bytes(existing_folder(subject.store.root))
    says = f"{free / 1e9:,.1f} GB free for {subject.store.root}; "
    if size.hours is None:
        needed = _LITTLE_BYTES
        says += f"1,000 hours take about {size.hour_bytes / 1e6:,.0f} GB, and how many are planned "
        says += "is known after 'voxblink2 index'"
    else:
        needed = size.needed_bytes or 0.0
        says += f"the {size.hours:,.2f} hours to come need about {needed / 1e9:,.1f} GB"
    if free >= needed:
        yield Finding("ok", "disk", says)
    else:
        remedy = "Free some space, name a store on a larger disk, or select less."
        yield Finding("warning" if size.hours is None else "error", "disk", says, remedy)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _file_system(subject: _Subject) -> Iterator[Finding]:
    if subject.store is None:
        return
    place = existing_folder(subject.store.root)
    try:
        abilities = probe_capabilities(place)
    except (OSError, StoreFullError) as error:
        says = f"{place} cannot be written to: {getattr(error, 'strerror', '') or error}"
        remedy = "Make it writable for you, free some space, or name another store."
        yield Finding("error", "file system", says, remedy)
        return
    for one in abilities:
        says = f"{place} cannot do {one.name}: {one.problem}"
        if one.problem and one.is_needed:
            yield Finding("error", "file system", says, "Name a store on a local disk.")
        elif one.problem:
            remedy = "Symbolic links will be used instead; do not move the store then."
            yield Finding("warning", "file system", says, remedy)
    able = ", ".join(one.name for one in abilities if not one.problem)
    yield Finding("ok", "file system", f"{place}: {able} work")


# -- source -----------------------------------------------------------------------------------


def _folder(subject: _Subject) -> Iterator[Finding]:
    if subject.source is None or subject.source.kind != "folder":
        return
    place = subject.source.place
    try:
        with os.scandir(place) as entries:
            speakers = [one.path for one in entries if is_speaker_id(one.name) and one.is_dir()]
    except OSError as error:
        says = f"{place} cannot be read: {error.strerror}"
        yield Finding("error", "source", says, "Make it readable for you.")
        return
    closed = [one for one in speakers if not os.access(one, os.R_OK | os.X_OK)]
    says = f"{place} has folders of {len(speakers):,} speakers"
    if not speakers:
        remedy = "Media must be named <speaker>/<video>.<ext>; name the folder above the speakers."
        yield Finding("error", "source", says, remedy)
    elif closed:
        says += f", of which {len(closed):,} cannot be read, the first is {min(closed)}"
        yield Finding("warning", "source", says, "Make them readable for you.")
    else:
        yield Finding("ok", "source", says)


def _network(subject: _Subject) -> Iterator[Finding]:
    if subject.source is None or subject.source.kind == "folder":
        return
    address = subject.source.front_page
    clock_told = False
    for proxy in subject.proxies:
        way = f" through {shown_proxy(proxy)}" if proxy else ""
        try:
            answer = probe_server(address, proxy=proxy)
        except UnreachableError as error:
            says = f"{_host(subject.source)} does not answer{way}: {error}"
            remedy = "Check the network, the source's address"
            remedy += ", and the proxy's address, name and password." if proxy else "."
            yield Finding("error", "network", says, remedy)
            continue
        yield _judge_answer(answer, f"{_host(subject.source)} answers{way}", subject.source)
        if not clock_told and answer.clock_off_seconds is not None:
            clock_told = True
            yield _judge_clock(answer.clock_off_seconds)


def _host(source: SourceSpec) -> str:
    return urlsplit(source.front_page).hostname or source.place


def _judge_answer(answer: ProbeResult, says: str, source: SourceSpec) -> Finding:
    status = answer.status
    says = f"{says} (HTTP {status})"
    if status == 407:
        return Finding("error", "network", says, "The proxy wants a name and password in --proxy.")
    if status == 429:
        remedy = "This address has asked too often: wait an hour, or use another with --proxy."
        return Finding("warning", "network", says, remedy)
    if status >= 500:
        return Finding("warning", "network", says, "The server is in trouble: try again later.")
    if source.kind == "youtube" and status != 204:
        remedy = "204 is expected: something in between may be answering, such as a login page."
        return Finding("warning", "network", says, remedy)
    # Any other answer will do: a server of media need not have a front page.
    return Finding("ok", "network", says)


def _judge_clock(off_seconds: float) -> Finding:
    size = abs(off_seconds)
    if size <= _CLOCK_WARNING_SECONDS:
        return Finding("ok", "clock", "as the source's, to the minute")
    side = "ahead of" if off_seconds > 0 else "behind"
    says = f"{size:,.0f} s {side} the source's"
    remedy = "Set this machine's clock: certificates, cookies and waiting times depend on it."
    return Finding("error" if size > _CLOCK_ERROR_SECONDS else "warning", "clock", says, remedy)


def _cookies(subject: _Subject) -> Iterator[Finding]:
    if not subject.cookies or subject.source is None:
        return
    if subject.source.kind == "folder":
        says = "a folder of media needs no cookies"
        yield Finding("warning", "cookies", says, "Leave out --cookies, or name another source.")
        return
    for path in subject.cookies:
        check = check_cookies(path, host=_host(subject.source))
        yield Finding(check.level, "cookies", f"{path}: {check.says}", check.remedy)


_CHECKS: tuple[Callable[[_Subject], Iterator[Finding]], ...] = (
    *(_python, _packages, _yt_dlp, _ffmpeg, _javascript),
    *(_release, _disk, _file_system),
    *(_folder, _network, _cookies),
)
