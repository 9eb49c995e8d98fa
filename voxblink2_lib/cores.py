"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    That is what its affinity allows (``taskset``, Slurm, ``docker --cpuset-cpus``), or less where a
    control group limits its time (``docker --cpus``, Kubernetes). A part of a core counts as one.
    """
    return max(1, min([_allowed_cores(), *map(math.ceil, _quotas())]))


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


def _quotas() -> Iterator[float]:
    """Yield what each control group of this process grants, in cores."""
    try:
        memberships = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        yield from _group_quotas(controllers, path)


def _group_quotas(controllers: str, path: str) -> Iterator[float]:
    """Yield the quotas of a control group and of those above it, in cores.

    Inside a container the path may be that of the host, which is not visible: then the root is the
    container's own group.
    """
    for name in (path, *PurePosixPath(path).parents):
        folder = str(name).lstrip("/")
        if not controllers:  # version 2
            yield from _ratio(_MOUNT / folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            group = _MOUNT / "cpu" / folder
            yield from _ratio(group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")


def _ratio(*files: Path) -> Iterator[float]:
    """Yield quota / period of one file, or of two, unless there is no limit."""
    try:
        quota, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
        if quota != "max" and float(quota) > 0:  # version 1 writes -1
            yield float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return  # no such group here, or no controller of processor time in it
