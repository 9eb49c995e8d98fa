"""Checks of the release and of the place where the store is to be."""

from __future__ import annotations

import shutil
from pathlib import Path

from voxblink2_lib.doctor.disk_space import SpaceEstimate, estimate_space
from voxblink2_lib.doctor.file_system import existing_folder, probe_capabilities
from voxblink2_lib.doctor.findings import Finding, Findings, Inputs, Level
from voxblink2_lib.errors import (
    ReleaseError,
    SelectionError,
    StoreError,
    StoreFullError,
    first_line,
    next_command,
)
from voxblink2_lib.release.location import Release
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

_UNKNOWN_NEED_BYTES = 5e9  # free space to warn below, where the size of the run is unknown


def check_release(_: Inputs, release: Release) -> Findings:
    """Check that the first annotation of a release can be read."""
    try:
        first = next(iter(release.annotations()), None)
    except (ReleaseError, OSError) as error:
        yield Finding("error", "release", first_line(error), "Download the release again.")
        return
    if first is None:
        message = f"{release.path} is empty"
        yield Finding("error", "release", message, "Download the release again.")
    elif first.problem:
        message = f"{first.path} in {release.path}: {first.problem}"
        yield Finding("warning", "release", message, "Make every file of the release readable.")
    else:
        yield Finding("ok", "release", f"{release.path} is readable")


def check_disk(inputs: Inputs, store: Store) -> Findings:
    """Compare the free disk space with what the selection needs."""
    try:
        estimate = estimate_space(inputs.request, store, inputs.index)
    except SelectionError as error:
        yield Finding("error", "selection", first_line(error), "Change the selection.")
    except StoreError as error:
        yield Finding("error", "store", first_line(error), "Name another store with --store.")
    else:
        free_bytes = _free_bytes(existing_folder(store.root))
        yield _judge_space(estimate, free_bytes, store.root, inputs.request.data_dir)


def _judge_space(
    estimate: SpaceEstimate, free_bytes: int, root: Path, data_dir: str | None
) -> Finding:
    level: Level
    message = f"{free_bytes / 1e9:,.1f} GB free for {root}; "
    if estimate.hours is None or estimate.needed_bytes is None:
        needed_bytes, level = _UNKNOWN_NEED_BYTES, "warning"
        message += f"1,000 hours need about {estimate.hour_bytes / 1e6:,.0f} GB; run "
        message += next_command("index", store=root, data_dir=data_dir or "RELEASE")
        message += " for an estimate of the whole selection"
    else:
        needed_bytes, level = estimate.needed_bytes, "error"
        message += f"the remaining {estimate.hours:,.2f} hours need "
        message += f"about {needed_bytes / 1e9:,.1f} GB"
    if free_bytes >= needed_bytes:
        return Finding("ok", "disk", message)
    remedy = "Free some space, name a store on a larger disk, or select less."
    return Finding(level, "disk", message, remedy)


def check_clips(inputs: Inputs, store: Store) -> Findings:
    """Check that clips can be added to those that the store holds."""
    if not store.ledger.exists():
        return
    try:
        with Ledger(store.ledger, inputs.request.config, readonly=True) as ledger:
            number = read_clip_format(store, ledger)
    except StoreError as error:
        yield Finding("error", "clips", first_line(error), "Name another store with --store.")
        return
    if number != CLIP_FORMAT:
        message = f"{store.root} holds clips of format {number}; this version makes {CLIP_FORMAT}"
        remedy = "It can be used as it is. To add clips, name another store with --store."
        yield Finding("error", "clips", message, remedy)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def check_file_system(_: Inputs, store: Store) -> Findings:
    """Check that the store's file system supports locks, SQLite and links."""
    folder = existing_folder(store.root)
    try:
        capabilities = probe_capabilities(folder)
    except (OSError, StoreFullError) as error:
        message = f"{folder} is not writable: {getattr(error, 'strerror', '') or error}"
        remedy = "Make it writable, free some space, or name another store."
        yield Finding("error", "file system", message, remedy)
        return
    for capability in capabilities:
        message = f"{folder} does not support {capability.name}: {capability.problem}"
        if capability.problem and capability.is_needed:
            yield Finding("error", "file system", message, "Name a store on a local disk.")
        elif capability.problem:
            remedy = "Symbolic links are used instead; do not move the store afterwards."
            yield Finding("warning", "file system", message, remedy)
    supported = ", ".join(item.name for item in capabilities if not item.problem)
    yield Finding("ok", "file system", f"{folder} supports {supported}")
