"""Writes what releases have beside their annotations, in the authors' places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from support.release_builder import write_archive

Files = Mapping[str, bytes | str]


def write_speakers(release: Path, kind: str, files: Files, *, archive: bool = False) -> Path:
    """Write one file for each speaker, in a folder or an archive; return its path."""
    contents = {
        f"{kind}/{name}": text.encode() if isinstance(text, str) else text
        for name, text in files.items()
    }
    if archive:
        return write_archive(release / f"{kind}.tar.gz", contents)
    for name, data in contents.items():
        path = release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return release / kind


def transcripts_of(
    speaker: str, videos: list[str], *, language: str = "en", words: str = "words of"
) -> str:
    """Return a file of ``asr_res`` for the utterance 00001 of some videos of a speaker."""
    return json.dumps(
        {
            f"{speaker}/{video}/00001.wav": {"text": f"{words} {video}", "language": language}
            for video in videos
        }
    )


def write_voxblink1(folder: Path, speakers: list[str]) -> Path:
    """Write what VoxBlink1 has in ``resource`` beside its annotations; return that folder."""
    resource = folder / "resource"
    values = {
        "meta/spk2gender": ("m", "f"),
        "meta/spk2lan": ("English", "Mandarin Chinese"),
        "meta/spk2loc": ("United States", "CN"),
        "meta/utt2dur": ("3.20", "4.00"),
    }
    for name, choices in values.items():
        path = resource / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{speaker} {choices[i % 2]}\n" for i, speaker in enumerate(speakers))
        path.write_text("".join(lines))
    for speaker in speakers:
        path = resource / "video_tags" / f"{speaker}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"tags": ["vlog", "cooking"]}')
    return resource
