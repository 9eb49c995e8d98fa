"""Files are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import StoreDiskError, StoreError, StoreFullError, StoreReadOnlyError
from voxblink2_lib.files import (
    HashingWriter,
    WriteBehind,
    atomic_write,
    link_file,
    named_system_errors,
    sha256_of,
    sync_folder,
)


class StrangeError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" whole")
    assert path.read_bytes() == b"half whole"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [StrangeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_body_raises(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "file.bin") as file:
            file.write(b"half")
            raise error("stopped here")

    with pytest.raises(error, match="stopped here"):
        write()
    assert names(tmp_path) == []


def test_an_old_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"a longer old content")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"ne")
            raise StrangeError("stopped here")

    with pytest.raises(StrangeError, match="stopped here"):
        write_half()
    assert path.read_bytes() == b"a longer old content"
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"a longer old content"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file.bin"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        with atomic_write(path) as file:
            file.write(b"new")
        assert reader.read() == b"old"


def test_a_folder_in_the_way_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError, match="taken"), atomic_write(tmp_path / "taken") as file:
        file.write(b"x")
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_is_obeyed_and_kept(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file.bin") as file:
            file.write(b"x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, code: int) -> None:
    path = tmp_path / "file.bin"

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"x")
            raise OSError(code, os.strerror(code))

    with pytest.raises(StoreFullError, match=r"No space is left for .*file\.bin.* run the same"):
        write()
    assert names(tmp_path) == []


def test_a_really_full_device_is_named() -> None:
    with (
        pytest.raises(StoreFullError, match="No space is left for /dev/full"),
        named_system_errors(Path("/dev/full")),
        open("/dev/full", "wb") as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize(
    ("number", "kind", "message", "exit_code"),
    [
        (errno.EFBIG, StoreError, "would be larger than is allowed here .*'ulimit -f unl", 2),
        (errno.EIO, StoreDiskError, "cannot be read or written .*check the disk", 3),
        (errno.EMFILE, StoreError, "cannot be opened .*'ulimit -n 65536', or use fewer work", 2),
        (errno.ENFILE, StoreDiskError, "cannot be opened .*end other programs", 3),
        (errno.ESTALE, StoreDiskError, "is not reachable any more .*mount it again", 3),
        (errno.ENOTCONN, StoreDiskError, "is not reachable any more .*mount it again", 3),
        (errno.ENOLCK, StoreDiskError, "cannot be locked .*lock service", 3),
        (errno.EROFS, StoreReadOnlyError, "cannot be written to any more .*mount it for", 2),
        (errno.ENAMETOOLONG, StoreError, "has a name that is too long .*a shorter path", 2),
    ],
)
def test_what_the_system_answers_is_a_sentence(
    number: int, kind: type[StoreError], message: str, exit_code: int, tmp_path: Path
) -> None:
    whole = rf"/file\.bin {message}.* and run the same command again\.$"
    words = os.strerror(number)
    for named in ((), (str(tmp_path / "file.bin"),), (str(tmp_path / ".file.bin.x.tmp"),)):
        with pytest.raises(kind, match=whole) as caught, atomic_write(tmp_path / "file.bin"):
            raise OSError(number, words, *named)
        assert type(caught.value) is kind
        assert caught.value.exit_code == exit_code
        assert f"({words}). Everything finished is kept: " in str(caught.value)
    assert names(tmp_path) == []


@pytest.fixture
def small_limits() -> Iterator[None]:
    kept = {kind: resource.getrlimit(kind) for kind in LIMITS}
    try:
        yield
    finally:
        for kind, limits in kept.items():
            resource.setrlimit(kind, limits)


LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)


@pytest.mark.usefixtures("small_limits")
def test_a_file_above_the_real_limit(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(LIMITS[0])[1]))
    with pytest.raises(StoreError, match=r"file\.bin would be larger than .*ulimit -f"):  # noqa: SIM117
        with atomic_write(tmp_path / "file.bin") as file:
            file.write(b"x" * (1 << 17))
    assert names(tmp_path) == []


@pytest.mark.usefixtures("small_limits")
def test_more_files_than_the_real_limit(tmp_path: Path) -> None:
    with open(os.devnull) as last:
        resource.setrlimit(LIMITS[1], (last.fileno() + 1, resource.getrlimit(LIMITS[1])[1]))
        with pytest.raises(StoreError, match=r"file\.bin cannot be opened \(Too many open files"):  # noqa: SIM117
            with atomic_write(tmp_path / "file.bin") as file:
                file.write(b"x")


def test_a_name_that_is_really_too_long(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match="a name that is too long"),
        atomic_write(tmp_path / ("x" * 300)),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_permissions(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.chmod", refusal(number))
    with atomic_write(tmp_path / "file.bin") as file:
        file.write(b"whole")
    assert (tmp_path / "file.bin").read_bytes() == b"whole"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EISDIR, errno.ENOTSUP])
@pytest.mark.parametrize("function", ["open", "fsync"])
def test_a_disk_that_flushes_no_folders(
    function: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"os.{function}", refusal(number))
    sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_folder_that_is_not_flushed_by_a_fault_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", refusal(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(tmp_path)


def refusal(number: int) -> Callable[..., Any]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_other_os_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="nope"), named_system_errors(tmp_path):
        raise PermissionError(errno.EPERM, "nope")


def test_a_process_that_is_killed_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, pathlib\n"
        "from voxblink2_lib.files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "file.bin"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode < 0
    assert not path.exists()


@given(blocks=st.lists(st.binary(max_size=64)))
def test_hashing_writer_passes_on_and_hashes(blocks: list[bytes]) -> None:
    under = io.BytesIO()
    writer = HashingWriter(under)
    for block in blocks:
        assert writer.write(block) == len(block)
    whole = b"".join(blocks)
    assert under.getvalue() == whole
    assert writer.sha256 == hashlib.sha256(whole).hexdigest()
    assert writer.size_bytes == len(whole)


def test_hashing_writer_leaves_the_file_open() -> None:
    under = io.BytesIO()
    with HashingWriter(under) as writer:
        writer.write(memoryview(b"abc"))
    assert writer.closed
    under.write(b"d")
    assert under.getvalue() == b"abcd"


def test_hashing_writer_takes_what_arrow_writes() -> None:
    under = io.BytesIO()
    writer = HashingWriter(under)
    table = pa.table({"a": [b"x" * 1000] * 100})
    with pa.ipc.new_stream(writer, table.schema) as stream:
        stream.write_table(table)
    assert writer.sha256 == hashlib.sha256(under.getvalue()).hexdigest()
    assert pa.ipc.open_stream(under.getvalue()).read_all() == table


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_a_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"z" * size)
    assert sha256_of(path) == hashlib.sha256(b"z" * size).hexdigest()


def test_link_file_makes_a_hard_link(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x")
    assert link_file(source, target)
    assert target.samefile(source)
    assert not target.is_symlink()
    assert source.stat().st_nlink == 2


def test_link_file_falls_back_to_a_symbolic_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "cross-device")

    source, target = tmp_path / "source", tmp_path / "deeper" / "target"
    source.write_bytes(b"x")
    target.parent.mkdir()
    monkeypatch.setattr("os.link", refuse)
    assert link_file(source, target)
    assert target.is_symlink()
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_link_file_says_that_there_are_no_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr("os.link", refusal(number))
    monkeypatch.setattr("os.symlink", refusal(number))
    assert not link_file(tmp_path / "source", tmp_path / "target")
    assert names(tmp_path) == ["source"]


def test_link_file_does_not_hide_other_errors(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="target"):
        link_file(source, target)
    assert target.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        link_file(tmp_path / "nowhere", tmp_path / "other")


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_or_a_device_is_never_replaced(linked: bool, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    target = tmp_path / "link" if linked else pipe
    if linked:
        target.symlink_to(pipe)
    with pytest.raises(OSError, match="a device or a pipe is there, name a file"):  # noqa: SIM117
        with atomic_write(target) as file:
            file.write(b"x")
    assert pipe.is_fifo()
    assert target.is_symlink() == linked


# -- Files that are brought to disk while they are written -----------------------------------------


@pytest.fixture
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxblink2_lib.files._BEHIND_BYTES", 1000)


@pytest.mark.usefixtures("_small_steps")
def test_what_was_begun_is_on_disk_while_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with open(tmp_path / "file", "wb") as file:
        behind = WriteBehind(file)
        for _ in range(5):
            file.write(bytes(600))
            behind.begin()
        file.write(b"end")
        behind.finish()
        behind.close()
        # Not at each write: 1,200 and 2,400 bytes were worth it.
        assert [size >= least for size, least in zip(sizes, [1200, 2400, 3003], strict=True)] == (
            [True] * 3
        )
        assert file.tell() == (tmp_path / "file").stat().st_size == 3003
        assert not file.closed


@pytest.mark.usefixtures("_small_steps")
def test_an_error_of_the_disk_comes_out_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open(tmp_path / "file", "wb") as file:
        behind = WriteBehind(file)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", broken)
            file.write(bytes(2000))
            behind.begin()
            with pytest.raises(OSError, match="Input/output error"):
                behind.finish()
        behind.finish()
        behind.close()
