"""How much memory the machine has, or the container that this process runs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.progress import size_text


class Memory(NamedTuple):
    """Memory that processes may use.

    Attributes:
        owner: what has so much, for messages.
        total_bytes: all of it.
        available_bytes: what new processes could use of it now.
    """

    owner: str
    total_bytes: int
    available_bytes: int


def memory_text(root: Path = Path("/")) -> str:
    """Return a sentence about the memory there was; an empty text where that is not known.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    memory = read_memory(root)
    if memory is None:
        return ""
    total, available = size_text(memory.total_bytes), size_text(memory.available_bytes)
    return f"{memory.owner} had {total} of memory, {available} of it available"


def read_memory(root: Path = Path("/")) -> Memory | None:
    """Return the memory of this machine, or the limit of a control group where it is lower.

    Args:
        root: where ``proc`` and ``sys`` are.

    Returns:
        ``None`` where the system does not say.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes = {name: int(value.split()[0]) << 10 for name, _, value in _fields(lines)}
        machine = Memory("The machine", sizes["MemTotal"], sizes["MemAvailable"])
    except (OSError, KeyError, ValueError, IndexError):
        return None
    groups = (_group_memory(folder) for folder in _group_folders(root))
    limits = [group for group in groups if group and group.total_bytes < machine.total_bytes]
    # What the strictest allows is no more than what the others allow.
    return min([machine, *limits], key=lambda memory: memory.available_bytes)


def _fields(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    yield from (line.partition(":") for line in lines if line)


def _group_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of memory that this process is in, inner ones first.

    A container sees its own group as the root, whatever path the kernel states.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        folder = mount / path.lstrip("/")
        while folder != mount:
            yield folder
            folder = folder.parent
        yield mount


def _group_memory(folder: Path) -> Memory | None:
    """Return what a control group may use, of version 2 or 1; ``None`` without a limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            total, used = (int((folder / name).read_text()) for name in (limit, usage))
        except (OSError, ValueError):  # "max" is no number
            continue
        return Memory("The container", total, max(0, total - used + _cached_bytes(folder)))
    return None


def _cached_bytes(folder: Path) -> int:
    """Return how much of the usage is a cache of files, which the kernel frees when necessary."""
    try:
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0
