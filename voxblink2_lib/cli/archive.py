"""The commands about the authors' archive of cut audio: ``archive check``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.terminal import (
    CHECK_FAILED,
    DONE,
    add_command,
    add_group,
    write_result,
)

if TYPE_CHECKING:
    from voxblink2_lib.archive.check import ArchiveCheck
    from voxblink2_lib.archive.parts import Archive

_EXAMPLE = "voxblink2 archive check /data/parts --sums /data/parts/md5sums.txt"


def _check(options: argparse.Namespace) -> int:
    from voxblink2_lib.archive.check import check_archive
    from voxblink2_lib.archive.parts import find_archives
    from voxblink2_lib.progress import show_progress

    archives = find_archives(options.parts)
    problems = _wrong_sums(archives, options.sums) if options.sums else []
    checks = [check_archive(archive, progress=show_progress) for archive in archives]
    if not any(check.contents.utterances for check in checks):
        problems.append(f"There is no utterance in {options.parts}.")
    problems += [problem for check in checks for problem in check.problems]
    record = {
        "ok": not problems,
        "problems": problems,
        "archives": [_record(check) for check in checks],
    }
    lines = [line for check in checks for line in _lines(check)]
    write_result(options, record, [*lines, *problems, *([] if problems else ["No problems."])])
    return CHECK_FAILED if problems else DONE


def _wrong_sums(archives: list[Archive], named: str) -> list[str]:
    from voxblink2_lib.archive.sums import read_sums, wrong_sums
    from voxblink2_lib.progress import show_progress

    sums = read_sums(Path(named).expanduser())
    parts = [part for archive in archives for part in archive.parts]
    return wrong_sums(parts, sums, progress=show_progress)


def _record(check: ArchiveCheck) -> dict[str, Any]:
    contents = check.contents
    strangers = {
        reason: {"files": count, "examples": names}
        for reason, (count, names) in contents.strangers.items()
    }
    return {
        "name": check.archive.name,
        "parts": [str(part) for part in check.archive.parts],
        "bytes": check.archive.size_bytes,
        "speakers": contents.speakers,
        "videos": contents.videos,
        "utterances": contents.utterances,
        "wav_hours": round(contents.wav_seconds / 3600, 4),
        "kinds": dict(contents.kinds),
        "strangers": strangers,
        "problems": list(check.problems),
    }


def _lines(check: ArchiveCheck) -> list[str]:
    from voxblink2_lib.progress import size_text

    archive, contents = check.archive, check.contents
    lines = [
        f"Archive    {archive.name}: {len(archive.parts):,} parts, {size_text(archive.size_bytes)}",
        f"Contents   {contents.speakers:,} speakers, {contents.videos:,} videos, "
        f"{contents.utterances:,} utterances, {contents.wav_seconds / 3600:,.2f} hours of WAV",
    ]
    lines += [f"Audio      {count:,} x {kind}" for kind, count in contents.kinds.most_common()]
    for reason, (count, names) in contents.strangers.items():
        more = ", ..." if count > len(names) else ""
        lines.append(f"Left out   {count:,} x {reason}: {', '.join(names)}{more}")
    return lines


def add_archive_commands(commands: Any) -> None:
    """Add the group ``archive``."""
    does = "look at the archive of cut audio that the authors hand out (check)"
    group = add_group(commands, "archive", does, _EXAMPLE)
    does = "read an archive from end to end, name what is damaged, count what is in it"
    parser = add_command(group, "check", _check, does, _EXAMPLE)
    parser.add_argument(
        "parts",
        metavar="PARTS",
        help="folder of the parts VB2_audio.tar.gz.00, .01, ..., the first of them, a pattern in "
        "quotes, or a tar; a path or a URL (s3://, hf://, https://)",
    )
    parser.add_argument(
        "--sums",
        metavar="FILE",
        help="a list of MD5 or SHA-256 checksums of the parts, as md5sum and sha256sum write it",
    )
