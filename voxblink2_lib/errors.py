"""Every error the library raises on purpose.

VoxBlink2Error
├── ReleaseError (ValueError)       the release is missing, unreadable or hostile
├── SelectionError (ValueError)     the selection names things that are not there
├── SourceError (ValueError)        the source of media is not one we can read from
├── StoreError
│   ├── StoreMismatchError (ValueError)  the store holds another corpus
│   ├── StoreReadOnlyError          the store cannot be written to, and work is left
│   ├── StoreBusyError              another process works on the store
│   ├── StoreFullError              no space is left; free some and run again
│   └── StoreDamagedError           a file of the store is not what was written
│       └── ClipDamagedError        one clip of a sealed shard cannot be decoded
├── MediaError                      one media file cannot be cut; becomes an outcome
├── FetchError                      one video did not come; becomes an outcome
│   └── UnreachableError            no answer came at all: the network is down
├── ScoringError (ValueError)       scores, labels, embeddings or lists of trials are not usable
├── ModelError (ValueError)         a checkpoint, a model or a waveform given to one is not usable
├── TrainingError (ValueError)      utterances, samplers or their state are not usable
├── EmbeddingError (ValueError)     what is to be embedded, or where to write it, is not usable
├── DependencyError (ImportError)   something this machine must have is missing
└── StoppedError                    work is left; run the same command again
    └── BlockedError                every outgoing address is blocked; do something first
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxblink2_lib.outcomes import Status


class VoxBlink2Error(Exception):
    """Root of all errors of this library. ``exit_code`` is what the command line returns."""

    exit_code = 2


class ReleaseError(VoxBlink2Error, ValueError):
    """The release cannot be read."""


class SelectionError(VoxBlink2Error, ValueError):
    """The selection is not possible on this release."""


class SourceError(VoxBlink2Error, ValueError):
    """The source of media is not usable at all."""


class StoreError(VoxBlink2Error):
    """The store cannot be used."""


class StoreMismatchError(StoreError, ValueError):
    """What was asked for would mix two corpora in one store."""


class StoreReadOnlyError(StoreError):
    """The store lacks something and cannot be written to."""


class StoreBusyError(StoreError):
    """Another process holds the store's lock."""

    exit_code = 3


class StoreFullError(StoreError):
    """The disk is full. What was finished is kept."""

    exit_code = 3


class StoreDamagedError(StoreError):
    """A sealed file is not what its checksum says."""

    exit_code = 1


class ClipDamagedError(StoreDamagedError):
    """A clip cannot be decoded. The text names its shard, row and utterance."""


class MediaError(VoxBlink2Error):
    """A media file cannot be cut."""


class FetchError(VoxBlink2Error):
    """A video did not come.

    Args:
        words: the source's own words.
        status: the class of the outcome.
        pause_seconds: ask nothing more of this address for so long; ``None`` means go on.
        pause_grows: the source did not say how long; pauses in a row grow.
        closes_route: ask nothing more of this address until the user has done something.
        bytes_fetched: what came over the network before it failed.
    """

    def __init__(
        self,
        words: str,
        *,
        status: Status = "transient",
        pause_seconds: float | None = None,
        pause_grows: bool = False,
        closes_route: bool = False,
        bytes_fetched: int = 0,
    ) -> None:
        super().__init__(words)
        self.status = status
        self.pause_seconds = pause_seconds
        self.pause_grows = pause_grows
        self.closes_route = closes_route
        self.bytes_fetched = bytes_fetched


class UnreachableError(FetchError):
    """No answer at all came from the source: the network or the server is down."""


class ScoringError(VoxBlink2Error, ValueError):
    """Something given to a metric is not usable. The text names the argument and the row."""


class ModelError(VoxBlink2Error, ValueError):
    """A checkpoint, a model, or a waveform given to one is not usable."""


class TrainingError(VoxBlink2Error, ValueError):
    """Utterances, a sampler, its state or an augmentation are not usable for training."""


class EmbeddingError(VoxBlink2Error, ValueError):
    """What is to be embedded, or the file to write, is not usable."""


class DependencyError(VoxBlink2Error, ImportError):
    """A program or library that the machine must have is missing."""


class StoppedError(VoxBlink2Error):
    """The run ended with work left. Everything finished is kept."""

    exit_code = 3


class BlockedError(StoppedError):
    """The source refuses every outgoing address. Everything finished is kept."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
