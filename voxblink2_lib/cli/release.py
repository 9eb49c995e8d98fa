"""The commands about the authors' release: ``release get`` and ``release check``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.terminal import (
    CHECK_FAILED,
    DONE,
    add_command,
    add_group,
    columns,
    write_message,
    write_result,
)
from voxblink2_lib.release.release_parts import DEFAULT_PARTS, PARTS, check_part_names

if TYPE_CHECKING:
    from voxblink2_lib.release.download import Plan, ReleaseFile

_FOLDER = "voxblink2-release"
_GET_EXAMPLE = "voxblink2 release get meta spk2videos --to /data/release"
_CHECK_EXAMPLE = "voxblink2 release check /data/release --sums /data/release/md5sums.txt"


def _get(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.release.download import download, find_place, plan_download

    parts = check_part_names(options.parts or DEFAULT_PARTS)
    folder = Path(options.to).expanduser().absolute()
    place = find_place(options.place, parts, folder)
    plan = plan_download(parts, folder=folder, place=place)
    if options.list:
        write_result(options, _plan_record(plan), _plan_lines(plan))
        return DONE
    write_message(*_plan_lines(plan))
    files = download(plan, progress=show_progress)
    record = {"folder": str(folder), "from": place.name, "files": list(map(_file_record, files))}
    write_result(options, record, _lines(folder, files))
    return DONE


def _plan_record(plan: Plan) -> dict[str, Any]:
    return {
        "folder": str(plan.folder),
        "from": plan.place.name,
        "files": [
            {
                "path": file.offer.path,
                "part": file.offer.part,
                "bytes": file.offer.size_bytes,
                "kept_bytes": file.kept_bytes,
                "state": file.state,
                "address": file.offer.address,
            }
            for file in plan.files
        ],
    }


def _plan_lines(plan: Plan) -> list[str]:
    from voxblink2_lib.release.download import sizes_by_part

    rows = [
        (name, f"{count:,} {'file' if count == 1 else 'files'}", _size(size), PARTS[name].content)
        for name, (count, size) in sizes_by_part(plan.files).items()
    ]
    lines = [f"From       {plan.place.name}", f"To         {plan.folder}"]
    lines += [f"  {line}" for line in columns(rows)]
    missing = len(plan.missing)
    here = len(plan.files) - missing
    kept = f", of which {_size(plan.kept_bytes)} are here" if plan.kept_bytes else ""
    lines.append(
        f"Missing    {missing:,} of {len(plan.files):,} files, {_size(plan.total_bytes)}{kept}"
        if missing
        else f"Missing    nothing: all {here:,} files are here"
    )
    return lines


def _size(size_bytes: int | None) -> str:
    from voxblink2_lib.progress import size_text

    return "of unknown size" if size_bytes is None else size_text(size_bytes)


def _file_record(file: ReleaseFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "part": file.record.part,
        "state": file.state,
        "bytes": file.record.size_bytes,
        "fetched_bytes": file.fetched_bytes,
        "md5": file.record.md5,
        "sha256": file.record.sha256,
        "compared": list(file.record.compared),
    }


def _lines(folder: Path, files: Sequence[ReleaseFile]) -> list[str]:
    fetched = sum(file.fetched_bytes for file in files)
    compared = sum(bool(file.record.compared) for file in files)
    return [
        *(
            f"{file.state:10} {folder / file.path} ({_size(file.record.size_bytes)})"
            for file in files
        ),
        f"{len(files):,} files, {_size(fetched)} downloaded; {compared:,} compared with checksums "
        f"of their place. All checksums are in {folder / 'release.json'}.",
    ]


def _check(options: argparse.Namespace) -> int:
    from voxblink2_lib.archive.sums import read_sums
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.release.folder_check import check_folder

    folder = Path(options.folder).expanduser()
    sums: dict[str, str] = {}
    for named in options.sums:
        sums |= read_sums(Path(named).expanduser())
    files = check_folder(folder, sums=sums, progress=show_progress)
    problems = [file.problem for file in files if file.state in ("missing", "different")]
    if all(file.state == "unknown" for file in files):
        problems.append(f"There was nothing to check in {folder}: no file with a known checksum.")
    unknown = [file.problem for file in files if file.state == "unknown"]
    record = {
        "ok": not problems,
        "problems": problems,
        "files": [{"path": file.path, "state": file.state} for file in files],
    }
    counts = {state: sum(file.state == state for file in files) for state in _STATES}
    lines = [f"{count:,} {_STATES[state]}" for state, count in counts.items() if count]
    write_result(
        options, record, [*lines, *unknown, *problems, *([] if problems else ["No problems."])]
    )
    return CHECK_FAILED if problems else DONE


_STATES = {
    "equal": "equal to their checksums",
    "whole": "whole by the checksum in the file itself, of which no other is known",
    "unknown": "not checked",
    "missing": "missing",
    "different": "different",
}


def add_release_commands(commands: Any) -> None:
    """Add the group ``release``."""
    does = "download the authors' release, and check what was downloaded (get, check)"
    group = add_group(commands, "release", does, _GET_EXAMPLE)
    _add_get(group)
    does = "compare a folder of the release with its checksums"
    parser = add_command(group, "check", _check, does, _CHECK_EXAMPLE)
    parser.add_argument("folder", metavar="FOLDER", help="folder of the release")
    parser.add_argument(
        "--sums",
        action="append",
        default=[],
        metavar="FILE",
        help="a list of MD5 or SHA-256 checksums, as md5sum writes it; may be repeated",
    )


def _add_get(group: Any) -> None:
    does = "download parts of the release; what is stopped goes on where it was"
    parser = add_command(group, "get", _get, does, _GET_EXAMPLE)
    contents = "; ".join(f"{part.name}: {part.content}" for part in PARTS.values())
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{contents}; or all (default: {' '.join(DEFAULT_PARTS)}, what is needed to begin)",
    )
    parser.add_argument(
        "--to", default=_FOLDER, metavar="FOLDER", help=f"where to put it (default: {_FOLDER})"
    )
    parser.add_argument(
        "--from",
        dest="place",
        metavar="PLACE",
        help="a folder of Google Drive, hf://datasets/USER/REPO, another URL (s3://, https://), or "
        "a local folder (default: the authors' folder on Google Drive)",
    )
    parser.add_argument(
        "--list", action="store_true", help="only show what there is, and how large it is"
    )
