"""A run over an archive of cut audio that kills itself, as the kernel would, at a given moment.

Started as a program::

    python -m support.killed_archive_run ARCHIVE STORE LOG MOMENT NUMBER

MOMENT is ``bytes`` (so many were read of the parts), ``blocks`` (of files were cut), ``rows`` (of
so many videos were added), ``half`` (rows are on disk, and no commit says so), ``commits``,
``seals`` and ``sealed`` (before and after a shard has its name), or ``never``. Each read of the
parts is a line of LOG: process, offset, bytes.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.inline_pool import InlinePool
from voxblink2_lib.archive import parts, reader
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize

POINT_BYTES = 1_000_000
PATCHED = pytest.MonkeyPatch()  # for the life of this program


class Countdown:
    """Kills this process when it has been called for the last time.

    Args:
        count: how much is left.
    """

    def __init__(self, count: int) -> None:
        self._left = count

    def take(self, count: int = 1) -> None:
        """Count something that happened."""
        self._left -= count
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is counted when it has returned."""

        def counted(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.take()
            return result

        return counted

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is counted when it is called."""

        def counted(*arguments: Any, **options: Any) -> Any:
            self.take()
            return function(*arguments, **options)

        return counted


# What is counted for each moment, and when.
_HOOKS = {
    "blocks": ("support.inline_pool.run_call", Countdown.after),
    "half": ("voxblink2_lib.store.open_shard.atomic_write", Countdown.before),
    "rows": ("voxblink2_lib.store.open_shard.OpenShard.add", Countdown.after),
    "commits": ("voxblink2_lib.store.cut_jobs.CutJobs.set_position", Countdown.after),
    "seals": ("voxblink2_lib.materialize.cut_audio_job.seal_open_shard", Countdown.before),
    "sealed": ("voxblink2_lib.materialize.cut_audio_job.seal_open_shard", Countdown.after),
}


def log_reads(log: Path, countdown: Countdown | None) -> None:
    """Write each read of the stream of members to a log, and count its bytes."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class LoggedFile(parts.JoinedFile):
        is_logged = False

        def readinto(self, buffer: Any) -> int:
            offset = self.tell()
            count = super().readinto(buffer)
            if self.is_logged and count:
                os.write(handle, f"{os.getpid()} {offset} {count}\n".encode())
                if countdown is not None:
                    countdown.take(count)
            return count

    class LoggedReader(reader.ArchiveReader):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            assert isinstance(self._packed, LoggedFile)
            self._packed.is_logged = True

    PATCHED.setattr("voxblink2_lib.archive.reader.JoinedFile", LoggedFile)
    PATCHED.setattr("voxblink2_lib.cut_audio.members.ArchiveReader", LoggedReader)


def main(archive: str, store: str, log: str, moment: str, number: str) -> None:
    """Run until the moment."""
    countdown = Countdown(int(number))
    PATCHED.setattr("voxblink2_lib.cut_audio.members.POINT_BYTES", POINT_BYTES)
    PATCHED.setattr("voxblink2_lib.cut_audio.blocks.WorkerPool", InlinePool)
    log_reads(Path(log), countdown if moment == "bytes" else None)
    if moment in _HOOKS:
        function, wrapped = _HOOKS[moment]
        PATCHED.setattr(function, wrapped(countdown, pkgutil.resolve_name(function)))
    request = MaterializeRequest(source=archive, store=store, workers=1)
    materialize(request, retry=True, wait=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
