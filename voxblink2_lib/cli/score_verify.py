"""The command ``score verify``: compute a result again, from the very files that it was made of."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from voxblink2_lib.cli.parser import CommandParser
from voxblink2_lib.cli.score_file import add_file_command
from voxblink2_lib.cli.score_ossi import add_ossi_command
from voxblink2_lib.cli.score_result import (
    FORMAT,
    INPUTS,
    given_inputs,
    given_options,
    listers,
)
from voxblink2_lib.cli.score_sv import add_sv_command
from voxblink2_lib.cli.terminal import (
    CHECK_FAILED,
    DONE,
    add_command,
    redacted,
    write_message,
    write_result,
)
from voxblink2_lib.errors import ScoringError, UsageError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.records import option_string

if TYPE_CHECKING:
    from voxblink2_lib.scoring.result_check import Difference

_COMMANDS = {
    "score sv": add_sv_command,
    "score ossi": add_ossi_command,
    "score file": add_file_command,
}
# What is in a result, and not computed from its files; and names that a move changes.
_NOT_COMPARED = ("proof", "published", "embeddings", "protocol")

_LARGEST_RESULT_BYTES = 1 << 30


@dataclass(frozen=True)
class _Proof:
    """What a result says that it was made of; see ``score_result``."""

    command: str
    inputs: Mapping[str, tuple[str, dict[str, str]]]
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    scores: tuple[str, str] | None


class _FileCheck(NamedTuple):
    """A file of an input: its hash in the result, and now; ``None`` where it is not there."""

    input: str
    path: str
    recorded: str | None
    here: str | None

    @property
    def agrees(self) -> bool:
        return self.recorded == self.here


class _Numbers(NamedTuple):
    """What was compared, and what differs."""

    compared: int
    differences: list[Difference]
    tolerance: float
    other_versions: list[str]


def _verify(options: argparse.Namespace) -> int:
    result = Path(options.result)
    record = _read(result)
    proof = _proof_of(result, record)
    places = _places(options, result, proof)
    files = _checked_files(proof, places)
    numbers = None
    if all(file.agrees for file in files):
        numbers = _compared(result, record, proof, places)
    is_right = numbers is not None and not numbers.differences
    shown = {
        "result": str(result),
        "command": proof.command,
        "verified": is_right,
        "files": [{**file._asdict(), "agrees": file.agrees} for file in files],
        "compared": None if numbers is None else numbers.compared,
        "tolerance": None if numbers is None else numbers.tolerance,
        "other_versions": [] if numbers is None else numbers.other_versions,
        "differences": [each._asdict() for each in numbers.differences] if numbers else [],
    }
    write_result(options, shown, _lines(result, proof, files, numbers))
    return DONE if is_right else CHECK_FAILED


# -- The result ------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        ScoringError: it is no JSON object.
    """
    with as_own_error(ScoringError, f"{path}: cannot be read as a result of score (JSON)"):
        if not path.is_file():
            raise ValueError("there is no such file")
        if path.stat().st_size > _LARGEST_RESULT_BYTES:
            raise ValueError("it has more than 1 GiB")
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it is not an object")
        return record


def _proof_of(path: Path, record: Mapping[str, Any]) -> _Proof:
    """Return what a result says that it was made of.

    Raises:
        ScoringError: it does not say so, or not in a form that this version reads.
    """
    proof = record.get("proof")
    if not isinstance(proof, dict):
        raise ScoringError(
            f"{path} does not say what it was made of. Results do that are written by --out, or "
            f"with --json, of {', '.join(_COMMANDS)}."
        )
    if proof.get("format") != FORMAT or proof.get("command") not in _COMMANDS:
        raise ScoringError(
            f"{path} has the format {shortened(proof.get('format'))} of "
            f"{shortened(proof.get('command'))}; read are format {FORMAT} of "
            f"{', '.join(_COMMANDS)}. Use the version of voxblink2 that wrote it."
        )
    with as_own_error(ScoringError, f"{path}: the key 'proof' is not what score writes"):
        inputs = {name: _hashed(entry) for name, entry in dict(proof["inputs"]).items()}
        if not inputs or inputs.keys() - set(INPUTS):
            raise ValueError(f"its inputs are {shortened(', '.join(inputs), quoted=False)}")
        scores = None
        if "out" in proof:
            name, hashes = _hashed(proof["out"])
            scores = name, hashes["."]
        versions = {str(name): str(text) for name, text in dict(proof["versions"]).items()}
        return _Proof(proof["command"], inputs, dict(proof["options"]), versions, scores)


def _hashed(entry: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the path of an input, and the hashes of its files by their names."""
    hashes = entry["sha256"]
    parts = {".": hashes} if isinstance(hashes, str) else dict(hashes)
    return str(entry["path"]), {str(part): str(sha256) for part, sha256 in parts.items()}


# -- Files -----------------------------------------------------------------------------------------


def _places(options: argparse.Namespace, result: Path, proof: _Proof) -> dict[str, Path]:
    """Return where the inputs are now.

    Raises:
        UsageError: a place is given for what the result was not made of.
        ScoringError: an input is nowhere.
    """
    given = {name: place for name in INPUTS if (place := getattr(options, name))}
    if unknown := given.keys() - proof.inputs.keys():
        raise UsageError(
            f"{', '.join(map(option_string, sorted(unknown)))}: {result} was made without. It was "
            f"made of {', '.join(proof.inputs)}."
        )
    places = {}
    for name, (path, _) in proof.inputs.items():
        place = _found(result, given.get(name, path), is_given=name in given)
        if place is None:
            raise ScoringError(
                f"{result} was made of {name} {shortened(given.get(name, path))}, which is neither "
                f"beside it nor here. Name its place: {option_string(name)} PLACE."
            )
        places[name] = place
    return places


def _found(result: Path, path: str, *, is_given: bool = False) -> Path | None:
    """Return the file or folder of a path that may be as seen from the result, or from here."""
    places = [Path(path)] if is_given else [result.parent / path, Path(path)]
    return next((place for place in places if place.is_file() or place.is_dir()), None)


def _checked_files(proof: _Proof, places: Mapping[str, Path]) -> list[_FileCheck]:
    """Return the recorded and the present hash of every file of every input."""
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.input_files import ITSELF, hash_inputs

    present = hash_inputs(places, listers(), progress=show_progress)
    checks = []
    for name, (_, recorded) in proof.inputs.items():
        here = present[name]
        for part in dict.fromkeys([*recorded, *here]):
            path = str(places[name])
            if part != ITSELF:  # a file in a folder, or one that the input names
                path = str(places[name] / part) if places[name].is_dir() else f"{path}: {part}"
            checks.append(_FileCheck(name, path, recorded.get(part), here.get(part)))
    return checks


# -- Numbers ---------------------------------------------------------------------------------------


def _compared(
    result: Path, record: Mapping[str, Any], proof: _Proof, places: Mapping[str, Path]
) -> _Numbers:
    """Compute a result again and compare all its numbers, and the scores that were written."""
    from voxblink2_lib.files import sha256_of
    from voxblink2_lib.scoring.result_check import (
        TOLERANCE,
        Difference,
        compare_results,
        current_versions,
    )

    versions = current_versions()
    others = [
        f"{name} {shortened(proof.versions.get(name), quoted=False)} there, "
        f"{shortened(versions.get(name), quoted=False)} here"
        for name in dict.fromkeys([*versions, *proof.versions])
        if proof.versions.get(name) != versions.get(name)
    ]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, f"scores{Path(proof.scores[0]).suffix}") if proof.scores else None
        here = _computed(result, proof, places, out)
        count, differences = compare_results(
            record, here, is_exact=not others, ignored=_NOT_COMPARED
        )
        if proof.scores and out and not others:
            count += 1
            hashes = proof.scores[1], sha256_of(out)
            if len(set(hashes)) > 1:
                differences.append(Difference("SHA-256 of the scores", *hashes))
    return _Numbers(count, differences, TOLERANCE if others else 0.0, others)


def _computed(
    result: Path, proof: _Proof, places: Mapping[str, Path], out: Path | None
) -> dict[str, Any]:
    """Run the command of a result again, and return what it gives, as JSON has it.

    Raises:
        ScoringError: the result names what is no option of the command, or files cannot be scored.
    """
    parser = CommandParser(prog="voxblink2 score")
    _COMMANDS[proof.command](parser.add_subparsers())
    words = [proof.command.split()[-1], *_words(proof, places)]
    with as_own_error(ScoringError, f"{result}: its options are not those of {proof.command}"):
        try:
            options = parser.parse_args([*words, *(["--out", str(out)] if out else [])])
        except UsageError as error:
            raise ValueError(str(error)) from error
        # Nothing in a result may become an option that it does not name, such as a file to write.
        is_same = given_options(options) == proof.options and given_inputs(options) == places
        written = [getattr(options, name, None) for name in ("out", "plot", "model")]
        if not is_same or written != [out and str(out), None, None]:
            raise ValueError(f"they are {shortened(' '.join(words), quoted=False)}")
    write_message(f"Computing {result} again")
    record = options.score(options).record
    return dict(json.loads(json.dumps(redacted(record))))


def _words(proof: _Proof, places: Mapping[str, Path]) -> list[str]:
    """Return the words of the command line of a result."""
    inputs, options = dict(places), dict(proof.options)
    words = []
    if "scores" in inputs:
        path = str(inputs.pop("scores"))
        words.append(f"./{path}" if path.startswith("-") else path)
    if "condition" in inputs:
        options["condition"] = [str(inputs.pop("condition")), *options.get("condition", [])]
    for name, value in {**{name: str(path) for name, path in inputs.items()}, **options}.items():
        if isinstance(value, list):
            words += [option_string(name), *map(str, value)]
        else:
            words.append(option_string(name) if value is True else f"{option_string(name)}={value}")
    return words


# -- Text ------------------------------------------------------------------------------------------


def _lines(
    result: Path, proof: _Proof, files: Sequence[_FileCheck], numbers: _Numbers | None
) -> list[str]:
    right = sum(file.agrees for file in files)
    made_by = shortened(proof.versions.get("voxblink2"), quoted=False)
    lines = [
        f"Result    {result}: {proof.command}, voxblink2 {made_by}",
        f"Files     {right:,} of {len(files):,} have the SHA-256 of the result",
        *(line for file in files for line in _file_lines(file)),
    ]
    if numbers is None:
        return [*lines, "Numbers   not computed again: they would be of other files"]
    equal = numbers.compared - len(numbers.differences)
    how = "to the last bit"
    if numbers.other_versions:
        how = f"within {numbers.tolerance:g} ({'; '.join(numbers.other_versions)})"
    lines.append(f"Numbers   {equal:,} of {numbers.compared:,} are the same, {how}")
    return [
        *lines,
        *(
            f"Differs   {each.name}: {_value(each.recorded)} recorded, {_value(each.here)} here"
            for each in numbers.differences
        ),
    ]


def _file_lines(file: _FileCheck) -> list[str]:
    if file.agrees:
        return [f"          {file.input}: {file.path}"]
    if file.here is None:
        return [f"Missing   {file.input}: {file.path}, with the SHA-256 {file.recorded}"]
    if file.recorded is None:
        return [f"New       {file.input}: {file.path} is not in the result, SHA-256 {file.here}"]
    return [
        f"Changed   {file.input}: {file.path}",
        f"          SHA-256 {file.recorded} in the result",
        f"          SHA-256 {file.here} here",
    ]


def _value(value: object) -> str:
    return "nothing" if value is None else shortened(value)


# -- Arguments -------------------------------------------------------------------------------------


def add_verify_result_command(group: Any) -> None:
    """Add the command ``score verify``."""
    does = "compute a result again from its files, and compare every number"
    example = "voxblink2 score verify scores.txt.json --embeddings /data/embeddings.parquet"
    parser = add_command(group, "verify", _verify, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument(
        "result", metavar="RESULT", help="what score sv --out wrote, or score ... --json printed"
    )
    for name in INPUTS:
        parser.add_argument(
            option_string(name), metavar="PLACE", help=f"where {name.replace('_', ' ')} is now"
        )
