"""Audio files below a folder: which there are, and which are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import EmbeddingError

# Containers with sound that FFmpeg or libsndfile decodes, by the names that people give them.
EXTENSIONS = (
    *(".wav", ".flac", ".opus", ".ogg", ".oga", ".mp3", ".m4a", ".aac", ".mp4", ".webm"),
    *(".3gp", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".caf"),
    *(".dts", ".eac3", ".f4v", ".flv", ".gsm", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2"),
    *(".mpeg", ".mpg", ".mts", ".nist", ".ogv", ".ra", ".rm", ".snd", ".sph", ".spx", ".tak"),
    *(".tta", ".ts", ".voc", ".w64", ".weba", ".wma", ".wmv", ".wv"),
)
# What macOS writes beside a file on other file systems, under its name and extension.
_NO_FILE = "._"


class AudioFiles(NamedTuple):
    """The audio files below a folder.

    Attributes:
        files: name of each, its path in the folder without extension; and its path.
        skipped: how many other files there are, by their extensions in lower case; and how many
            are left for a preferred file of the same name, under ``"other kinds"``.
    """

    files: list[tuple[str, str]]
    skipped: Counter[str]


def find_audio_files(folder: Path, *, prefer: Sequence[str] = ()) -> AudioFiles:
    """Find the audio files below a folder, in the order of their paths.

    Args:
        folder: folders that are linked below it are followed; links in a circle are not.
        prefer: extensions without dot, as ``("wav", "flac")``: of files of one name, that of the
            first of these is taken. Without, all of them are there.

    Raises:
        EmbeddingError: an extension is not that of an audio file.
    """
    kinds = [_extension(kind) for kind in prefer]
    skipped: Counter[str] = Counter()
    named: dict[str, list[Path]] = {}
    for path in files_below(folder):
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(_NO_FILE):
            name = path.relative_to(folder).with_suffix("").as_posix()
            named.setdefault(name, []).append(path)
        else:
            skipped[path.suffix.lower() or "no extension"] += 1
    files = []
    for name, paths in named.items():
        kept = _preferred(paths, kinds)
        skipped["other kinds"] += len(paths) - len(kept)
        files += [(name, str(path)) for path in kept]
    return AudioFiles(files, +skipped)


def _extension(kind: str) -> str:
    extension = f".{kind.strip().lower().lstrip('.')}"
    if extension not in EXTENSIONS:
        raise EmbeddingError(
            f"{kind!r} is no extension of audio files. Known are "
            f"{', '.join(known[1:] for known in EXTENSIONS)}."
        )
    return extension


def _preferred(paths: list[Path], kinds: list[str]) -> list[Path]:
    if len(paths) > 1:
        for kind in kinds:
            if kept := [path for path in paths if path.suffix.lower() == kind]:
                return kept
    return paths


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, sorted by path. Linked folders are followed, not in circles.

    A link that leads nowhere is a file, too: it is missed, not forgotten.
    """
    yield from _files_below(folder, frozenset())


def _files_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in listed:
        if is_folder:
            yield from _files_below(folder / name, above | {here})
        else:
            yield folder / name
