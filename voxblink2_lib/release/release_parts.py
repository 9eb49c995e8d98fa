"""The parts of the release that can be downloaded by name, and which file belongs to which."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.records import has_control_character

_LARGEST_NAME = 255


class ReleasePart(NamedTuple):
    """A part of the release.

    Attributes:
        name: what users call it.
        content: what it is.
        files: the files that are known of it, by their places in a folder of the release.
        pattern: what a path ends with that belongs to it; the group is its place within ``folder``.
        folder: where its files are kept.
    """

    name: str
    content: str
    files: tuple[str, ...]
    pattern: re.Pattern[str]
    folder: str = ""


def _part(
    name: str, content: str, files: Sequence[str], pattern: str, folder: str = ""
) -> ReleasePart:
    whole = re.compile(rf"(?:.*/)?({pattern})")
    return ReleasePart(name, content, tuple(files), whole, folder)


_TEST_VOX = ("data/test_vox/wav.scp", "data/test_vox/trials")
_OSSI = tuple(
    f"data/ossi/{'/'.join(names)}"
    for names in itertools.product(
        ("Small_120", "Medium_1.2k", "Large_12k"),
        ("perspk1", "perspk3", "perspk5"),
        ("gallery", "probe"),
    )
)
_MODELS = ("ecapatdnn", "resnet34", "resnet100", "resnet293")
_CKPT = (
    *(f"ckpt/{model}/model_{stage}.pt" for model in _MODELS for stage in ("pt", "ft")),
    "ckpt/face_model/model_face.pt",
)
_AUDIO = tuple(f"VB2_audio.tar.gz.{number:02}" for number in range(40))
_ALL = (
    _part("meta", "times and face boxes", ["vb2_meta.tar.gz"], r"vb2_meta\.tar\.gz"),
    _part("spk2videos", "the videos of each speaker", ["data/spk2videos"], "spk2videos", "data/"),
    _part("spk_info", "tags of videos", ["spk_info.tar.gz"], r"spk_info\.tar\.gz"),
    _part("asr_res", "transcripts, languages", ["asr_res.tar.gz"], r"asr_res\.tar\.gz"),
    _part("test_vox", "trials of VoxCeleb1", _TEST_VOX, "test_vox/.+", "data/"),
    _part("ossi", "protocols of open-set identification", _OSSI, "ossi/.+", "data/"),
    _part("ckpt", "checkpoints", _CKPT, "ckpt/.+"),
    _part("audio", "the cut audio", _AUDIO, r"VB2_audio\.tar\.gz\.\d\d"),
    _part("sums", "lists of checksums", ["md5sums.txt"], "[^/]*(?:md5|sha256)[^/]*"),
)
PARTS = {part.name: part for part in _ALL}
DEFAULT_PARTS = ("meta", "spk2videos")


def part_of(path: str) -> tuple[str, str] | None:
    """Return which part a file belongs to, and its place in a folder of the release.

    Args:
        path: of the file at the place that has it, in whatever folders there.

    Raises:
        ReleaseError: the path belongs to a part, and leads out of its folder.

    >>> part_of("VoxBlink2/ossi/Small_120/perspk1/probe")
    ('ossi', 'data/ossi/Small_120/perspk1/probe')
    >>> part_of("README.md") is None
    True
    """
    for part in PARTS.values():
        if match := part.pattern.fullmatch(path):
            _refuse_hostile(match[1], path)
            return part.name, f"{part.folder}{match[1]}"
    return None


def _refuse_hostile(place: str, path: str) -> None:
    names = place.split("/")
    if (
        any(name in ("", ".", "..") or len(name.encode()) > _LARGEST_NAME for name in names)
        or has_control_character(place)
        or "\\" in place
    ):
        raise ReleaseError(
            f"A file is named {visible(path)[:_LARGEST_NAME]!r} there: no release has such a name. "
            "Nothing is downloaded."
        )


def check_part_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of parts, those of ``all`` for it.

    Raises:
        ReleaseError: one is none.
    """
    if "all" in names:
        return tuple(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ReleaseError(
            f"The release has no part {unknown[0]!r}. Its parts are {', '.join(PARTS)}; 'all' "
            "names all of them."
        )
    return tuple(dict.fromkeys(names))


def in_short(files: Sequence[str]) -> list[str]:
    """Return names of files, with a range in place of the parts of an archive.

    >>> in_short([f"VB2_audio.tar.gz.{number:02}" for number in range(40)])
    ['VB2_audio.tar.gz.00 to .39 (40 files)']
    """
    numbered = [name for name in files if re.fullmatch(r".*\.\d\d", name)]
    if len(numbered) <= 1:
        return list(files)
    others = [name for name in files if name not in numbered]
    shown = f"{numbered[0]} to {numbered[-1][-3:]} ({len(numbered)} files)"
    return [*others, shown]
