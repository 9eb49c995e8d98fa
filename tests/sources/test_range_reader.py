"""Byte ranges of a remote file: headers, connections, and the rate. Servers are in test_prefix."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from yt_dlp.networking import Request, Response
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError

from voxblink2_lib.errors import FetchError
from voxblink2_lib.sources.range_reader import (
    FileChangedError,
    FileVersion,
    RangeAnswer,
    RangeReader,
    parse_range_answer,
)
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter

FILE = bytes(range(250)) * 4
BUDGET = TransferBudget.of(60.0)
HTML = "a page of HTML instead of media"

# -- Headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (206, {"Content-Range": "bytes 100-199/5000"}, RangeAnswer(100, True, 5000)),
        (206, {"Content-Range": " bytes 100-199/* "}, RangeAnswer(100, True, None)),
        (206, {"Content-Range": "bytes */5000"}, RangeAnswer(100, True, 5000)),
        # A malformed header is no reason to refuse: the length of the body shows what it is.
        (206, {"Content-Range": "100-199"}, RangeAnswer(100, True, None)),
        (206, {"Content-Range": "bytes 0-1/2, bytes 0-1/2"}, RangeAnswer(100, True, None)),
        (206, {"Content-Range": f"bytes 100-199/{10**18}"}, RangeAnswer(100, True, None)),
        (206, {}, RangeAnswer(100, True, None)),
        # Of a part, this is the length of the part.
        (206, {"Content-Length": "100"}, RangeAnswer(100, True, None)),
        (206, {"Content-Encoding": " Identity "}, RangeAnswer(100, True, None)),
        (200, {}, RangeAnswer(0, False, None)),
        (200, {"Content-Length": "5000"}, RangeAnswer(0, False, 5000)),
        (200, {"Content-Length": "0"}, RangeAnswer(0, False, 0)),
        (200, {"Content-Length": "many"}, RangeAnswer(0, False, None)),
        (200, {"Content-Length": "-1"}, RangeAnswer(0, False, None)),
        (200, {"Content-Range": "bytes 7-9/5000"}, RangeAnswer(0, False, None)),
        # The length of a compressed body is not that of the file.
        (200, {"Content-Length": "70", "Content-Encoding": "gzip"}, RangeAnswer(0, False, None)),
        (200, {"Content-Type": "video/mp4"}, RangeAnswer(0, False, None)),
    ],
)
def test_headers_state_what_the_body_is(
    status: int, headers: dict[str, str], expected: RangeAnswer
) -> None:
    assert parse_range_answer(status, headers, 100) == expected


@pytest.mark.parametrize(
    ("status", "headers", "kind", "message"),
    [
        (200, {"Content-Type": "text/html"}, "ambiguous", HTML),
        (206, {"Content-Type": "Text/HTML; charset=utf-8"}, "ambiguous", HTML),
        (200, {"Content-Type": "application/xhtml+xml"}, "ambiguous", HTML),
        (206, {"Content-Encoding": "GZIP"}, "ambiguous", "(Content-Encoding: gzip)"),
        (206, {"Content-Range": "bytes 0-99/5000"}, "transient", "from position 0 instead of 100"),
        (206, {"Content-Range": "bytes 101-1/*"}, "transient", "from position 101 instead of 100"),
    ],
)
def test_an_answer_without_the_requested_bytes_is_refused(
    status: int, headers: dict[str, str], kind: str, message: str
) -> None:
    with pytest.raises(FetchError, match=re.escape(message)) as caught:
        parse_range_answer(status, headers, 100)
    assert caught.value.status == kind


MONDAY, TUESDAY = "Mon, 03 Jan 2022 00:00:00 GMT", "Tue, 04 Jan 2022 00:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({}, ""),
        ({"ETag": '"a"', "Last-Modified": MONDAY, "Date": TUESDAY}, '"a"'),
        ({"Last-Modified": MONDAY, "Date": TUESDAY}, MONDAY),
        # It may change again within the second; or the server states no time.
        ({"Last-Modified": MONDAY, "Date": MONDAY}, ""),
        ({"Last-Modified": MONDAY}, ""),
        # A weak one does not promise the same bytes.
        ({"ETag": 'W/"a"', "Last-Modified": MONDAY, "Date": TUESDAY}, ""),
    ],
)
def test_ranges_are_requested_of_the_version_at_hand(
    headers: dict[str, str], condition: str
) -> None:
    assert FileVersion.of(headers).if_range == condition


@pytest.mark.parametrize(
    ("first", "later", "what"),
    [
        (FileVersion('"a"'), FileVersion('"b"'), "ETag"),
        (FileVersion('"a"', MONDAY), FileVersion('W/"b"', MONDAY), "ETag"),
        (FileVersion('"a"', MONDAY), FileVersion('W/"a"', TUESDAY), None),
        (FileVersion("", MONDAY), FileVersion("", TUESDAY), "Last-Modified"),
        (FileVersion('"a"', MONDAY), FileVersion("", TUESDAY), "Last-Modified"),
        (FileVersion('"a"', MONDAY), FileVersion(), None),
        (FileVersion(), FileVersion('"a"', MONDAY), None),
    ],
)
def test_versions_are_compared_by_what_both_answers_state(
    first: FileVersion, later: FileVersion, what: str | None
) -> None:
    if what is None:
        first.check(later)
    else:
        with pytest.raises(FileChangedError, match=f"changed while it was read, .* its {what} was"):
            first.check(later)


# -- Connections -----------------------------------------------------------------------------------


@dataclass
class Server:
    """Stands for ``YoutubeDL``: answers each request with the next of some functions.

    Attributes:
        answers: each takes the request's range and returns an answer.
        ranges: those requested.
    """

    answers: list[Callable[[int, int], Response]]
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def urlopen(self, request: Request) -> Response:
        start, last = request.headers["Range"].removeprefix("bytes=").split("-")
        self.ranges.append((int(start), int(last) + 1))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(*self.ranges[-1])


class BrokenBody(io.BytesIO):
    """A body whose connection breaks at its end."""

    def read(self, amount: int | None = -1, /) -> bytes:
        block = super().read(amount)
        if not block:
            raise IncompleteRead(partial=0, expected=1)
        return block

    read1 = read


def response(status: int, body: io.BytesIO, headers: dict[str, str]) -> Response:
    return Response(body, "http://x/media", headers, status)


def part(start: int, end: int) -> Response:
    """Answer with the requested range."""
    end = min(end, len(FILE))
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(FILE)}"}
    return response(206, io.BytesIO(FILE[start:end]), headers)


def broken_part(start: int, end: int) -> Response:
    """Answer with half of the requested range."""
    body = BrokenBody(FILE[start : (start + end) // 2])
    return response(206, body, {"Content-Range": f"bytes {start}-{end - 1}/{len(FILE)}"})


def whole(start: int, end: int) -> Response:
    return response(200, io.BytesIO(FILE), {"Content-Length": f"{len(FILE)}"})


def whole_of_unknown_length(start: int, end: int) -> Response:
    return response(200, io.BytesIO(FILE), {})


def part_of_unknown_length(start: int, end: int) -> Response:
    """Answer with the requested range, or with 416 beyond the end."""
    if start >= len(FILE):
        raise HTTPError(response(416, io.BytesIO(), {}))
    return response(206, io.BytesIO(FILE[start:end]), {"Content-Range": f"bytes {start}-*/*"})


def longer(start: int, end: int) -> Response:
    """Answer with a range of a longer file."""
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(FILE) + 1}"}
    return response(206, io.BytesIO(FILE[start:end]), headers)


def refused(start: int, end: int) -> Response:
    raise TransportError("Connection refused")


def reader_of(*answers: Callable[[int, int], Response]) -> tuple[RangeReader, Server]:
    server = Server(list(answers))
    ydl: Any = server
    return RangeReader(ydl, {"url": "http://x/media"}, TransferMeter(BUDGET)), server


def read(reader: RangeReader, start: int, end: int) -> tuple[int, bytes]:
    content = bytearray()
    return reader.read_into(content.extend, start, end), bytes(content)


def test_ranges_are_read_one_by_one() -> None:
    reader, server = reader_of(part)
    assert read(reader, 0, 100) == (100, FILE[:100])
    assert read(reader, 900, 2000) == (1000, FILE[900:])
    assert server.ranges == [(0, 100), (900, 2000)]
    assert (reader.total, reader.sends_ranges) == (1000, True)
    assert reader.is_end(1000)
    assert not reader.is_end(999)


def test_an_answer_with_the_whole_file_is_kept_open() -> None:
    reader, server = reader_of(whole)
    assert read(reader, 10, 100) == (100, FILE[10:100])
    assert read(reader, 500, 600) == (600, FILE[500:600])
    assert server.ranges == [(10, 100)]
    assert (reader.total, reader.sends_ranges) == (1000, False)
    # Backwards it must be requested again.
    assert read(reader, 0, 10) == (10, FILE[:10])
    assert len(server.ranges) == 2
    reader.close()
    assert read(reader, 600, 700) == (700, FILE[600:700])
    assert len(server.ranges) == 3


@pytest.mark.parametrize("answer", [whole_of_unknown_length, part_of_unknown_length])
def test_the_length_is_known_once_the_end_is_read(
    answer: Callable[[int, int], Response],
) -> None:
    reader, _ = reader_of(answer)
    assert read(reader, 0, 1000) == (1000, FILE)
    assert not reader.is_end(1000)
    assert read(reader, 1000, 2000) == (1000, b"")
    assert reader.is_end(1000)
    assert reader.total == 1000


def test_a_broken_connection_is_continued() -> None:
    reader, server = reader_of(broken_part, broken_part, part)
    assert read(reader, 0, 400) == (400, FILE[:400])
    assert server.ranges == [(0, 400), (200, 400), (300, 400)]


def test_a_file_of_another_length_has_changed() -> None:
    reader, _ = reader_of(part, longer)
    read(reader, 0, 100)
    with pytest.raises(FileChangedError, match="the file on the server changed"):
        read(reader, 100, 200)


def test_a_file_that_is_now_shorter_has_changed() -> None:
    reader, server = reader_of(part)
    read(reader, 0, 100)

    def too_far(start: int, end: int) -> Response:
        raise HTTPError(response(416, io.BytesIO(), {}))

    server.answers = [too_far]
    with pytest.raises(FileChangedError):
        read(reader, 100, 200)


def test_a_server_that_breaks_off_without_progress_is_given_up() -> None:
    reader, server = reader_of(part, refused)
    read(reader, 0, 100)
    with pytest.raises(FetchError, match="stopped sending after 100 bytes: Connection refused"):
        read(reader, 100, 200)
    assert len(server.ranges) == 1 + 3


def test_a_server_that_never_answers_keeps_its_error() -> None:
    reader, server = reader_of(refused)
    with pytest.raises(TransportError, match="Connection refused"):
        read(reader, 0, 100)
    assert len(server.ranges) == 3
