"""Check everything that a long run needs, before the first video.

Each check is a function over the inputs that it requires; where one of these is missing, the check
is skipped. A check does not raise for the problem that it looks for: the problem becomes a finding
with its remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from voxblink2_lib.doctor import machine_checks, source_checks, store_checks
from voxblink2_lib.doctor.findings import Check, Finding, Inputs
from voxblink2_lib.errors import ReleaseError, SourceError, StoreError, first_line
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.records import CUT_AUDIO
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.location import RELEASE_VARIABLE, Release, open_release
from voxblink2_lib.sources import SourceSpec, parse_source
from voxblink2_lib.store.layout import Store, named_store, open_store


def run_checks(
    *, request: MaterializeRequest, proxies: Sequence[str] = (), cookies: Sequence[str] = ()
) -> list[Finding]:
    """Check everything that a run with this request would need.

    Leaves nothing behind. Sends one request per proxy to the source, for its front page only, with
    a time-out of 10 s.

    Args:
        request: what would be done, and where.
        proxies: URLs of proxies; without any, the environment decides.
        cookies: cookie files in Netscape format.

    Returns:
        The findings, in the order of the checks.
    """
    findings: list[Finding] = []
    inputs = _open_inputs(request, proxies, cookies, findings.append)
    for check in _CHECKS:
        findings += check.findings(inputs)
    return findings


def _open_inputs(
    request: MaterializeRequest,
    proxies: Sequence[str],
    cookies: Sequence[str],
    report: Callable[[Finding], None],
) -> Inputs:
    """Open what the request names, and report what cannot be opened."""
    release = source = store = index = None
    try:
        if request.data_dir is not None or os.environ.get(RELEASE_VARIABLE):
            release = open_release(request.data_dir)
    except (ReleaseError, OSError) as error:
        report(Finding("error", "release", first_line(error), "Name a release with --data-dir."))
    try:
        default = None if release is None else release.default_source
        source = parse_source(request.source or default)
    except (SourceError, OSError) as error:
        report(Finding("error", "source", first_line(error), "Name another source with --source."))
    try:
        if request.store is not None and is_url(request.store):
            store = scratch_store(request.store, request.scratch)
        elif request.store is not None:
            store = named_store(request.store)
        elif release is not None:
            store = open_store(None, release)
        if store is not None and (store.index / "index.json").exists():
            index = Index(store.index)
    except (StoreError, OSError) as error:
        report(Finding("error", "store", first_line(error), "Name another store with --store."))
    return Inputs(request, release, source, store, index, tuple(proxies) or (None,), (*cookies,))


# -- What checks require ---------------------------------------------------------------------------


def _nothing(inputs: Inputs) -> Inputs:
    return inputs


def _release(inputs: Inputs) -> Release | None:
    return inputs.release


def _store(inputs: Inputs) -> Store | None:
    return inputs.store


def _remote_source(inputs: Inputs) -> SourceSpec | None:
    return inputs.source if inputs.source is not None and inputs.source.is_remote else None


def _youtube(inputs: Inputs) -> SourceSpec | None:
    source = _remote_source(inputs)
    return source if source is not None and source.kind == "youtube" else None


def _media_folder(inputs: Inputs) -> str | None:
    source = inputs.source
    return source.place if source is not None and source.kind == "folder" else None


def _cut_audio(inputs: Inputs) -> str | None:
    source = inputs.source
    return source.place if source is not None and source.kind == CUT_AUDIO else None


def _source_and_cookies(inputs: Inputs) -> SourceSpec | None:
    return inputs.source if inputs.cookies else None


# -- The checks ------------------------------------------------------------------------------------

_CHECKS: tuple[Check[Any], ...] = (
    Check("python", _nothing, machine_checks.check_python),
    Check("packages", _nothing, machine_checks.check_packages),
    Check("yt-dlp", _remote_source, machine_checks.check_yt_dlp),
    Check("yt-dlp plugins", _remote_source, machine_checks.check_plugins),
    Check("ffmpeg", _nothing, machine_checks.check_ffmpeg),
    Check("javascript", _youtube, machine_checks.check_javascript),
    Check("release", _release, store_checks.check_release),
    Check("disk", _store, store_checks.check_disk),
    Check("clips", _store, store_checks.check_clips),
    Check("file system", _store, store_checks.check_file_system),
    Check("media folder", _media_folder, source_checks.check_media_folder),
    Check("cut audio", _cut_audio, source_checks.check_cut_audio),
    Check("network", _remote_source, source_checks.check_network),
    Check("cookies", _source_and_cookies, source_checks.check_cookie_files),
)
