"""Read one annotation file: start and end of an utterance, and its face boxes.

The file is read by content, not by line count, since VoxBlink1 and VoxBlink2 have different
headers: lines ``name : value`` first, then the column titles, then five numbers a line. VoxCeleb2
has the boxes as fractions of the frame; without its size they are no pixels, so they are kept as
pixels of a nominal frame, :data:`NOMINAL_FRAME`, which is then the annotation's frame size.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import Utterance, check_ids

_INT16 = np.iinfo(np.int16)

# Four decimals of a fraction are exact, and 16 bits suffice.
NOMINAL_FRAME = (10_000, 10_000)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation file.

    Attributes:
        utterance: its ids, first and last frame.
        start_seconds: start that the header gives, or ``None``.
        duration_seconds: duration that the header gives, or ``None``.
        frame_size: width and height of the video that the header gives, :data:`NOMINAL_FRAME`
            for boxes that are fractions, or ``None``.
        frames: frame numbers, shape (n,), strictly increasing.
        boxes: x, y, width, height in pixels, shape (n, 4).
    """

    utterance: Utterance
    start_seconds: float | None
    duration_seconds: float | None
    frame_size: tuple[int, int] | None
    frames: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int16]

    def digest(self) -> int:
        """Return a signed 64-bit hash of everything in the file."""
        header = Header(self.start_seconds, self.duration_seconds, self.frame_size)
        return digest_of(f"{self.utterance}", header, self.frames.tobytes(), self.boxes.tobytes())


class Header(NamedTuple):
    """What is kept of a header; see :class:`Annotation`."""

    start_seconds: float | None
    duration_seconds: float | None
    frame_size: tuple[int, int] | None


def digest_of(
    utterance: str, header: Header, frames: memoryview | bytes, boxes: memoryview | bytes
) -> int:
    """Return :meth:`Annotation.digest`; ``utterance`` is the record as text."""
    hasher = hashlib.blake2b(digest_size=8)
    hasher.update(f"{utterance} {header.start_seconds} {header.duration_seconds}".encode())
    if header.frame_size is not None:
        hasher.update(f"{header.frame_size}".encode())
    hasher.update(frames)
    hasher.update(boxes)
    return int.from_bytes(hasher.digest(), "little", signed=True)


def read_annotation(path: str, data: bytes) -> Annotation:
    """Read an annotation file.

    Args:
        path: its path in the release, ending in ``<speaker>/<video>/<utterance>.txt``.
        data: its bytes.

    Raises:
        ValueError: the file is malformed; the message goes to the rejects file.
    """
    ids = ids_of_path(path)
    values, rows = _split(_text(data))
    header = read_header(values, ids)
    numbers, nominal_frame = _in_pixels(_numbers(rows))
    if not np.all(np.isfinite(numbers)) or np.any(numbers != np.floor(numbers)):
        raise ValueError("frames and boxes must be whole numbers")
    frames = numbers[:, 0]
    if frames[0] < 0 or np.any(np.diff(frames) <= 0):
        raise ValueError("frames do not increase from line to line")
    if frames[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"frame {frames[-1]:.0f} is out of range")
    if np.any(numbers[:, 1:] < _INT16.min) or np.any(numbers[:, 1:] > _INT16.max):
        raise ValueError("a box is out of range: pixels must fit 16 bits")
    return Annotation(
        utterance=Utterance(*ids, first_frame=int(frames[0]), last_frame=int(frames[-1])),
        start_seconds=header.start_seconds,
        duration_seconds=header.duration_seconds,
        frame_size=nominal_frame or header.frame_size,
        frames=frames.astype(np.int32),
        boxes=numbers[:, 1:].astype(np.int16),
    )


def ids_of_path(path: str) -> tuple[str, str, str]:
    """Return speaker, video and utterance.

    Raises:
        ValueError: the path has none.
    """
    parts = path.split("/")
    if len(parts) < 3 or not parts[-1].endswith(".txt"):
        raise ValueError("not named <speaker>/<video>/<utterance>.txt")
    speaker_id, video_id, utterance_id = parts[-3], parts[-2], parts[-1].removesuffix(".txt")
    check_ids(speaker_id, video_id, utterance_id)
    return speaker_id, video_id, utterance_id


def read_header(values: dict[str, str], ids: tuple[str, str, str]) -> Header:
    """Return what is kept of a header.

    Args:
        values: by their names in lower case.
        ids: those of the path.

    Raises:
        ValueError: it is the header of another video.
    """
    for key, name, expected in (("identity", "speaker", ids[0]), ("reference", "video", ids[1])):
        if values.get(key, expected) != expected:
            raise ValueError(
                f"the header has {name} {values[key][:64]!r}, the path has {expected!r}"
            )
    return Header(*_times(values.get("start and duration", "")), _frame_size(values))


def _text(data: bytes) -> str:
    if not data.strip():
        raise ValueError("the file is empty")
    if b"\0" in data:
        raise ValueError("the file is binary, not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 text (byte {error.start})") from error


def _split(text: str) -> tuple[dict[str, str], list[tuple[int, list[str]]]]:
    """Split into header values and (line number, fields) of every line after the titles."""
    header: dict[str, str] = {}
    rows: list[tuple[int, list[str]]] = []
    in_header = True
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        name, colon, value = line.partition(":")
        if in_header and colon:
            header[name.strip().lower()] = value.strip()
        elif in_header and fields[0].upper() == "FRAME":
            in_header = False
        else:
            in_header = False
            rows.append((number, fields))
    if not rows:
        raise ValueError("the file has no frames")
    return header, rows


def _numbers(rows: list[tuple[int, list[str]]]) -> npt.NDArray[np.float64]:
    for number, fields in rows:
        if len(fields) != 5:
            raise ValueError(f"line {number}: expected five numbers, got {len(fields)} fields")
    try:
        numbers = np.array(
            list(chain.from_iterable(fields for _, fields in rows)), dtype=np.float64
        )
    except ValueError:
        number = next(number for number, fields in rows if not all(map(_is_number, fields)))
        raise ValueError(f"line {number}: expected five numbers, got text") from None
    return numbers.reshape(-1, 5)


def _in_pixels(
    numbers: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], tuple[int, int] | None]:
    """Return rows with boxes in pixels; if they were fractions, also the frame of the pixels."""
    boxes = numbers[:, 1:]
    # A box in pixels is larger. It may begin outside of the frame.
    if np.all(np.abs(boxes) <= 1) and np.any(boxes != np.floor(boxes)):
        pixels = np.rint(boxes * (NOMINAL_FRAME * 2))
        return np.column_stack([numbers[:, 0], pixels]), NOMINAL_FRAME
    return numbers, None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _times(text: str) -> tuple[float | None, float | None]:
    fields = text.split()
    if len(fields) != 2 or not all(map(_is_number, fields)):
        return None, None
    return float(fields[0]), float(fields[1])


def _frame_size(values: dict[str, str]) -> tuple[int, int] | None:
    """Return width and height where a header line gives them, as in ``Resolution: 1280x720``."""
    for name in ("resolution", "picture size", "video size", "frame size", "size"):
        if name not in values:
            continue
        fields = re.split(r"\s*[x\u00d7*,]\s*|\s+", values[name].lower())
        if len(fields) == 2 and all(re.fullmatch("[0-9]{1,5}", field) for field in fields):
            width, height = map(int, fields)
            if min(width, height) > 0 and max(width, height) <= _INT16.max:
                return width, height
    return None
