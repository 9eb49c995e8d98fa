"""A run over an archive of cut audio that kills itself, as the kernel would, at a given moment.

Started as a program::

    python -m support.killed_archive_run ARCHIVE STORE LOG MOMENT NUMBER

MOMENT is ``bytes`` (so many were read of the parts), ``parts`` (part files were written), ``half``
(before one is renamed), ``commits`` (of positions), ``seals`` (of shards) or ``never``. Each read
of the parts is a line of LOG: process, offset, bytes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.inline_pool import InlinePool
from voxblink2_lib.archive import parts, reader
from voxblink2_lib.cut_audio import cutting, members
from voxblink2_lib.materialize import cut_audio_stream, resealing
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.store import shards
from voxblink2_lib.store.cut_jobs import CutJobs

POINT_BYTES = 1_000_000


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

    reader.JoinedFile = LoggedFile  # type: ignore[misc]  # in this program only
    members.ArchiveReader = LoggedReader  # type: ignore[misc]


def main(archive: str, store: str, log: str, moment: str, number: str) -> None:
    """Run until the moment."""
    countdown = Countdown(int(number))
    members.POINT_BYTES = POINT_BYTES
    cut_audio_stream.WorkerPool = InlinePool  # type: ignore[misc]
    log_reads(Path(log), countdown if moment == "bytes" else None)
    if moment == "parts":
        cutting.write_part = countdown.after(cutting.write_part)
    elif moment == "half":
        shards.atomic_write = countdown.before(shards.atomic_write)
    elif moment == "commits":
        CutJobs.set_position = countdown.after(CutJobs.set_position)  # type: ignore[method-assign]
    elif moment == "seals":
        resealing.seal_in_ledger = countdown.before(resealing.seal_in_ledger)
    request = MaterializeRequest(source=archive, store=store, workers=1)
    materialize(request, retry=True, wait=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
