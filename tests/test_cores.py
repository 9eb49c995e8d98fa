"""How many cores a process may use: its affinity, and the quotas of its control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxblink2_lib import cores
from voxblink2_lib.cores import usable_cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 64 cores, whose control groups are files of the test."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cores, "_MOUNT", tmp_path)
    return tmp_path


def write(machine: Path, membership: str, files: dict[str, str]) -> None:
    (machine / "membership").write_text(membership)
    for name, text in files.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(f"{text}\n")


def quota(folder: str, quota_us: str, period_us: str = "100000") -> dict[str, str]:
    """The files of a group of version 1."""
    return {f"{folder}/cpu.cfs_quota_us": quota_us, f"{folder}/cpu.cfs_period_us": period_us}


@pytest.mark.parametrize(
    ("membership", "files", "number"),
    [
        pytest.param("0::/\n", {}, 64, id="no files"),
        pytest.param("0::/\n", {"cpu.max": "max 100000"}, 64, id="no limit"),
        pytest.param("0::/\n", {"cpu.max": "400000 100000"}, 4, id="a container"),
        pytest.param("0::/\n", {"cpu.max": "25000 100000"}, 1, id="a quarter of a core"),
        pytest.param("0::/\n", {"cpu.max": "150000 100000"}, 2, id="one and a half"),
        pytest.param("0::/\n", {"cpu.max": "100000000 100000"}, 64, id="more than there are"),
        pytest.param("0::/a/b\n", {"a/cpu.max": "300000 100000"}, 3, id="the group above"),
        pytest.param(
            "0::/a/b\n",
            {"a/b/cpu.max": "800000 100000", "a/cpu.max": "200000 50000"},
            4,
            id="the tightest",
        ),
        pytest.param("0::/host/path\n", {"cpu.max": "200000 100000"}, 2, id="path of the host"),
        pytest.param("0::/a:b\n", {"a:b/cpu.max": "200000 100000"}, 2, id="a colon in the path"),
        pytest.param("0::/\n", {"cpu.max": "?"}, 64, id="unreadable"),
        pytest.param("0::/\n", {"cpu.max": "100000 0"}, 64, id="no period"),
        pytest.param("1:cpu:/\n0::/\n", quota("cpu", "-1"), 64, id="version 1, no limit"),
        pytest.param("1:cpu:/\n0::/\n", quota("cpu", "600000"), 6, id="version 1"),
        pytest.param(
            "3:memory:/x\n4:cpu,cpuacct:/a\n", quota("cpu/a", "100000", "50000"), 2, id="two in one"
        ),
        pytest.param("2:cpuset,cpuacct:/\n", quota("cpu", "100000"), 64, id="other controllers"),
    ],
)
def test_the_quota_of_control_groups(
    machine: Path, membership: str, files: dict[str, str], number: int
) -> None:
    write(machine, membership, files)
    assert usable_cores() == number


def test_the_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == 64  # and no control groups at all, as before Linux 2.6.24
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 9})
    assert usable_cores() == 2
    write(machine, "0::/\n", {"cpu.max": "400000 100000"})
    assert usable_cores() == 2


@pytest.mark.parametrize(("count", "number"), [(12, 12), (None, 1)])
def test_a_system_without_affinity(
    machine: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, number: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores() == number


def test_a_process_that_is_bound_to_one_core() -> None:
    code = (
        "import os\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from voxblink2_lib.materialize.request import MaterializeRequest\n"
        "print(MaterializeRequest().worker_count)"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "1\n"
