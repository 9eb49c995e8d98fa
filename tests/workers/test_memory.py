"""How much memory there is, from what the kernel states of machine and control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from voxblink2_lib.workers.memory import Memory, memory_text, read_memory

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 16 GiB, 8 of them available, whose processes are in no control group."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {16 << 20} kB\nMemAvailable: {8 << 20} kB\n")
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def write_group(folder: Path, limit: object, used: int, stat: str = "inactive_file 0") -> None:
    write(folder / "memory.max", limit)
    write(folder / "memory.current", used)
    write(folder / "memory.stat", f"anon 1\n{stat}")


def test_without_a_group_it_is_that_of_the_machine(root: Path) -> None:
    assert read_memory(root) == Memory("The machine", 16 * GIB, 8 * GIB)
    assert memory_text(root) == "The machine had 17.2 GB of memory, 8.6 GB of it available"


def test_of_the_groups_above_each_other_the_tightest_counts(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/outer/inner")
    write_group(root / "sys/fs/cgroup/outer/inner", "max", 1 * GIB)
    assert read_memory(root) == Memory("The machine", 16 * GIB, 8 * GIB)
    write_group(root / "sys/fs/cgroup/outer", 4 * GIB, 3 * GIB)
    assert read_memory(root) == Memory("The container", 4 * GIB, 1 * GIB)
    write_group(root / "sys/fs/cgroup/outer/inner", 2 * GIB, 3 * GIB // 2)
    assert read_memory(root) == Memory("The container", 2 * GIB, GIB // 2)


def test_a_container_sees_its_own_group_as_the_root(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/machine.slice/container")
    write_group(root / "sys/fs/cgroup", 4 * GIB, 3 * GIB, f"inactive_file {GIB}")
    assert read_memory(root) == Memory("The container", 4 * GIB, 2 * GIB)


def test_groups_of_version_1(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu:/x\n4:memory:/x\n1:name=systemd:/x")
    folder = root / "sys/fs/cgroup/memory/x"
    write(folder / "memory.limit_in_bytes", 4 * GIB)
    write(folder / "memory.usage_in_bytes", 4 * GIB)
    write(folder / "memory.stat", f"inactive_file 1\ntotal_inactive_file {GIB}")
    # The root of version 1 states the largest number there is.
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", 2**63 - 4096)
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", 9 * GIB)
    assert read_memory(root) == Memory("The container", 4 * GIB, 1 * GIB)


@pytest.mark.parametrize("text", [None, "", "MemTotal: 5 kB", "MemTotal: x\nMemAvailable:\n"])
def test_a_system_that_does_not_say(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / "proc/meminfo", text)
    assert read_memory(tmp_path) is None
    assert memory_text(tmp_path) == ""


def test_this_machine() -> None:
    memory = read_memory()
    assert memory is not None
    assert 0 <= memory.available_bytes <= memory.total_bytes <= psutil.virtual_memory().total
