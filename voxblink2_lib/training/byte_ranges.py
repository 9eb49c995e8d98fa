"""Ranges of bytes of remote files, each with the version of the file that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import fsspec
from fsspec.asyn import sync

_S3 = {"s3", "s3a"}
_WEB = {"http", "https"}
_MOST_CONNECTIONS = 32
_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE = 412, 416
# What changes with the content of a file, of all file systems.
_VERSION_NAMES = {
    *("size", "ETag", "etag", "LastModified", "Last-Modified", "mtime", "updated", "created"),
    *("blob_id", "generation"),
}


class OtherVersionError(Exception):
    """A file has not the version any more that was named."""


class ByteRange(NamedTuple):
    """What came of a file.

    Attributes:
        data: fewer bytes than were requested if the file ends before.
        version: a text that changes with the content; empty if the server gives none.
    """

    data: bytes
    version: str


def connect(url: str) -> tuple[Any, str]:
    """Return a file system that tries nothing again by itself, and the path in it.

    Each process makes its own: connections do not survive a fork.
    """
    protocol = url.partition("://")[0]
    if protocol not in _S3:
        system, path = fsspec.core.url_to_fs(url)
        return system, path
    given: dict[str, Any] = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    config = {"max_pool_connections": _MOST_CONNECTIONS, **given, "retries": {"max_attempts": 0}}
    system, path = fsspec.core.url_to_fs(url, config_kwargs=config)
    system.retries = 1
    return system, path


def read_range(system: Any, path: str, start: int, size: int, version: str | None) -> ByteRange:
    """Read a range of bytes.

    Args:
        system: from :func:`connect`.
        path: of the file.
        start: the first byte.
        size: number of bytes.
        version: that the file should have; ``None`` if any will do.

    Raises:
        OtherVersionError: it has another one. Not all servers find that out by themselves, so
            compare the version that is returned, too.
        Exception: whatever the file system raises.
    """
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols & _S3:
        return _run(system, _from_s3(system, path, start, size, version))
    if protocols & _WEB:
        return _run(system, _from_web(system, path, start, size))
    # Before the content: if that is newer, the next range is refused.
    present = version_text(system.info(path))
    return ByteRange(bytes(system.cat_file(path, start=start, end=start + size)), present)


def version_text(info: Mapping[str, Any]) -> str:
    r"""Return those values of a remote file that change with its content, as one text.

    >>> version_text({"name": "x", "size": 3, "ETag": '"5d41"'})
    '[(\'ETag\', \'"5d41"\'), (\'size\', \'3\')]'
    """
    return repr(sorted((name, str(info[name])) for name in _VERSION_NAMES & set(info)))


def _run(system: Any, coroutine: Any) -> ByteRange:
    async def awaited() -> ByteRange:
        result: ByteRange = await coroutine
        return result

    result: ByteRange = sync(system.loop, awaited)
    return result


async def _from_s3(system: Any, path: str, start: int, size: int, version: str | None) -> ByteRange:
    bucket, key, _ = system.split_path(path)
    condition = {"IfMatch": version} if version else {}
    span = f"bytes={start}-{start + size - 1}"
    try:
        answer = await system._call_s3(
            "get_object", Bucket=bucket, Key=key, Range=span, **condition
        )
    except OSError as error:
        if _status(error) == _PRECONDITION_FAILED:
            raise OtherVersionError from error
        if _status(error) == _RANGE_NOT_SATISFIABLE:
            return ByteRange(b"", version or "")
        raise
    try:
        return ByteRange(await answer["Body"].read(), str(answer.get("ETag", "")))
    finally:
        answer["Body"].close()


def _status(error: BaseException) -> int:
    """Return the status of HTTP of an error that s3fs has made of one of botocore."""
    response = getattr(error.__cause__, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


async def _from_web(system: Any, path: str, start: int, size: int) -> ByteRange:
    options = dict(system.kwargs)
    headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{start + size - 1}"}
    session = await system.set_session()
    async with session.get(system.encode_url(path), headers=headers, **options) as answer:
        if answer.status == _RANGE_NOT_SATISFIABLE:
            return ByteRange(b"", "")
        system._raise_not_found_for_status(answer, path)
        data = await answer.read()
        return ByteRange(
            data, answer.headers.get("ETag") or answer.headers.get("Last-Modified", "")
        )
