"""Checks of the source of media: folder, network, clock, cookies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from voxblink2_lib.archive.recognition import find_cut_audio
from voxblink2_lib.doctor.cookies import check_cookies
from voxblink2_lib.doctor.findings import Finding, Findings, Inputs
from voxblink2_lib.errors import SelectionError, UnreachableError
from voxblink2_lib.progress import size_text
from voxblink2_lib.records import VideoKey, is_speaker_id
from voxblink2_lib.redaction import redact, secrets_in
from voxblink2_lib.release.selection import selected_keys
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.folder_check import folder_problem
from voxblink2_lib.sources.probe import ProbeResult, probe_server

_CLOCK_WARNING_SECONDS, _CLOCK_ERROR_SECONDS = 60, 300


def check_media_folder(inputs: Inputs, folder: str) -> Findings:
    """Check that a folder of media holds readable folders of speakers, and a selected video."""
    with_video = inputs.request.with_faces
    if problem := folder_problem(Path(folder), _selected(inputs), with_video=with_video):
        remedy = "See 'Folders' in docs/usage.md for how media are named."
        yield Finding("error", "source", problem, remedy)
        return
    with os.scandir(folder) as entries:
        speakers = [entry.path for entry in entries if is_speaker_id(entry.name) and entry.is_dir()]
    unreadable = [path for path in speakers if not os.access(path, os.R_OK | os.X_OK)]
    message = f"speaker folders in {folder}: {len(speakers):,}"
    if unreadable:
        message += f", of which unreadable: {len(unreadable):,}, the first {min(unreadable)}"
        yield Finding("warning", "source", message, "Make them readable.")
    else:
        yield Finding("ok", "source", message)


def check_cut_audio(inputs: Inputs, place: str) -> Findings:
    """Check that cut audio is there, with all of its parts as far as their names tell."""
    audio = find_cut_audio(place)
    if audio is None:
        yield Finding("error", "source", f"no cut audio in {place}", "Name another with --source.")
    elif audio.folder is not None:
        yield Finding("ok", "source", f"a folder of cut audio, {audio.folder}")
    for archive in audio.archives if audio else ():
        parts = "1 file" if len(archive.parts) == 1 else f"{len(archive.parts):,} parts"
        size = size_text(archive.size_bytes)
        yield Finding("ok", "source", f"an archive of cut audio, {archive.name}: {parts}, {size}")
    if inputs.request.with_faces:
        remedy = "Use --config audio, or name a source of videos with --source."
        yield Finding("error", "source", "cut audio has no faces", remedy)


def _selected(inputs: Inputs) -> Iterator[VideoKey] | None:
    """Yield the selected videos; ``None`` if the index is not there, or not of this selection."""
    if inputs.index is None:
        return None
    try:
        return selected_keys(inputs.index, inputs.request.selection)
    except SelectionError:
        return None  # The check of the disk says so.


def check_network(inputs: Inputs, source: SourceSpec) -> Findings:
    """Check that the source responds through each proxy, and compare its clock with ours."""
    clock_checked = False
    for proxy in inputs.proxies:
        where = (
            f"{_host(source)} through {redact(proxy, secrets_in(proxy))}"
            if proxy
            else _host(source)
        )
        try:
            result = probe_server(source.front_page, proxy=proxy)
        except UnreachableError as error:
            remedy = "Check the network and the URL of the source"
            remedy += ", and the URL, user name and password of the proxy." if proxy else "."
            yield Finding("error", "network", f"no response from {where}: {error}", remedy)
            continue
        yield _judge_response(result, f"response from {where}: HTTP {result.status}", source)
        if not clock_checked and result.clock_off_seconds is not None:
            clock_checked = True
            yield _judge_clock(result.clock_off_seconds)


def _host(source: SourceSpec) -> str:
    return urlsplit(source.front_page).hostname or source.label


def _judge_response(result: ProbeResult, message: str, source: SourceSpec) -> Finding:
    if result.status == 407:
        remedy = "The proxy requires a user name and a password in --proxy."
        return Finding("error", "network", message, remedy)
    if result.status == 429:
        remedy = "Too many requests from this IP: wait an hour, or use another route with --proxy."
        return Finding("warning", "network", message, remedy)
    if result.status >= 500:
        return Finding("warning", "network", message, "The server fails: try again later.")
    if source.kind == "youtube" and result.status != 204:
        remedy = "204 is expected: something in between may be responding, such as a login page."
        return Finding("warning", "network", message, remedy)
    # Any other status will do: a server of media need not have a front page.
    return Finding("ok", "network", message)


def _judge_clock(off_seconds: float) -> Finding:
    size = abs(off_seconds)
    if size <= _CLOCK_WARNING_SECONDS:
        return Finding("ok", "clock", "within a minute of the source's clock")
    side = "ahead of" if off_seconds > 0 else "behind"
    message = f"{size:,.0f} s {side} the source's clock"
    remedy = "Set this machine's clock: certificates, cookies and waiting times depend on it."
    return Finding("error" if size > _CLOCK_ERROR_SECONDS else "warning", "clock", message, remedy)


def check_cookie_files(inputs: Inputs, source: SourceSpec) -> Findings:
    """Check that each cookie file is usable for the source."""
    if not source.is_remote:
        message = "a folder of media needs no cookies"
        yield Finding("warning", "cookies", message, "Leave out --cookies, or name another source.")
        return
    for path in inputs.cookies:
        check = check_cookies(path, host=_host(source))
        yield Finding(check.level, "cookies", f"{path}: {check.message}", check.remedy)
