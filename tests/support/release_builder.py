"""Makes releases for tests: annotation files in the authors' form, as folders and archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

Row = tuple[int, int, int, int, int]
Member = tuple[str, bytes] | tarfile.TarInfo

SPEAKER = "id000001"
VIDEO = "abcdefghijk"


def make_rows(first: int = 0, last: int = 24) -> list[Row]:
    """Return one row a frame, both ends included, with boxes that move a little."""
    return [(frame, 100 + frame % 7, 50, 40 + frame % 3, 60) for frame in range(first, last + 1)]


def jittering_rows(chance: np.random.Generator, *, first: int, frames: int) -> list[Row]:
    """Return rows as detectors give them: a face that wanders, and an error in each frame.

    They compress as real ones do: to a quarter.
    """
    width = chance.uniform(60, 300)
    start = np.array([chance.uniform(50, 900), chance.uniform(20, 400), width, 1.25 * width])
    steps = chance.normal(0, (0.6, 0.6, 0.3, 0.3), (frames, 4))
    boxes = np.rint(start + np.cumsum(steps, axis=0) + chance.normal(0, 1.5, (frames, 4)))
    numbers = np.column_stack([np.arange(first, first + frames), boxes]).astype(int)
    return list(map(tuple, numbers.tolist()))


def jittering_release(videos: int, *, frames: int = 40) -> dict[str, bytes]:
    """Return files of five utterances a video, with :func:`jittering_rows`."""
    chance = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for v in range(videos):
        speaker, video = f"id{v // 3:06}", video_id(v)
        for u in range(5):
            rows = jittering_rows(chance, first=100 * u, frames=frames)
            files[member_name(speaker, video, f"{u:05}")] = voxblink2(
                rows, speaker=speaker, video=video
            )
    return files


def render_rows(rows: Iterable[Sequence[int]], *, newline: str = "\n") -> str:
    return "".join("\t".join(map(str, row)) + newline for row in rows)


def voxblink2(
    rows: Iterable[Sequence[int]] | None = None,
    *,
    speaker: str = SPEAKER,
    video: str = VIDEO,
    start: str = "0.000",
    duration: str = "1.000",
    newline: str = "\n",
) -> bytes:
    """Render an annotation in VoxBlink2's form: seven lines, then the rows."""
    header = [
        f"Identity: {speaker}",
        f"Reference: {video}",
        f"Start and Duration: {start} {duration}",
        "KBPS: 166.072",
        "FPS: 25",
        "Conf: 0.93",
        "FRAME\tX\tY\tW\tH",
    ]
    text = newline.join(header) + newline
    return (text + render_rows(make_rows() if rows is None else rows, newline=newline)).encode()


def voxblink1(
    rows: Iterable[Sequence[int]] | None = None,
    *,
    speaker: str = "id00012",
    video: str = VIDEO,
    newline: str = "\n",
) -> bytes:
    """Render an annotation in VoxBlink1's form: five lines with padded names, then the rows."""
    header = [
        f"Identity  : \t{speaker}",
        f"Reference : \t{video}",
        "Offset    : \t1",
        "",
        "FRAME \tX \tY \tW \tH ",
    ]
    text = newline.join(header) + newline
    return (text + render_rows(make_rows() if rows is None else rows, newline=newline)).encode()


def voxceleb2(
    rows: Iterable[Sequence[float]], *, speaker: str = "id00012", video: str = VIDEO
) -> bytes:
    """Render an annotation in VoxCeleb2's form: padded names, boxes as fractions of the frame."""
    header = [
        f"Identity  : \t{speaker}",
        f"Reference : \t{video}",
        "Offset    : \t-5",
        "FV Conf   : \t19.633\t(1)",
        "ASD Conf  : \t5.635",
        "",
        "FRAME \tX \tY \tW \tH ",
    ]
    lines = (f"{frame:06} \t" + " \t".join(f"{part:.3f}" for part in box) for frame, *box in rows)
    return "\n".join([*header, *lines, ""]).encode()


def member_name(speaker: str = SPEAKER, video: str = VIDEO, utterance: str = "00001") -> str:
    return f"meta/{speaker}/{video}/{utterance}.txt"


def video_id(number: int) -> str:
    return f"video{number:06}"


def small_release(
    *, speakers: int = 2, videos: int = 2, utterances: int = 2, first_speaker: int = 1
) -> dict[str, bytes]:
    """Return files of a release: path -> bytes. Every video has its own id and its own frames."""
    files: dict[str, bytes] = {}
    for s in range(first_speaker, first_speaker + speakers):
        speaker = f"id{s:06}"
        for v in range(videos):
            video = video_id(1000 * s + v)
            for u in range(utterances):
                rows = make_rows(10 * u, 10 * u + 5 + v)
                files[member_name(speaker, video, f"{u:05}")] = voxblink2(
                    rows, speaker=speaker, video=video
                )
    return files


def write_release(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files of a release under a folder, which is returned."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_archive(
    path: Path,
    members: Mapping[str, bytes] | Iterable[Member],
    *,
    form: int = tarfile.PAX_FORMAT,
) -> Path:
    """Write an archive, compressed as its name says. A name may come more than once."""
    modes: dict[str, Literal["w:gz", "w:bz2", "w:xz", "w"]] = {
        ".gz": "w:gz",
        ".tgz": "w:gz",
        ".bz2": "w:bz2",
        ".xz": "w:xz",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, modes.get(path.suffix, "w"), format=form) as archive:
        for member in members.items() if isinstance(members, Mapping) else members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def special_member(name: str, kind: bytes, *, target: str = "") -> tarfile.TarInfo:
    """Return a member without content: a link, a folder, a device."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info
