"""Indexes with groups, batches and seek points so small that a little release has many of each.

Run as a program, it builds such an index, and kills itself at one of the flushes:

    python -m support.small_index RELEASE FOLDER PROCESSES FLUSH
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from voxblink2_lib.archive import gzip_stream
from voxblink2_lib.release import (
    annotation_files,
    annotation_workers,
    index_build,
    index_writer,
)
from voxblink2_lib.release.annotation_files import read_batches
from voxblink2_lib.release.location import Release

UTTERANCES_PER_GROUP = 8
POINT_BYTES = 8192
INPUT_BYTES = 512


@contextmanager
def small_index() -> Iterator[pytest.MonkeyPatch]:
    """Make everything small in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_writer, "UTTERANCES_PER_GROUP", UTTERANCES_PER_GROUP)
        patch.setattr(index_writer, "BOXES_PER_GROUP", UTTERANCES_PER_GROUP // 2)
        patch.setattr(annotation_files, "POINT_BYTES", POINT_BYTES)
        patch.setattr(gzip_stream, "_INPUT_BYTES", INPUT_BYTES)
        patch.setattr(index_build, "read_batches", partial(read_batches, batch_bytes=3000))
        patch.setattr(annotation_workers, "_BATCHES_ALONE", 2)
        yield patch


def killed_at(flush: int, patch: pytest.MonkeyPatch) -> None:
    """Kill this process when it flushes a file for the n-th time."""
    flushes = iter(range(flush))
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        if next(flushes, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    patch.setattr(os, "fsync", counted)


if __name__ == "__main__":
    path, folder, processes, flush = sys.argv[1:]
    with small_index() as patched:
        killed_at(int(flush), patched)
        index_build.build_index(Release(Path(path)), Path(folder), processes=int(processes))
