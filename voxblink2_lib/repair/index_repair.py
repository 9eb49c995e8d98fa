"""The index: whether it is whole, and making it again from the release."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from voxblink2_lib.errors import ReleaseError, StoreError, next_command
from voxblink2_lib.materialize.last_run import read_last_run
from voxblink2_lib.materialize.planning import diff_plan
from voxblink2_lib.progress import Progress
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import Release, open_release
from voxblink2_lib.release.speaker_index_build import update_speakers
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.annotations import has_no_annotations
from voxblink2_lib.store.ledger import Ledger


def mend_index(
    bench: Workbench, configs: Sequence[str], *, data_dir: str | None, progress: Progress
) -> Index | None:
    """Return the index, made again if it is damaged.

    ``None`` if that cannot be done, or if the store was begun without annotations.

    Args:
        bench: the store.
        configs: its configurations.
        data_dir: the release; by default the one that the store remembers.
        progress: counts the files of the release.
    """
    if not bench.store.index.exists() and has_no_annotations(bench.store):
        return None
    problem = _problem(bench)
    if not problem:
        return Index(bench.store.index)
    try:
        release = open_release(data_dir or remembered_release(bench, configs))
    except ReleaseError:
        bench.problems.append(f"{problem} {_advice(bench)}")
        return None
    return _made_again(bench, release, configs, problem, progress)


def _problem(bench: Workbench) -> str:
    try:
        return next(Index(bench.store.index).problems(), "")
    except StoreError as error:
        return str(error)


def remembered_release(bench: Workbench, configs: Sequence[str]) -> str | None:
    """Return the release of the last run of any configuration."""
    releases = (read_last_run(bench.store, config)[1].get("data_dir") for config in configs)
    return next(filter(None, releases), None)


def _advice(bench: Workbench) -> str:
    return (
        "It is made again from the release, which is not where it was, or not remembered: "
        f"{next_command('repair', store=bench.shown_root, data_dir='RELEASE')}."
    )


def _made_again(
    bench: Workbench, release: Release, configs: Sequence[str], problem: str, progress: Progress
) -> Index | None:
    folder = bench.store.index
    fresh = folder.with_name(f"{folder.name}.new")
    # Stopped, it leaves what the next repair goes on with.
    new = build_index(release, fresh, progress=progress)
    try:
        if other := _other_release(bench, new, configs):
            bench.problems.append(f"{problem} {other}")
            return None
        if os.path.lexists(folder):
            bench.put_away("index", folder, f"{problem} Made again from {release.path}")
        else:
            bench.mend("index", folder, f"{problem} Made again from {release.path}")
        if folder.is_symlink():  # of a dry run
            folder.unlink()
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    index = Index(folder)
    update_speakers(release, index, progress=progress)
    return index


def _other_release(bench: Workbench, index: Index, configs: Sequence[str]) -> str:
    """Return how a release contradicts what the store holds; an empty text if it does not."""
    for config in configs:
        with Ledger(bench.store.ledger, config, readonly=True) as ledger:
            diff = diff_plan(index.videos(), ledger.planned_videos())
        if count := len(diff.outside) + len(diff.changed):
            return (
                f"The release {index.info.signature!r} cannot replace it: {count:,} videos of the "
                f"store are missing in it or annotated otherwise. {_advice(bench)}"
            )
    return ""
