"""Refuse to add clips to a store whose clips are of another format."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from voxblink2_lib.errors import StoreMismatchError
from voxblink2_lib.materialize.planning import diff_plan
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import option_string, option_variable, options_of
from voxblink2_lib.redaction import is_redacted, redacted_source
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.location import RELEASE_VARIABLE
from voxblink2_lib.release.selection import Selection, select
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

# A command with more ids than this is not printed whole.
_MAX_ID_CHARACTERS = 500


def check_clip_format(
    request: MaterializeRequest,
    store: Store,
    ledger: Ledger,
    *,
    index: Index | None,
    retried: int,
) -> None:
    """Refuse a run that would add clips of this version's format to clips of another.

    Args:
        request: the request of the user.
        store: the store, locked by this process.
        ledger: its ledger, which is not changed.
        index: its index; ``None`` if the run plans no videos that are new.
        retried: how many failed videos would be tried again.

    Raises:
        StoreMismatchError: the store holds clips of another format, and work is left.
    """
    number = read_clip_format(store, ledger)
    if number == CLIP_FORMAT:
        return
    work = ", ".join(_work(request, ledger, index, retried))
    if not work:
        return
    root, name = shlex.quote(store.place), request.config
    if number > CLIP_FORMAT:
        raise StoreMismatchError(
            f"The store {store.place} holds clips of format {number}, which a later version made; "
            f"this version makes format {CLIP_FORMAT}. Update it: pip install -U voxblink2"
        )
    # A retry names neither; and a store does not know its selection.
    note = "\n  with the selection of the runs before" if index is None else ""
    raise StoreMismatchError(
        f"The store {store.place} holds clips of format {number}, made by voxblink2 0.1. This "
        f"version makes format {CLIP_FORMAT}: its audio has another level and another conversion "
        f"of the sampling rate (CHANGELOG.md says how), so both in one store would be two corpora. "
        f"Nothing was changed; left to do is: {work}. Make all clips anew, in another store:\n"
        f"  {_command(request, store, ledger)}{note}\n{_way_back(ledger)}"
        "What the store holds can be used as before:\n"
        f"  voxblink2 status --store {root} --config {name}\n"
        f'  load_dataset("voxblink2", "{name}", store={store.place!r})'
    )


def _work(
    request: MaterializeRequest,
    ledger: Ledger,
    index: Index | None,
    retried: int,
) -> Iterator[str]:
    if index is not None:
        diff = diff_plan(select(index, request.selection)[0], ledger.planned_videos())
        if len(diff.new):
            yield f"videos that it does not have ({len(diff.new):,})"
    if jobs := ledger.open_jobs():
        yield f"jobs that are not finished ({len(jobs):,})"
    for name in ClipOptions.names(request.config):
        value = request.clips.get(name, getattr(ClipOptions(), name))
        if ledger.setting(name) is None and value != getattr(ClipOptions(), name):
            yield f"clips with {name}={value!r}"
    if retried:
        yield f"videos that failed and would be tried again ({retried:,})"


def _way_back(ledger: Ledger) -> str:
    """Return how the earlier version finishes a store, if it can still open the ledger."""
    if not ledger.is_of_earlier_version:
        return ""
    return 'or finish this one with the version that began it:\n  pip install "voxblink2<0.2"\n'


def _command(request: MaterializeRequest, store: Store, ledger: Ledger) -> str:
    """Return the command line of the same run with another store."""
    words = ["voxblink2", "materialize", "--config", request.config]
    source = request.source or ledger.setting("source")
    if request.data_dir or not os.environ.get(RELEASE_VARIABLE):
        words += ["--data-dir", request.data_dir or "RELEASE"]
    is_secret = source is not None and is_redacted(redacted_source(source))
    if source and not is_secret:
        words += ["--source", source]
    words += ["--store", f"{store.root}-format-{CLIP_FORMAT}"]
    for name in ClipOptions.names(request.config):
        # An option that is newer than the store is as requested now.
        value = ledger.setting(name) or request.clips.get(name)
        if value is not None and str(value) != str(getattr(ClipOptions(), name)):
            words += [option_string(name), str(value)]
    left_out: list[str] = []
    for name in options_of(Selection):
        value = getattr(request.selection, name)
        if not value:
            continue
        values = sorted(value) if isinstance(value, frozenset) else [str(value)]
        if _fits_a_command(values):
            words += [option_string(name), *values]
        else:
            left_out.append(option_string(name))
    note = f"\n  with {' and '.join(left_out)} as in this run" if left_out else ""
    if is_secret:
        note += f"\n  with the source in the environment variable {option_variable('source')}"
    return shlex.join(words) + note


def _fits_a_command(ids: list[str]) -> bool:
    """Return whether ids can be written one by one: few, and none that looks like an option."""
    return sum(map(len, ids)) <= _MAX_ID_CHARACTERS and not any(i.startswith("-") for i in ids)
