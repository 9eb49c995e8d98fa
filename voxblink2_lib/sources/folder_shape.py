"""What a folder looks like in which no media were found: the usual mistakes, each with a remedy."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from voxblink2_lib.records import is_speaker_id, is_video_id
from voxblink2_lib.sources.folder_listing import MEDIA_EXTENSIONS

_ARCHIVE = re.compile(r".+\.(tar|tgz|tbz2|txz|zip|tar\.\w+)(\.?\d+)?", re.IGNORECASE)
# The name that yt-dlp gives by default: a title, then the id.
_TITLED = re.compile(r"\[([A-Za-z0-9_-]{11})\]\.\w+$", re.ASCII)
# What file systems and desktops leave in every folder.
_LITTER = {"lost+found", ".DS_Store", "Thumbs.db", "desktop.ini"}
# Folders beside those of speakers are few; more than these need not be opened for a message.
_MAX_FOLDERS = 100


def stem(name: str) -> str:
    """Return what precedes the first dot of a name: the id of the video, if it is named so."""
    return name.partition(".")[0]


def video_in(name: str) -> str:
    """Return the id of the video in a name: between brackets, or before the first dot."""
    titled = _TITLED.search(name)
    return titled[1] if titled else stem(name)


def shown(name: str) -> str:
    """Return a name as it may be shown: one with control characters, or not in UTF-8, quoted."""
    return name if name.isprintable() else ascii(name)


def appearance(
    folder: Path,
    names: Sequence[str],
    *,
    selected: Collection[str],
    speaker_of: Mapping[str, str],
) -> str:
    """Return what a folder looks like, and what to do.

    Args:
        folder: it holds no media that can be used.
        names: what it contains, sorted.
        selected: ids of the selected speakers; empty if they are not known.
        speaker_of: the speaker of each selected video that lies beside the folders of speakers.
    """
    names = [name for name in names if name not in _LITTER]
    if not names:
        return (
            "The folder is empty. If a disk or a network share belongs there, it is not mounted: "
            "mount it, then run this again. Else name another folder with --source."
        )
    speakers = [name for name in names if is_speaker_id(name)]
    return (
        _speaker_folder(folder, names)
        or _archives(folder, names)
        or _flat(folder, names, speaker_of)
        or (_speakers(folder, speakers, frozenset(selected)) if speakers else "")
        or _too_high(folder, names)
        or f"It holds {_examples(names)}, nothing of which is named like a speaker (id000001)."
        " Name another folder with --source, or rename what is there."
    )


def _examples(names: Sequence[str]) -> str:
    more = len(names) - 2
    return ", ".join(map(shown, names[:2])) + (f" and {more:,} more" if more > 0 else "")


def _named(folder: Path) -> str:
    return f"--source {shlex.quote(str(folder))}"


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_media(name: str) -> bool:
    return name.rpartition(".")[2].lower() in MEDIA_EXTENSIONS


def _speaker_folder(folder: Path, names: Sequence[str]) -> str:
    """Say that a folder is that of one speaker, or of one video."""
    if is_speaker_id(folder.name):
        return (
            f"It is the folder of one speaker, with {_examples(names)}: one level too low. "
            f"Use {_named(folder.parent)}"
        )
    if is_video_id(folder.name) and is_speaker_id(folder.parent.name):
        return (
            f"It is the folder of one video of one speaker, with {_examples(names)}: two levels "
            f"too low. Use {_named(folder.parent.parent)}"
        )
    return ""


def _archives(folder: Path, names: Sequence[str]) -> str:
    """Say that a folder holds archives, which are not read."""
    archives = [name for name in names if _ARCHIVE.fullmatch(name)]
    if not archives:
        return ""
    if archives[0].startswith("vb2_meta"):
        return (
            f"It holds {archives[0]}: it is the release, with annotations and no media. Use "
            f"--data-dir {shlex.quote(str(folder))}, and name the media with --source."
        )
    return (
        f"It holds the archive {_examples(archives)}, and media are not read from archives; cut "
        "audio is, from tars that begin with files <speaker>/<video>/<utterance>.<ext>. "
        "Unpack it, then name the folder that contains the folders of speakers with --source."
    )


def _flat(folder: Path, names: Sequence[str], speaker_of: Mapping[str, str]) -> str:
    """Say that media lie beside each other, without a folder for each speaker."""
    for name in names:
        video = video_in(name)
        if _is_media(name) and is_video_id(video) and (folder / name).is_file():
            speaker = speaker_of.get(video, "<speaker>")
            target = f"{speaker}/{video}.{name.rpartition('.')[2]}"
            return (
                f"It holds {shown(name)} without a folder for the speaker. Move each file into "
                f"the folder of its speaker: this one becomes {target}."
            )
    return ""


def _speakers(folder: Path, speakers: Sequence[str], selected: frozenset[str]) -> str:
    """Say what is in the folders of speakers: of those that are selected, if there are any."""
    chosen = sorted(selected.intersection(speakers)) or speakers
    contents = {speaker: _listed(folder / speaker) for speaker in chosen[:_MAX_FOLDERS]}
    speaker = next((name for name, listed in contents.items() if listed), None)
    if speaker is None:
        return (
            f"It has folders of speakers, such as {speakers[0]}, and these are empty. If media "
            "were to be downloaded there, that has not begun."
        )
    listed = contents[speaker]
    return (
        _deeper(folder / speaker, listed)
        or _titled(folder / speaker, listed)
        or (_other_speakers(speakers, selected) if selected.isdisjoint(speakers) else "")
        or f"The folder {speaker} holds {_examples(listed)}, none of which is a selected video. "
        "Are these another corpus, or other videos? Name another folder with --source, or select "
        "what is there with --videos."
    )


def _deeper(speaker: Path, names: Sequence[str]) -> str:
    """Say that videos are folders: annotations, or utterances that were cut before."""
    for video in names:
        inside = _listed(speaker / video) if is_video_id(video) else []
        example = shown(f"{speaker.name}/{video}/{inside[0]}") if inside else ""
        if any(name.endswith(".txt") for name in inside):
            return (
                f"It holds {example}: these are annotations of the release, no media. Use "
                f"--data-dir {shlex.quote(str(speaker.parent))}, and name the media with --source."
            )
        if any(map(_is_media, inside)):
            return (
                f"It holds {example}: a folder for each video, a file an utterance. Files of cut "
                "audio have an extension of audio, such as wav, flac or m4a."
            )
    return ""


def _titled(speaker: Path, names: Sequence[str]) -> str:
    """Say that the names of files begin with the title."""
    for name in names:
        if (match := _TITLED.search(name)) and _is_media(name):
            return (
                f"It holds {speaker.name}/{shown(name)}, named by the title before the id. Rename "
                f"each file to its id, this one to {match[1]}.{name.rpartition('.')[2]}; yt-dlp "
                "names files so with -o '%(id)s.%(ext)s'."
            )
    return ""


def _other_speakers(speakers: Sequence[str], selected: frozenset[str]) -> str:
    if not selected:
        return ""
    return (
        f"It has {len(speakers):,} folders of speakers, such as {speakers[0]}, none of which is "
        f"selected, such as {min(selected)}. It is the folder of another corpus or of another "
        "part of this one: name another with --source, or select these with --speakers."
    )


def _too_high(folder: Path, names: Sequence[str]) -> str:
    """Say that the folders of speakers are one level, or two, further down."""
    for name in names[:_MAX_FOLDERS]:
        inside = _listed(folder / name)
        below = [name, *(f"{name}/{further}" for further in inside[:_MAX_FOLDERS])]
        for place in below:
            if any(map(is_speaker_id, _listed(folder / place))):
                levels = "one level" if place == name else "two levels"
                return (
                    f"It holds {shown(place)}, which has the folders of speakers: {levels} too "
                    f"high. Use {_named(folder / place)}"
                )
    return ""
