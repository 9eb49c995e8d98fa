"""What worker processes of tests run. Importing this costs them nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path


def double(number: int) -> int:
    """Return twice a number; refuse negative ones."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    return 2 * number


def die(signal_number: int) -> None:
    """Die of a signal, as a decoder does on hostile media."""
    os.kill(os.getpid(), signal_number)


def die_on_task(task: object) -> None:
    """Die of whatever there is to do."""
    die(signal.SIGKILL)


def leave(_: object) -> None:
    """End the process in an orderly way."""
    raise SystemExit(7)


class UnportableError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def raise_unportable(_: object) -> None:
    """Raise what cannot be sent back."""
    raise UnportableError(1, 2)


def hang_with_child(note: Path) -> None:
    """Start a process that goes on for ever, write down the group of both, and never return."""
    _start_child(note)
    threading.Event().wait()


def die_with_child(how: tuple[Path, int | None]) -> None:
    """Start such a process, and die of a signal, or end in an orderly way."""
    note, signal_number = how
    _start_child(note)
    if signal_number is None:
        leave(None)
    else:
        die(signal_number)


def _start_child(note: Path) -> None:
    subprocess.Popen(["sleep", "1000"])
    fresh = note.with_suffix(".tmp")
    fresh.write_text(str(os.getpgid(0)))
    fresh.rename(note)
