"""Files that ask for more than a machine has, and a process with little memory that reads them."""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.embedding.blocks import find_blocks
from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.scoring.embeddings import read_embeddings

MEMORY_BYTES, SECONDS = 3 << 30, 60
_HUGE = 1 << 40

# -- Pickles ---------------------------------------------------------------------------------------

_NESTED = b")" + b"\x85" * 1_000_000  # a tuple in a tuple in ...
PICKLES = {
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "memo as text": b"}p2147483647\n.",
    "text": b"\x80\x04X\xff\xff\xff\xff.",
    "long text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", _HUGE) + b".",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", _HUGE) + b".",
    "nested key": b"}" + _NESTED + b"Ns.",
    "nested value": b"}U\x01a" + _NESTED + b"s.",
    "nested through the memo": b"]q\x00" + b"".join(
        b"h" + bytes([place]) + b"]q" + bytes([place + 1]) + b"a0" for place in range(200)
    ) + b".",
    "colliding keys": pickle.dumps({(2**61 - 1) * number: None for number in range(30_000)}),
    "a long name": pickle.dumps({"x" * 5_000_000: [1.0]}),
}  # fmt: skip


def shared_array() -> bytes:
    """Return a pickle of 8 MB in which 20,000 names have the same array."""
    array = np.ones(2_000_000, np.float32)
    return pickle.dumps({f"u{number}": array for number in range(20_000)})


# -- Arrays ----------------------------------------------------------------------------------------


def npy(header: str, claimed: int | None = None) -> bytes:
    """Return an array file with this header and no values."""
    text = header.encode()
    length = len(text) if claimed is None else claimed
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + text


def _shape(shape: str) -> str:
    return f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"


ARRAYS = {
    "cut header": npy(_shape("(2, 2)"), (1 << 32) - 1),
    "huge": npy(_shape(f"({_HUGE}, 4)")),
    "overflow": npy(_shape(f"({1 << 33}, {1 << 33})")),
    "negative": npy(_shape("(-1, 4)")),
    "nested": npy("(" * 9_000),
}
_VALUES = json.dumps({"a": {"dtype": "F32", "shape": [_HUGE], "data_offsets": [0, 4]}}).encode()
TENSORS = {
    "header": struct.pack("<Q", _HUGE) + b"{}",
    "values": struct.pack("<Q", len(_VALUES)) + _VALUES,
}


def equal_rows(path: Path, column: str) -> None:
    """Write Parquet of a million equal rows, which take no room."""
    value = {"audio": b"1", "embedding": [1.0, 1.0]}[column]
    rows = pa.table({"name": ["a"], column: [value]})
    many = rows.take(np.zeros(1_000_000, np.int64))
    pq.write_table(many, path, row_group_size=len(many), compression="zstd")


# -- Arrow -----------------------------------------------------------------------------------------


def compressed_stream(codec: str) -> bytes:
    """Return a stream in which each compressed column claims a terabyte."""
    rows = pa.table({"name": ["a" * 9], "audio": [b"1" * 9_999]})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    return sink.getvalue().replace(struct.pack("<q", 9_999), struct.pack("<q", _HUGE))


def null_rows() -> bytes:
    """Return a stream of many rows in a few bytes."""
    rows = pa.table({"name": pa.nulls(9_999), "audio": pa.nulls(9_999)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().replace(struct.pack("<q", 9_999), struct.pack("<q", _HUGE))


# -- Reading ---------------------------------------------------------------------------------------


def write_all(folder: Path) -> None:
    """Write all these files, named by what they are."""
    for suffix, contents in [("pkl", PICKLES), ("npy", ARRAYS), ("safetensors", TENSORS)]:
        for name, data in contents.items():
            (folder / f"{name}.{suffix}").write_bytes(data)
            (folder / f"{name}.txt").write_text("a\n")
    (folder / "shared.pkl").write_bytes(shared_array())
    for codec in ("lz4", "zstd"):
        (folder / f"{codec}.arrow").write_bytes(compressed_stream(codec))
    (folder / "nulls.arrow").write_bytes(null_rows())
    equal_rows(folder / "vectors.parquet", "embedding")
    equal_rows(folder / "audio.audio.parquet", "audio")


def read(path: Path) -> None:
    """Read a file by the reader of its kind."""
    if path.name.endswith((".arrow", ".audio.parquet")):
        for block in find_blocks(path).blocks:
            list(block.read())
    else:
        read_embeddings(path)


def main(folder: Path) -> None:
    """Write the messages of all files as JSON; empty if one was read."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    messages = {}
    for path in sorted(folder.iterdir()):
        if path.suffix != ".txt":
            messages[path.name] = ""
            try:
                read(path)
            except VoxBlink2Error as error:
                messages[path.name] = str(error)
    sys.stdout.write(json.dumps(messages))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
