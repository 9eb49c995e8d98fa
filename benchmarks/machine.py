"""Describe the machine that a benchmark ran on, without names of hosts or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from voxblink2_lib.cores import usable_cores

_PACKAGES = [
    "torch",
    "torchcodec",
    "av",
    "soundfile",
    "pyarrow",
    "numpy",
    "scikit-learn",
    "opencv-python-headless",
]


def describe(work: Path) -> dict[str, str]:
    """Return what the figures depend on: hardware and versions.

    Args:
        work: the folder that the benchmark writes to; only its type of file system is reported.
    """
    packages = {name: _version(name) for name in _PACKAGES}
    return {
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": f"{usable_cores()}",
        "memory": f"{_kibibytes('MemTotal', Path('/proc/meminfo')) / 2**20:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "file system": _file_system(work),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ffmpeg": _ffmpeg_version(),
        **packages,
    }


def peak_memory_bytes(_: object) -> int:
    """Return the peak memory of this process, as a call for a worker."""
    return _kibibytes("VmHWM", Path("/proc/self/status")) << 10


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # some benchmarks need few packages
        return "absent"


def _first(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text(encoding="utf-8"))
    return match[1] if match else ""


def _kibibytes(name: str, file: Path) -> int:
    return int(_first(rf"{name}:\s*(\d+) kB", file))


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    parents = {str(path) for path in (folder, *folder.resolve().parents)}
    return max((len(point), kind) for _, point, kind, *_ in mounts if point in parents)[1]


def _ffmpeg_version() -> str:
    try:
        done = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return "absent"
    return done.stdout.split()[2]
