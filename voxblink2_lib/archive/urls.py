"""URLs that fsspec opens: their parts, their file systems, and what these raise in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from voxblink2_lib.errors import SourceError, first_line
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.redaction import redact, redacted_source, secrets_in


def system_of(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path


def is_web(url: str) -> bool:
    """Return whether a URL is one of HTTP, which may have a query and is percent-encoded."""
    return url.lower().startswith(("http://", "https://"))


def split_query(url: str) -> tuple[str, str]:
    """Return a URL without its query, and the query; only those of HTTP have one."""
    if not is_web(url):
        return url, ""
    place, mark, query = url.partition("?")
    return place, f"{mark}{query}"


def parent_of(url: str) -> str:
    """Return the URL above one, without secrets."""
    return redacted_source(split_query(url)[0].rpartition("/")[0])


def name_in(url: str) -> str:
    """Return the last part of a URL's path."""
    name = split_query(url)[0].rpartition("/")[2]
    return unquote(name) if is_web(url) else name


@contextlib.contextmanager
def own_errors(url: str, verb: str) -> Iterator[None]:
    """Turn whatever fsspec, or the package of a protocol, raises into an error of ours."""
    place = redacted_source(url)
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        package = "'voxblink2[s3]'" if url.startswith("s3://") else "the package it names"
        raise SourceError(
            f"{place} cannot be {verb}: {words_of(error, url)}. Install it: pip install {package}."
        ) from error
    except Exception as error:
        raise SourceError(
            f"{place} cannot be {verb}: {words_of(error, url)}. Check the address, the network, "
            "and that you may read it."
        ) from error


def words_of(error: BaseException, url: str) -> str:
    """Return the message of a foreign error, without secrets and line ends."""
    text = redact(first_line(error), secrets_in(url))
    named = text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}"
    return visible(shortened(named, quoted=False)).rstrip(".")


def is_absence(error: BaseException) -> bool:
    """Return whether an error says that there is no such file."""
    return isinstance(error, FileNotFoundError) or _status(error) in {404, 410}


def is_final(error: BaseException) -> bool:
    """Return whether trying again is of no use."""
    kinds = (FileNotFoundError, PermissionError, ValueError, ImportError)
    return isinstance(error, kinds) or _status(error) in {401, 403, 404, 410}


def _status(error: BaseException) -> int:
    """Return the status of HTTP that an error of aiohttp or of the Hub has."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return int(getattr(error, "status", status) or 0)
