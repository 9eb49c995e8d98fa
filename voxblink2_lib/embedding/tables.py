"""Audio and names in the columns of a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from voxblink2_lib.embedding.lists import FilePart
from voxblink2_lib.errors import EmbeddingError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.records import SAMPLE_RATE_HZ

NAME_COLUMNS = ("name", "utterance", "utt", "key", "id", "file_name")
_IDS = ("speaker_id", "video_id", "utterance_id")
# Beside a column of samples.
_RATE = "sampling_rate"
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000


@dataclass(frozen=True, slots=True)
class NoAudio:
    """Audio that is not read.

    Attributes:
        reason: why, after the name of the utterance.
    """

    reason: str


class Samples(NamedTuple):
    """Decoded audio: samples in [-1, 1], shape (samples,), and how many of them a second has."""

    values: npt.NDArray[np.float32]
    rate_hz: int


# Encoded audio, or the file that holds it or a part of it, or samples.
Audio = bytes | Path | FilePart | Samples | NoAudio


class TableColumns(NamedTuple):
    """Which columns of a table are read.

    Attributes:
        audio: bytes of encoded files; structures of ``bytes`` and ``path``, or of ``array`` and
            ``sampling_rate``, as ``datasets`` writes them; or lists of samples, at the rate in a
            column ``sampling_rate``, else at 16 kHz.
        name: names of utterances; by default ``speaker_id``, ``video_id`` and ``utterance_id``, or
            the first of :data:`NAME_COLUMNS` that is there.
    """

    audio: str = "audio"
    name: str | None = None

    def needed(self, schema: pa.Schema, path: str | Path) -> list[str]:
        """Return the columns to read.

        Raises:
            EmbeddingError: there is no column of audio or of names.
        """
        if self.audio not in schema.names:
            raise EmbeddingError(
                f"There is no column {self.audio!r} in {path}; there are {_listed(schema)}."
            )
        kind = schema.field(self.audio).type
        if not (_is_bytes(kind) or _is_samples(kind) or _is_media(kind)):
            raise EmbeddingError(
                f"The column {self.audio!r} of {path} is of the type {shortened(str(kind))}; "
                "expected are bytes, structures of 'bytes' and 'path' or of 'array' and "
                "'sampling_rate' as datasets writes them, or lists of samples."
            )
        rate = [_RATE] if _is_samples(kind) and _RATE in schema.names else []
        return [self.audio, *self.naming(schema, path), *rate]

    def naming(self, schema: pa.Schema, path: str | Path) -> list[str]:
        """Return the columns of names.

        Raises:
            EmbeddingError: there is none.
        """
        names = set(schema.names)
        if self.name is not None:
            if self.name not in names:
                raise EmbeddingError(
                    f"There is no column {self.name!r} in {path}; there are {_listed(schema)}."
                )
            return [self.name]
        if names >= set(_IDS):
            return list(_IDS)
        matches = [name for name in NAME_COLUMNS if name in names]
        if not matches:
            raise EmbeddingError(
                f"There is no column in {path} that names utterances ({', '.join(_IDS)}, or one of "
                f"{', '.join(NAME_COLUMNS)}); there are {_listed(schema)}. Name one with "
                "--name-column."
            )
        return matches[:1]

    def names(self, rows: pa.Table, path: str | Path) -> list[str]:
        """Return the names of utterances.

        Raises:
            EmbeddingError: an utterance has none.
        """
        columns = [rows[name].to_pylist() for name in self.naming(rows.schema, path)]
        if any(None in column for column in columns):
            raise EmbeddingError(f"An utterance of {path} has no name: there is a null.")
        return ["/".join(map(str, parts)) for parts in zip(*columns, strict=True)]

    def sounds(self, rows: pa.Table) -> list[Audio]:
        """Return the audio of utterances."""
        cells = rows[self.audio].to_pylist()
        if not _is_samples(rows.schema.field(self.audio).type):
            return [*map(_sound, cells)]
        rates = rows[_RATE].to_pylist() if _RATE in rows.schema.names else [None] * len(rows)
        return [_samples(cell, rate) for cell, rate in zip(cells, rates, strict=True)]


USUAL = TableColumns()


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_samples(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _is_media(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    if "array" in fields:
        return _is_samples(fields["array"]) and _RATE in fields
    return fields.keys() == {"bytes", "path"} and _is_bytes(fields["bytes"])


def _listed(schema: pa.Schema) -> str:
    return shortened(", ".join(schema.names), quoted=False)


def _sound(cell: bytes | dict[str, Any] | None) -> Audio:
    """Return the audio in a cell; empty bytes if there is none."""
    if not isinstance(cell, dict):
        return cell or b""
    if "array" in cell:
        return _samples(cell["array"], cell[_RATE])
    if cell["bytes"] is None and cell["path"]:
        # Whoever wrote the table would choose a file of this machine.
        return NoAudio(
            f"has no bytes, only the path {shortened(cell['path'])}. Files are read from a folder "
            "or from a list wav.scp, never from a table"
        )
    return cell["bytes"] or b""


def _samples(values: list[float] | None, rate: object) -> Audio:
    if not values:
        return b""
    hertz = SAMPLE_RATE_HZ if rate is None else rate
    if not (isinstance(hertz, int) and _LOWEST_RATE_HZ <= hertz <= _HIGHEST_RATE_HZ):
        return NoAudio(
            f"has the sampling rate {shortened(rate)}; allowed are {_LOWEST_RATE_HZ:,} to "
            f"{_HIGHEST_RATE_HZ:,} samples a second"
        )
    return Samples(np.array(values, np.float32), hertz)
