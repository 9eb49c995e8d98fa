"""Check an archive of cut audio, its stream and its members, and count what is in it."""

from __future__ import annotations

from typing import NamedTuple

from voxblink2_lib.archive.check_memory import CheckMemory
from voxblink2_lib.archive.contents import Contents
from voxblink2_lib.archive.gzip_stream import POINT_BYTES
from voxblink2_lib.archive.layout import StrangerError, utterance_of
from voxblink2_lib.archive.parts import Archive
from voxblink2_lib.archive.reader import ArchiveDamagedError, ArchiveReader
from voxblink2_lib.archive.tar_reader import TarMember
from voxblink2_lib.archive.wav import read_wav_header
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress


class ArchiveCheck(NamedTuple):
    """The result of checking one archive.

    Attributes:
        archive: its parts.
        contents: what is in it, as far as it can be read.
        problems: what is wrong with it.
    """

    archive: Archive
    contents: Contents
    problems: tuple[str, ...]


def check_archive(
    archive: Archive, *, progress: Progress = no_progress, point_bytes: int = POINT_BYTES
) -> ArchiveCheck:
    """Read all of an archive. A check that was stopped goes on where it was.

    Args:
        archive: its parts.
        progress: counts bytes of the parts.
        point_bytes: the least output between two places where a check can go on.
    """
    memory = CheckMemory(archive)
    place, contents = memory.load()
    problems: list[str] = []
    with (
        ArchiveReader(archive, place=place, point_bytes=point_bytes) as reader,
        progress(
            f"Checking {archive.name}",
            unit="B",
            total=archive.size_bytes,
            done=contents.packed_bytes,
        ) as advance,
    ):
        try:
            _count(reader, contents, memory, advance)
        except ArchiveDamagedError as error:
            problems.append(str(error))
    memory.forget()
    return ArchiveCheck(archive, contents, tuple(problems))


def _count(
    reader: ArchiveReader, contents: Contents, memory: CheckMemory, advance: AdvanceWithNote
) -> None:
    for member in reader:
        memory.save_now_and_then(reader.place, contents)
        if not member.is_folder:
            _count_file(reader, member, contents)
        if (packed_bytes := reader.packed_offset) != contents.packed_bytes:
            advance(
                packed_bytes - contents.packed_bytes, note=f"{contents.utterances:,} utterances"
            )
            contents.packed_bytes = packed_bytes
    advance(reader.packed_offset - contents.packed_bytes)


def _count_file(reader: ArchiveReader, member: TarMember, contents: Contents) -> None:
    try:
        key = utterance_of(member)
        kind, seconds = _looked_at(member, reader)
    except StrangerError as error:
        contents.add_stranger(str(error), member.name)
    else:
        contents.add(key, kind, seconds)


def _looked_at(member: TarMember, reader: ArchiveReader) -> tuple[str, float]:
    """Return what kind of audio an utterance is, and its length where it is WAV."""
    extension = member.name.rpartition(".")[2].lower()
    if extension != "wav":
        return extension, 0.0
    data = reader.read()
    try:
        header = read_wav_header(data)
    except ValueError as error:
        raise StrangerError(str(error)) from error
    if header.declared_bytes > header.size_bytes:
        raise StrangerError("a WAV file that is shorter than its header declares")
    return f"wav {header.rate_hz} Hz, {header.channels} x {header.bits} bit", header.seconds
