"""The units of an export, one for each shard: written whole, then sealed by a receipt.

TARGET/.voxblink2-export/
  UNIT.begun                while it is written: a signature, and the names of its utterances
  UNIT.receipt              as JSON: of which shard and rows, and how much
  UNIT.xxh128               the checksum of each file, as ``xxh128sum --check`` reads it
  UNIT.LIST                 the unit's lines of a list
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath

from voxblink2_lib.errors import ExportError
from voxblink2_lib.export.formats import Format
from voxblink2_lib.export.hub_target import bundled
from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.rows import UnitRows
from voxblink2_lib.export.target import Target

FOLDER = ".voxblink2-export"
BEGUN, RECEIPT, FILES = ".begun", ".receipt", ".xxh128"


@dataclass(frozen=True, slots=True)
class ListPart:
    """A unit's lines of a list: how many, and the first of them."""

    lines: int
    first: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was written for a shard, once all of it is there.

    Attributes:
        unit: name of the unit.
        sha256: of the shard.
        signature: of the rows and all else that decides what is written.
        utterances: number of them.
        files: number of files.
        size_bytes: of these files.
        sizes: of the large ones and of what lies beside the receipt, by their paths.
        lists: the unit's lines of each list.
    """

    unit: str
    sha256: str
    signature: str
    utterances: int
    files: int
    size_bytes: int
    sizes: dict[str, int]
    lists: dict[str, ListPart]

    def is_whole(self, target: Target) -> bool:
        """Return whether its large files and its lists have the sizes that they were written with.

        Somebody may have removed one, or a power cut may have hit a list that was not flushed. A
        server keeps what it took, and would be asked for each file.
        """
        if not target.is_local:
            return True
        return all(target.size_of(path) == size for path, size in self.sizes.items())


@dataclass(frozen=True, slots=True)
class UnitTask:
    """A unit to write.

    Attributes:
        unit: its name.
        rows: what is written.
        chosen: the format.
        target: where it goes.
        sha256: of the shard.
        signature: see :class:`Receipt`.
        utterances: number of its rows.
    """

    unit: str
    rows: UnitRows
    chosen: Format
    target: Target
    sha256: str
    signature: str
    utterances: int


def unit_name(shard: str) -> str:
    """Return the name of the unit of a shard.

    >>> unit_name("audio-00012.arrow")
    'audio-00012'
    """
    return PurePath(shard).stem


def signature_of(*parts: bytes) -> str:
    """Return a digest of what decides the content of a unit."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def write_unit(task: UnitTask) -> Receipt:
    """Write a unit; its receipt comes last. Runs in a worker process.

    Raises:
        StoreDamagedError: the shard is damaged or gone.
        StoreError: the disk is full or fails.
        ExportError: the target cannot be written to.
        StoppedError: a server of the target fails.
    """
    with bundled(task.target, task.unit) as target:
        return _write_unit(task, target)


def _write_unit(task: UnitTask, target: Target) -> Receipt:
    names = task.rows.names() if task.chosen.has_file_per_utterance else []
    target.put(_path(task.unit, BEGUN), _text([task.signature, *names]))
    output = UnitOutput(target, task.unit)
    task.chosen.write(task.rows, output)
    for entry in task.chosen.lists:
        lines = output.lists[entry.name]
        lines.sort() if entry.is_sorted else None
        output.note(_path(task.unit, f".{entry.name}"), _text(lines))
    checksums = [f"{checksum}  {path}" for path, checksum in output.checksums.items()]
    output.note(_path(task.unit, FILES), _text(checksums))
    if task.chosen.has_file_per_utterance:
        target.flush()
    receipt = Receipt(
        task.unit,
        task.sha256,
        task.signature,
        task.utterances,
        len(output.checksums),
        output.size_bytes,
        output.sizes,
        {name: ListPart(len(lines), lines[0]) for name, lines in output.lists.items()},
    )
    # The files are on the disk, and a unit without a receipt is written again.
    with target.file(_path(task.unit, RECEIPT), is_flushed=False) as file:
        file.write(f"{json.dumps(asdict(receipt), indent=1)}\n".encode())
    target.remove(_path(task.unit, BEGUN))
    return receipt


def read_receipts(target: Target) -> dict[str, Receipt]:
    """Return the receipts in a target, by the names of their units; not those that are empty.

    Raises:
        ExportError: one is damaged.
    """
    units = [name.removesuffix(RECEIPT) for name in target.names(FOLDER) if name.endswith(RECEIPT)]
    texts = target.read_all([_path(unit, RECEIPT) for unit in units])
    pairs = zip(units, texts, strict=True)
    return {unit: _parsed(target, unit, text) for unit, text in pairs if text}


def _parsed(target: Target, unit: str, text: bytes) -> Receipt:
    try:
        values = json.loads(text)
        lists = {key: ListPart(**part) for key, part in values.pop("lists").items()}
        return Receipt(**values, lists=lists)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(
            f"{target.place(_path(unit, RECEIPT))} is no receipt of an export. Remove it; its "
            "shard is written again."
        ) from error


def read_list(target: Target, unit: str, name: str) -> list[str]:
    """Return a unit's lines of a list.

    Raises:
        ExportError: they are gone.
    """
    data = target.read(_path(unit, f".{name}"))
    if data is None:
        raise ExportError(
            f"{target.place(_path(unit, f'.{name}'))} is missing. Remove "
            f"{target.place(_path(unit, RECEIPT))}; the shard is written again."
        )
    return data.decode().split("\n")[:-1]


def remove_unit(target: Target, receipt: Receipt) -> None:
    """Remove the files of a unit, and at last its receipt."""
    for line in _lines(target, receipt.unit, FILES):
        target.remove(line.partition("  ")[2])
    for suffix in (FILES, *(f".{name}" for name in receipt.lists), RECEIPT):
        target.remove(_path(receipt.unit, suffix))


def remove_begun(
    target: Target, chosen: Format, signatures: Mapping[str, str], done: Container[str]
) -> None:
    """Remove what a killed run has written of units that are not in the export any more.

    Args:
        target: the target.
        chosen: the format.
        signatures: of the units of the export. What was begun of these is written again.
        done: names of the units that are finished.
    """
    names = target.names(FOLDER)
    for unit in (name.removesuffix(BEGUN) for name in names if name.endswith(BEGUN)):
        signature, *utterances = _lines(target, unit, BEGUN) or [""]
        if signatures.get(unit) != signature:
            for path in chosen.paths(unit, utterances):
                target.remove(path)
        if unit in done or signatures.get(unit) != signature:
            target.remove(_path(unit, BEGUN))


def _lines(target: Target, unit: str, suffix: str) -> list[str]:
    return (target.read(_path(unit, suffix)) or b"").decode().split("\n")[:-1]


def _path(unit: str, suffix: str) -> str:
    return f"{FOLDER}/{unit}{suffix}"


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
