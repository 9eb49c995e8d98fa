"""Every error the library raises on purpose.

VoxBlink2Error
├── UsageError (ValueError)         the command line was used wrongly
├── ReleaseError (ValueError)       the release is missing, unreadable or hostile
├── SelectionError (ValueError)     the selection names what the release does not contain
├── SourceError (ValueError)        the source of media is not usable
├── StoreError
│   ├── StoreMismatchError (ValueError)  the store holds another corpus
│   ├── StoreReadOnlyError          the store cannot be written to, and work is left
│   ├── StoreBusyError              another process works on the store
│   ├── StoreFullError              no space is left; free some and run again
│   ├── StoreDiskError              the disk or the system failed; run again when it works
│   └── StoreDamagedError           a file of the store is not what was written
│       └── ClipDamagedError        one clip of a sealed shard cannot be decoded
├── MediaError                      one media file cannot be cropped; becomes an outcome
├── FetchError                      one video is unavailable; becomes an outcome
│   └── UnreachableError            the source did not answer: the network is down
├── ScoringError (ValueError)       scores, labels, embeddings or trial lists are not usable
├── ModelError (ValueError)         a checkpoint, a model or a waveform given to one is not usable
├── TrainingError (ValueError)      utterances, samplers or their state are not usable
├── EmbeddingError (ValueError)     the audio to embed, or the output, is not usable
├── ExportError (ValueError)        the target of an export, or its format, is not usable
├── DependencyError (ImportError)   something this machine must have is missing
└── StoppedError                    work is left; run the same command again
    └── BlockedError                every route is blocked; the user must change something
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from voxblink2_lib.outcomes import (
    NO_ACTION,
    NO_FACTS,
    UNCLEAR,
    MediaFacts,
    RouteAction,
    Status,
)
from voxblink2_lib.records import option_string

# Within double quotes a shell would change these.
_CHANGED_IN_QUOTES = re.compile(r"[\"$`\\!]|[^ -~]")


class VoxBlink2Error(Exception):
    """Root of all errors of this library. ``exit_code`` is what the command line returns."""

    exit_code = 2


class UsageError(VoxBlink2Error, ValueError):
    """The command line was used wrongly. The library itself does not raise this."""


class ReleaseError(VoxBlink2Error, ValueError):
    """The release cannot be read."""


class SelectionError(VoxBlink2Error, ValueError):
    """The selection is not possible on this release."""


class SourceError(VoxBlink2Error, ValueError):
    """The source of media is not usable at all."""


class StoreError(VoxBlink2Error):
    """The store cannot be used."""


class StoreMismatchError(StoreError, ValueError):
    """The request would mix two corpora in one store."""


class StoreReadOnlyError(StoreError):
    """The store lacks something and cannot be written to."""


class StoreBusyError(StoreError):
    """Another process holds the store's lock."""

    exit_code = 3


class StoreFullError(StoreError):
    """The disk is full. Finished work is kept."""

    exit_code = 3


class StoreDiskError(StoreError):
    """The disk, its server or the system failed. Finished work is kept."""

    exit_code = 3


class StoreDamagedError(StoreError):
    """A sealed file does not match its checksum."""

    exit_code = 1


class ClipDamagedError(StoreDamagedError):
    """A clip cannot be decoded. The message names its shard, row and utterance."""


class MediaError(VoxBlink2Error):
    """A media file cannot be cropped."""


class FetchError(VoxBlink2Error):
    """A video is unavailable.

    Args:
        message: the original message of the source.
        status: the class of the outcome.
        action: what the failure means for the route.
        bytes_fetched: what was downloaded before it failed.
        facts: which renditions were chosen before it failed.
        is_explicit: the source's own words say so of this very video; by default as its class is.
        warnings: what yt-dlp warned of before.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Status = "transient",
        action: RouteAction = NO_ACTION,
        bytes_fetched: int = 0,
        facts: MediaFacts = NO_FACTS,
        is_explicit: bool | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.action = action
        self.bytes_fetched = bytes_fetched
        self.facts = facts
        self.is_explicit = status not in UNCLEAR if is_explicit is None else is_explicit
        self.warnings = warnings


class UnreachableError(FetchError):
    """The source did not answer at all: the network or the server is down."""


class ScoringError(VoxBlink2Error, ValueError):
    """Input of a metric is not usable. The message names the argument and the row."""


class ModelError(VoxBlink2Error, ValueError):
    """A checkpoint, a model, or a waveform given to one is not usable."""


class TrainingError(VoxBlink2Error, ValueError):
    """Utterances, a sampler, its state or an augmentation are not usable for training."""


class EmbeddingError(VoxBlink2Error, ValueError):
    """The audio to embed, or the file to write, is not usable."""


class ExportError(VoxBlink2Error, ValueError):
    """The target of an export, or its format, is not usable."""


class DependencyError(VoxBlink2Error, ImportError):
    """A program or library that the machine must have is missing."""


class StoppedError(VoxBlink2Error):
    """The run ended with work left. Finished work is kept."""

    exit_code = 3


class BlockedError(StoppedError):
    """The source refuses every route. Finished work is kept."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its type if that is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def next_command(command: str, *values: object, **options: object) -> str:
    r"""Return a command line of ours that runs as it is printed, in quotes, for a message.

    Every message that names a command makes it here; the tests run them.

    Args:
        command: its name.
        values: its arguments that are no options.
        options: their values by their names. A list gives the option for each value, true gives it
            alone, and what is ``None`` or false is left out.

    >>> next_command("verify", store="/data/my store", config="audio", missing=True, sample=None)
    '\'voxblink2 verify --store "/data/my store" --config audio --missing\''
    >>> next_command("archive check", "/data/my parts")
    '\'voxblink2 archive check "/data/my parts"\''
    """
    words = [f"./{value}" if str(value).startswith("-") else str(value) for value in values]
    words += [word for name, value in options.items() for word in _option_words(name, value)]
    return f"'{' '.join(['voxblink2', command, *map(_shell_word, words)])}'"


def _option_words(name: str, value: object) -> list[str]:
    """Return an option and its values as the command line takes them."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [word for inner in value for word in _option_words(name, inner)]
    if value is None or value is False:
        return []
    text = str(value)
    if value is True:
        return [option_string(name)]
    # The parser would take it for an option.
    return (
        [f"{option_string(name)}={text}"] if text.startswith("-") else [option_string(name), text]
    )


def _shell_word(word: str) -> str:
    """Return a word as a shell takes it; in double quotes, since single ones are around it all."""
    quoted = shlex.quote(word)
    return quoted if quoted == word or _CHANGED_IN_QUOTES.search(word) else f'"{word}"'
