"""Results of ``score`` that prove themselves: what they were made of is in them, with hashes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from voxblink2_lib.cli.score_cohort import BY_COHORT
from voxblink2_lib.cli.score_rows import PaperTable, table_lines
from voxblink2_lib.cli.terminal import DONE, redacted, write_result
from voxblink2_lib.errors import UsageError

if TYPE_CHECKING:
    from voxblink2_lib.scoring.input_files import Files

FORMAT = 1

# Options that name an input; of a condition, the file is the first of its words.
INPUTS = (
    *("trials", "protocol", "scores", "embeddings", "names", "enrol", "utt2spk", "cohort"),
    *("cohort_names", "cohort_utt2spk", "condition", "centre"),
)
# Options that change no number, or only embeddings, which are an input themselves.
_NO_OPTIONS = (
    *("command", "prog", "keeps_work", "score", "json", "format", "out", "plot"),
    *("model", "audio", "prefer", "segments", "audio_column", "name_column"),
    *("window", "dtype", "workers", "device"),
)


class ScoreResult(NamedTuple):
    """What a command of ``score`` returns.

    Attributes:
        record: the result for JSON.
        lines: the result for people.
        table: rows for a paper; ``None`` where there are no rates.
        embeddings: where the embeddings lie, if a model computed them.
    """

    record: dict[str, Any]
    lines: list[str]
    table: PaperTable | None = None
    embeddings: str | None = None


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Add the form of rows for a paper."""
    parser.add_argument(
        "--format",
        choices=("latex", "markdown"),
        help="print a table for a paper, with intervals and marks, instead of lines",
    )


def run_score(options: argparse.Namespace) -> int:
    """Run a command of ``score``, whose function is ``options.score``, and write its result."""
    if options.format and options.json:
        raise UsageError("--format and --json are two forms of the same output. Leave out one.")
    # The command may settle options that are not given; what is given is in the result.
    result = options.score(argparse.Namespace(**vars(options)))
    record, lines = result.record, list(result.lines)
    out = getattr(options, "out", None)
    if options.json or out:
        proof = _proof(options, result)
        record = record | {"proof": proof}
        if out:
            lines.append(f"Result in {_write_beside(Path(out), record)}")
    if options.format and result.table:
        lines = table_lines(result.table, options.format)
    write_result(options, record, lines)
    return DONE


# -- What a result was made of ---------------------------------------------------------------------


def listers() -> dict[str, Callable[[Path], Files]]:
    """Return what lists the files behind each input."""
    from voxblink2_lib.scoring.input_files import (
        files_of_embeddings,
        files_of_protocols,
        files_of_trials,
        single_file,
    )

    folders: dict[str, Callable[[Path], Files]] = {
        "trials": files_of_trials,
        "protocol": files_of_protocols,
        "embeddings": files_of_embeddings,
        "cohort": files_of_embeddings,
        "centre": files_of_embeddings,
    }
    return {name: folders.get(name, single_file) for name in INPUTS}


def given_inputs(options: argparse.Namespace) -> dict[str, Path]:
    """Return the paths of all inputs that are given, by their options."""
    given = {name: getattr(options, name, None) for name in INPUTS}
    if given["condition"]:
        given["condition"] = given["condition"][0]
    if given["centre"] == BY_COHORT:
        del given["centre"]
    return {name: Path(path) for name, path in given.items() if path}


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide the numbers besides the inputs, as JSON has them."""
    values = {
        name: value
        for name, value in vars(options).items()
        if not (name in (*INPUTS, *_NO_OPTIONS) or value is None or value is False)
    }
    if condition := getattr(options, "condition", None):
        values["condition"] = condition[1:]
    if getattr(options, "centre", None) == BY_COHORT:
        values["centre"] = BY_COHORT
    return dict(json.loads(json.dumps(values)))


def _proof(options: argparse.Namespace, result: ScoreResult) -> dict[str, Any]:
    """Return what a result was made of, with the hashes of all files."""
    from voxblink2_lib.files import sha256_of
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.embedding_files import written_model
    from voxblink2_lib.scoring.input_files import hash_inputs
    from voxblink2_lib.scoring.result_check import current_versions

    inputs = given_inputs(options)
    if result.embeddings:
        inputs["embeddings"] = Path(result.embeddings)
    hashes = hash_inputs(inputs, listers(), progress=show_progress)
    proof: dict[str, Any] = {
        "format": FORMAT,
        "command": options.prog.removeprefix("voxblink2 "),
        "inputs": {
            name: {"path": str(path), "sha256": _one_or_all(hashes[name])}
            for name, path in inputs.items()
        },
        "options": given_options(options),
        "model": written_model(inputs["embeddings"]) if "embeddings" in inputs else None,
        "versions": current_versions(),
    }
    if out := getattr(options, "out", None):
        proof["out"] = {"path": out, "sha256": sha256_of(Path(out))}
    return proof


def _one_or_all(hashes: dict[str, str]) -> str | dict[str, str]:
    """Return the hash of an input that is one file, or those of its files by their names."""
    from voxblink2_lib.scoring.input_files import ITSELF

    return hashes[ITSELF] if hashes.keys() == {ITSELF} else hashes


def _write_beside(out: Path, record: dict[str, Any]) -> Path:
    """Write a result beside the scores, with paths as seen from there; return the file."""
    from voxblink2_lib.files import atomic_write

    path = out.with_name(f"{out.name}.json")
    proof = record["proof"]
    inputs = {
        name: entry | {"path": _seen_from(out.parent, entry["path"])}
        for name, entry in proof["inputs"].items()
    }
    moved = proof | {"inputs": inputs, "out": proof["out"] | {"path": out.name}}
    with atomic_write(path) as file:
        file.write(json.dumps(redacted(record | {"proof": moved}), indent=1).encode() + b"\n")
    return path


def _seen_from(folder: Path, path: str) -> str:
    return path if os.path.isabs(path) else os.path.relpath(path, folder)
