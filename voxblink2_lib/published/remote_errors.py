"""What goes wrong with a store at a URL, in words, and which of it a second try may mend."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from voxblink2_lib.archive.urls import is_final, words_of
from voxblink2_lib.errors import StoreDiskError, StoreError, VoxBlink2Error
from voxblink2_lib.files import system_error
from voxblink2_lib.redaction import redacted_source

__all__ = [
    "PAUSES_SECONDS",
    "is_refusal",
    "is_status",
    "is_worth_another_try",
    "store_errors",
    "tried",
    "words_of",
]

# Package of an extra of ours, or else of PyPI, that opens URLs of a protocol.
_PACKAGES = {"s3": "'voxblink2[s3]'", "s3a": "'voxblink2[s3]'", "gs": "gcsfs", "gcs": "gcsfs"}
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials.",
    "gs": "Log in with 'gcloud auth application-default login'.",
    "hf": "Log in with 'hf auth login', or set HF_TOKEN.",
}
# Between tries.
PAUSES_SECONDS = (1.0, 3.0, 9.0)

T = TypeVar("T")


def tried(action: Callable[[], T]) -> T:
    """Return the result of an action that is tried a few times, unless another try is of no use."""
    for pause in PAUSES_SECONDS:
        try:
            return action()
        except Exception as error:  # of botocore and aiohttp, many are no OSError
            if not is_worth_another_try(error):
                raise
        time.sleep(pause)
    return action()


def is_worth_another_try(error: BaseException) -> bool:
    """Return whether the same may work later, with nothing changed by anybody here."""
    return not (isinstance(error, VoxBlink2Error) or is_final(error) or is_refusal(error))


def is_refusal(error: BaseException) -> bool:
    """Return whether a server refuses whoever is asking, or lacks credentials to be asked with."""
    return "Credential" in type(error).__name__ or isinstance(error, FileExistsError)


@contextlib.contextmanager
def store_errors(url: str, verb: str, *, noun: str = "store") -> Iterator[None]:
    """Turn whatever fsspec, or the package of a protocol, raises into an error of the store.

    Args:
        url: of the store, with its secrets.
        verb: what was done to it: read, published.
        noun: what it is.

    Raises:
        StoreDiskError: its server does not answer as it should; running again may help.
        StoreError: its user has to change something.
    """
    try:
        yield
    except VoxBlink2Error:
        raise
    except Exception as error:
        raise _named(error, url, verb, noun) from error


def _named(error: Exception, url: str, verb: str, noun: str) -> StoreError:
    if url.startswith("file://") and (named := system_error(error, Path(url))):
        return named
    problem = f"The {noun} {redacted_source(url)} cannot be {verb}: {words_of(error, url)}."
    advice = _advice(error, url.partition("://")[0].lower())
    if advice:
        return StoreError(f"{problem} {advice}")
    return StoreDiskError(
        f"{problem} Everything finished is kept: check the network, and run the same command again."
    )


def _advice(error: Exception, protocol: str) -> str:
    """Return what a user has to change; empty if running again may help."""
    text = str(error).lower()
    is_refused = isinstance(error, PermissionError) or is_status(error, 401, 403)
    rules = {
        f"Install it: pip install {_PACKAGES.get(protocol, 'the package that is named')}": (
            isinstance(error, ImportError)
        ),
        "Name a folder, or a URL such as s3://bucket/store.": (
            isinstance(error, ValueError) and "protocol" in text
        ),
        _CREDENTIALS.get(protocol, "Log in to its server."): "Credential" in type(error).__name__,
        "Ask its owner for permission, or use other credentials.": is_refused,
        "Make the bucket first, or check its name.": (
            isinstance(error, FileNotFoundError) and "bucket does not exist" in text
        ),
        "Check the address.": isinstance(error, FileNotFoundError),
    }
    return next((advice for advice, applies in rules.items() if applies), "")


def is_status(error: BaseException, *statuses: int) -> bool:
    """Return whether an error has one of some statuses of HTTP."""
    response = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None)
    return status in statuses
