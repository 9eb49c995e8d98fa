"""What a store remembers of its last run, and the request that goes on with it.

Of an option counts what is given now; else what the store remembers; else, where it may hold a
secret, the environment variable of its name; else its default. Secrets are not kept: a value that
held one is remembered without it, and that is no value to go on with.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxblink2_lib.archive.recognition import find_cut_audio
from voxblink2_lib.errors import (
    ReleaseError,
    SelectionError,
    SourceError,
    StoreError,
    VoxBlink2Error,
    next_command,
)
from voxblink2_lib.materialize.places import remembering_store
from voxblink2_lib.materialize.request import (
    EVERYTHING,
    MaterializeRequest,
    user_options,
)
from voxblink2_lib.published.place import is_url
from voxblink2_lib.records import (
    CONFIG_NAMES,
    is_speaker_id,
    is_video_id,
    option_string,
    option_variable,
    options_of,
)
from voxblink2_lib.redaction import HIDDEN, redact, redacted_source, secrets_in
from voxblink2_lib.release.location import BUILTIN_RELEASE, RELEASE_VARIABLE, open_release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.ledger import Ledger

_log = logging.getLogger(__name__)

# The ledger has settings of their own of the source and of the options of clips.
_REQUEST, _SOURCE = "request", "source"
_IDS = ("speakers", "videos", "exclude")
# A folder takes none of these.
_REMOTE = set(FetchOptions.names()) - {"fetches"}
# One of these takes the place of the other.
_INSTEAD = {"cookies": "cookies_from_browser", "cookies_from_browser": "cookies"}

# -- Writing ---------------------------------------------------------------------------------------


def remember_run(request: MaterializeRequest, store: Store, ledger: Ledger, *, source: str) -> None:
    """Write what a run is asked for, without secrets, and paths in full.

    Args:
        request: what the run is asked for.
        store: the store, locked by this process.
        ledger: its ledger.
        source: name of the source, without secrets.
    """
    if read_clip_format(store, ledger) != CLIP_FORMAT:
        return  # Nothing is written, so that the version that made it can go on.
    for name, text in ((_REQUEST, json.dumps(_kept(request))), (_SOURCE, source)):
        if ledger.setting(name) != text:
            ledger.set_setting(name, text)
    ledger.set_last_config()


def _kept(request: MaterializeRequest) -> dict[str, Any]:
    """Return the options that are not the default, as JSON has them."""
    values: dict[str, Any] = {"data_dir": _release_path(request.data_dir)}
    values["workers"] = request.workers
    for record in (request.selection, request.fetch):
        default = type(record)()
        for name in options_of(type(record)):
            value = getattr(record, name)
            values[name] = None if value == getattr(default, name) else _storable(name, value)
    return {name: value for name, value in values.items() if value is not None}


def _release_path(data_dir: str | None) -> str | None:
    named = data_dir or os.environ.get(RELEASE_VARIABLE)
    if named and "://" in named:
        return redacted_source(named)
    return _full_path(named) if named and named != BUILTIN_RELEASE else named


def _full_path(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _storable(name: str, value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_storable(name, text) for text in value]
    if name in {"cookies", "reasons"}:
        return _full_path(value)
    return _without_secrets(value) if user_options()[name].may_be_secret else value


def _without_secrets(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError:  # With a quote that is not closed, it is unknown what is a value.
        return HIDDEN
    return redact(text, secrets_in(text))


# -- Reading ---------------------------------------------------------------------------------------


def read_last_run(store: Store, config: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return the configuration and the options of a store's last run.

    Args:
        store: the store, which need not exist.
        config: the configuration; by default that of the last run. One that had no run yet has
            the options of the other.

    Returns:
        The configuration, ``"audio"`` in a new store; and the options by their names, without
        secrets, of those that are not the default.

    Raises:
        StoreError: the ledger cannot be read.
    """
    default = config or CONFIG_NAMES[0]
    if not store.ledger.exists():
        return default, {}
    with Ledger(store.ledger, default, readonly=True) as ledger:
        last = ledger.last_config() or default
        options = _read_options(ledger, config or last) or _read_options(ledger, last)
    return config or last, options


def _read_options(ledger: Ledger, config: str) -> dict[str, Any]:
    text = ledger.setting(_REQUEST, config=config)
    source = ledger.setting(_SOURCE, config=config)
    try:
        record = dict(json.loads(text or "{}"))
    except (TypeError, ValueError, RecursionError):  # not written by a run
        record = {}
    record[_SOURCE] = source
    if not isinstance(record.get("data_dir"), str):
        record["data_dir"] = None
    return {name: record[name] for name in EVERYTHING if record.get(name) is not None}


def resumed_request(
    given: Mapping[str, Any], names: Collection[str] = EVERYTHING
) -> MaterializeRequest:
    """Return the request of options that are given now, completed by those of the last run.

    Args:
        given: options by their names, as :meth:`MaterializeRequest.of` takes them.
        names: which options may be completed.

    Raises:
        SourceError: an option lacks its secret, or the source is no longer there.
        ReleaseError: the release cannot be opened, or none is named that says which store.
        SelectionError, StoreError: an option is not allowed.
    """
    given = {name: value for name, value in given.items() if value is not None}
    store = _store_of(given)
    try:
        given["config"], remembered = read_last_run(store, given.get("config"))
    except StoreError:
        if not (given.get("data_dir") or os.environ.get(RELEASE_VARIABLE)):
            raise
        given.setdefault("config", CONFIG_NAMES[0])
        remembered = {}  # The run mends the ledger, or reports what is wrong with it.
    options: dict[str, Any] = {}
    if "data_dir" in given:
        # Who names the release says what of it is wanted: a trial of two speakers does not limit
        # the run after it.
        names = [name for name in names if name not in options_of(Selection)]
    for name in names:
        if name not in given and _INSTEAD.get(name) not in given:
            options[name] = _value(name, remembered.get(name))
    if _is_folder(**{_SOURCE: None, "data_dir": None, **options, **given}):
        options = {name: value for name, value in options.items() if name not in _REMOTE}
    options = {name: value for name, value in options.items() if value is not None}
    _check_secrets(store, options)
    _check_places(store, given["config"], options, remembered)
    request = _completed(store, given, options)
    _report_selection(options)
    return request


def _report_selection(options: Mapping[str, Any]) -> None:
    """Say what limits the run: whoever has forgotten it would take a part for the corpus."""
    names = [name for name in options_of(Selection) if name in options]
    if names:
        shown = [f"{option_string(name)} {_shown(options[name])}" for name in names]
        left_out = " ".join(f"--forget {name.replace('_', '-')}" for name in names)
        _log.warning(
            "The selection is that of the store's last run: %s. To leave it out, add %s.",
            ", ".join(shown),
            left_out,
        )


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return value[0] if len(value) == 1 else f"({len(value):,} ids)"


def _store_of(given: Mapping[str, Any]) -> Store:
    """Return the store that is given, else that of the release."""
    names = ("data_dir", "store", "scratch", "shard_of_jobs", "source")
    places = {name: given.get(name) for name in names}
    request = MaterializeRequest.of(**places)
    if request.store is not None and not is_url(request.store):
        return named_store(request.store)
    return remembering_store(request)


def _value(name: str, remembered: Any) -> Any:
    """Return the value of an option that is not given; ``None`` for its default."""
    option = user_options()[name]
    lacks_secret = remembered is None or _lacks_secret(remembered)
    if not (lacks_secret and _may_be_secret(name, remembered)):
        return remembered
    text = os.environ.get(_variable(name))
    if not text:
        return remembered
    return shlex.split(text) if option.values == "repeat" else text


def _lacks_secret(value: Any) -> bool:
    return HIDDEN in str(value)


def _may_be_secret(name: str, remembered: Any) -> bool:
    """Return whether a value may lack its secret; of a release, only a URL does."""
    return user_options()[name].may_be_secret or (name == "data_dir" and remembered is not None)


def _variable(name: str) -> str:
    return RELEASE_VARIABLE if name == "data_dir" else option_variable(name)


def _is_folder(*, source: Any, data_dir: Any, **_: Any) -> bool:
    if source is None:
        return bool(data_dir == BUILTIN_RELEASE)
    return source != "youtube" and "://" not in str(source)


def _check_secrets(store: Store, options: Mapping[str, Any]) -> None:
    for name in options:
        if _may_be_secret(name, options[name]) and _lacks_secret(options[name]):
            kept = options[name] if isinstance(options[name], str) else " ".join(options[name])
            raise SourceError(
                f"The store {store.place} remembers {option_string(name)} as {kept}: secrets are "
                f"not kept. Give {option_string(name)} again in full, or set the environment "
                f"variable {_variable(name)} and run the same command again."
            )


def _check_places(
    store: Store, config: str, options: Mapping[str, Any], remembered: Mapping[str, Any]
) -> None:
    """Refuse a remembered release or folder of media that is no longer where it was."""
    problem: VoxBlink2Error | None = None
    places = {}
    source = options.get(_SOURCE)
    is_kept_folder = source == remembered.get(_SOURCE) and _is_folder(source=source, data_dir=None)
    if is_kept_folder and not os.path.isdir(str(source)) and not find_cut_audio(str(source)):
        problem = SourceError(f"The folder of media {source} does not exist.")
        places[_SOURCE] = "SOURCE"
    if release := options.get("data_dir"):
        try:
            open_release(release)
        except ReleaseError as error:
            problem = error
            limits = {name: options[name] for name in options_of(Selection) if name in options}
            places["data_dir"] = "RELEASE"
            places |= {name: _as_given(value) for name, value in limits.items()}
    if problem is not None:
        command = next_command("materialize", store=store.place, config=config, **places)
        raise type(problem)(
            f"{problem} The store {store.place} remembers it of its last run. If it was moved, "
            f"name its place: {command}"
        )


def _as_given(value: Any) -> Any:
    """Return a remembered selection for a command line; several ids are not written out."""
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else "FILE"


def _completed(
    store: Store, given: Mapping[str, Any], options: Mapping[str, Any]
) -> MaterializeRequest:
    ids: dict[str, Any] = {
        name: _checked_ids(store, name, options[name]) for name in _IDS if name in options
    }
    others = {name: value for name, value in options.items() if name not in ids}
    try:
        request = MaterializeRequest.of(**given, **others)
    except (SelectionError, SourceError) as error:
        MaterializeRequest.of(**given)  # Its own message, where what is given is wrong by itself.
        raise type(error)(
            f"{error} The store {store.place} remembers options of its last run, which this is one "
            "of: give it anew, or leave it out with --forget."
        ) from error
    return replace(request, selection=replace(request.selection, **ids))


def _checked_ids(store: Store, name: str, ids: Any) -> frozenset[str]:
    """Return ids that a store remembers: as a user's, one might be the name of a file."""
    if not isinstance(ids, list) or not all(map(_is_id, ids)):
        raise StoreError(
            f"The ledger {store.ledger} remembers {option_string(name)} with something that is no "
            f"id. Give {option_string(name)} anew, or leave it out with --forget."
        )
    return frozenset(ids)


def _is_id(text: Any) -> bool:
    return isinstance(text, str) and (is_speaker_id(text) or is_video_id(text))
