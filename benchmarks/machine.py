"""Describe the machine that a benchmark ran on, without names of hosts or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = (
    *("torch", "torchcodec", "av", "soundfile", "pyarrow", "numpy", "scikit-learn"),
    "opencv-python-headless",
)


def describe(work: Path) -> dict[str, str]:
    """Return what the figures depend on.

    Args:
        work: the folder that the benchmark writes to; only its kind of file system is told.
    """
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": f"{len(os.sched_getaffinity(0))}",
        "memory": f"{_kibibytes('MemTotal', Path('/proc/meminfo')) / 2**20:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "file system": _file_system(work),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ffmpeg": _ffmpeg_version(),
        **packages,
    }


def peak_memory_bytes(_: object) -> int:
    """Return the most memory that this process ever held; a call for a worker."""
    return _kibibytes("VmHWM", Path("/proc/self/status")) << 10


def _first(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(encoding="utf-8"))
    return found[1] if found else ""


def _kibibytes(name: str, file: Path) -> int:
    return int(_first(rf"{name}:\s*(\d+) kB", file))


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    above = {str(one) for one in (folder, *folder.resolve().parents)}
    return max((len(place), kind) for _, place, kind, *_ in mounts if place in above)[1]


def _ffmpeg_version() -> str:
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[2]
