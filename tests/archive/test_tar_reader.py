"""Reading tar archives that are sound, odd, or made to hurt who reads them."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import random
import re
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.release_builder import member_name, small_release, write_archive

from voxblink2_lib.archive import tar_reader
from voxblink2_lib.archive.tar_reader import TarFormatError, TarReader
from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import Release

PROPERTY = fewer_examples(2)
BLOCK = 512
MEMORY_BYTES = 100 << 20
SECONDS = 1.0
ZEROS = gzip.compress(bytes(16 << 20))
ZEROS_IN_3_GB = 192


def header(kind: bytes, size: int, *, name: bytes = b"x", field: bytes = b"") -> bytes:
    """Return a header of a tar archive; ``field`` stands in place of the size."""
    data = bytearray(BLOCK)
    data[: len(name)] = name
    data[124:136] = field or (
        b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    )
    data[156:157] = kind
    data[257:265] = b"ustar\x0000"
    return summed(data)


def summed(data: bytearray) -> bytes:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(records: dict[str, str], kind: bytes = b"x") -> bytes:
    """Return a PAX header with records whose length takes two digits."""
    lines = [f" {key}={value}\n" for key, value in records.items()]
    data = "".join(f"{len(line) + 2:02}{line}" for line in lines).encode()
    return header(kind, len(data)) + padded(data)


def plain(name: bytes = b"meta/a.txt", data: bytes = b"text", kind: bytes = b"0") -> bytes:
    return header(kind, len(data), name=name) + padded(data)


END = bytes(2 * BLOCK)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Let this process write to 100 MB more, and see that it takes less than a second.

    Address space that a thread reserves for its heap, and may never use, does not count.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    start = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert time.process_time() - start < SECONDS


def rejects_or_error(path: Path) -> list[list[str]] | str:
    """Return the rows of rejects, or the message of the refusal."""
    folder = path.parent / "index"
    with bounded():
        try:
            build_index(Release(path), folder)
        except ReleaseError as error:
            assert not folder.exists()
            return str(error)
    with open(folder / "rejects.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


# -- What is sound ---------------------------------------------------------------------------------


def names_and_data(data: bytes) -> list[tuple[str, bytes, bool]]:
    stream = io.BytesIO(data)
    reader = TarReader(stream, stream)
    return [(member.name, reader.read(), member.is_folder) for member in reader]


NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=90),
    min_size=1,
    max_size=6,
).map("/".join)


@PROPERTY
@given(
    files=st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=4),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_names_and_contents_are_those_that_tarfile_wrote(
    files: list[tuple[str, bytes]], form: int
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert names_and_data(packed.getvalue()) == [(name, data, False) for name, data in files]


def test_a_long_name_in_ustar_has_a_prefix(tmp_path: Path) -> None:
    name = f"{'a' * 90}/{'b' * 90}"
    path = write_archive(tmp_path / "a.tar", {name: b"text"}, form=tarfile.USTAR_FORMAT)
    assert names_and_data(path.read_bytes()) == [(name, b"text", False)]


def test_folders_of_every_age() -> None:
    data = plain(b"new/", b"", b"5") + plain(b"old/", b"", b"\0") + plain(kind=b"\0") + END
    assert names_and_data(data) == [
        ("new", b"", True),
        ("old", b"", True),
        ("meta/a.txt", b"text", False),
    ]


def test_a_checksum_of_signed_bytes() -> None:
    data = bytearray(plain("é".encode()))
    data[148:156] = b"%06o\0 " % (int(bytes(data[148:154]), 8) - 2 * 256)
    assert names_and_data(bytes(data) + END) == [("é", b"text", False)]


def test_a_comment_for_all_members_is_passed_over() -> None:
    comment = pax({"comment": "0123456789abcdef"}, b"g")
    assert names_and_data(comment + plain() + END) == [("meta/a.txt", b"text", False)]


def test_what_is_not_read_is_skipped() -> None:
    stream = io.BytesIO(plain(data=b"x" * 200_000) + plain(b"next") + END)
    assert [member.name for member in TarReader(stream, stream)] == ["meta/a.txt", "next"]


# -- What is odd -----------------------------------------------------------------------------------


ODD = {
    "checksum": (plain()[:100] + b"y" + plain()[101:], "a header with a wrong checksum at byte 0"),
    "sign": (header(b"0", 0, field=b"-0000000001\0"), r"byte 0 with b'-0.+ of an octal number"),
    "underscore": (header(b"0", 0, field=b"1_0\0\0\0\0\0\0\0\0\0"), "of an octal number"),
    "negative": (header(b"0", 0, field=b"\xff" * 12), "in place of an octal number"),
    "eight": (header(b"0", 0, field=b"00000000080\0"), "in place of an octal number"),
    "no end": (plain(), "the end of the file at byte 1024, within a member or before the end mark"),
    "cut": (plain()[:600], "the end of the file at byte 600"),
    "pax size": (pax({"size": "-1"}) + plain(), "a PAX header at byte 0 with b'-1' for a size"),
    "pax name": (pax({"path": "a\0b"}) + plain(), "byte 0 with a zero byte in a name"),
    "pax record": (
        header(b"x", 9) + padded(b"99 path=x") + plain(),
        r"whose record at byte 0 is not '<length> <key>=<value>'",
    ),
    "pax zero": (header(b"x", 9) + padded(b"0 path=x\n") + plain(), "whose record at byte 0"),
    "global": (pax({"path": "a"}, b"g") + plain(), "that gives all members the same path"),
    "sparse": (pax({"GNU.sparse.major": "1"}) + plain(), "a PAX header of a sparse file at byte 0"),
}


@pytest.mark.parametrize(("data", "message"), ODD.values(), ids=ODD.keys())
def test_odd_headers_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(TarFormatError, match=message):
        names_and_data(data)
    (tmp_path / "a.tar").write_bytes(data)
    assert "is damaged or not a tar archive" in str(rejects_or_error(tmp_path / "a.tar"))


def test_sparse_members_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(plain(b"meta/a.txt", kind=b"S") + END)
    with pytest.raises(ReleaseError, match=r"member 'meta/a\.txt' is a sparse file"):
        list(Release(tmp_path / "a.tar").annotations())


# -- What is made to hurt --------------------------------------------------------------------------


GOOD = plain(member_name().encode())
LARGE = 3 << 30
MANY = 5000

# First blocks, gzips of 16 MiB of zeros after them, what the refusal says.
ATTACKS: dict[str, tuple[bytes, int, str]] = {
    **{
        f"3 GB of {kind.decode()}": (
            header(kind, LARGE),
            ZEROS_IN_3_GB,
            f"a header of type '{kind.decode()}' at byte 0 that declares {LARGE} bytes; at most",
        )
        for kind in (b"x", b"X", b"g", b"L", b"K")
    },
    "size beyond the end": (header(b"0", 1 << 80), 0, "after 1 files it reads the end of the file"),
    "PAX size beyond": (
        pax({"size": "9" * 19}) + header(b"0", 0),
        0,
        "after 1 files it reads the end of the file",
    ),
    "name beyond the end": (header(b"L", 1 << 80), 0, "at byte 0 that declares 1208925819614629"),
    "chained names": (
        plain(kind=b"L") * MANY + GOOD + END,
        0,
        "more than 16 headers in a row that extend the next one, the last at byte 16384; at most",
    ),
    "chained PAX": (pax({"path": "a"}) * MANY + GOOD + END, 0, "more than 16 headers in a row"),
    "chained global": (
        pax({"comment": "a"}, b"g") * MANY + GOOD + END,
        0,
        "more than 16 headers in a row",
    ),
    "digits": (header(b"x", 65_536) + b"1" * 65_536 + GOOD + END, 0, "whose record at byte 0"),
    "3 GB of a file": (header(b"0", LARGE), ZEROS_IN_3_GB, "bytes out of"),
    "3 GB after the end": (GOOD + END, ZEROS_IN_3_GB, "at most 500 times as many and 67108864"),
}


def write_attack(path: Path, first: bytes, zeros: int) -> None:
    path.write_bytes(gzip.compress(first) + ZEROS * zeros)


@pytest.mark.parametrize(("first", "zeros", "message"), ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused_at_once(
    tmp_path: Path, first: bytes, zeros: int, message: str
) -> None:
    write_attack(tmp_path / "a.tar.gz", first, zeros)
    got = str(rejects_or_error(tmp_path / "a.tar.gz"))
    assert "is damaged or not a tar archive: after " in got
    assert message in got
    assert got.endswith("Nothing was read from it; download it again.")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_attacks_by_files_of_zeros(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    # As large as a file may be, and each rejected, but for their sum.
    member = compress(header(b"0", 8 << 20) + bytes(8 << 20))
    (tmp_path / "a.tar").write_bytes(member * 300)
    assert re.search(
        r"after \d+ files it reads \d+ bytes out of \d+ compressed ones; at most 500 times as many "
        "and 67108864 are allowed",
        str(rejects_or_error(tmp_path / "a.tar")),
    )


def test_large_archives_that_are_no_attack_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_reader, "FREE_BYTES", 1 << 16)
    data = random.Random(5).randbytes(1 << 20)
    path = write_archive(tmp_path / "a.tar.gz", {"meta/noise": data, **small_release()})
    assert [row[0] for row in rejects_or_error(path)] == ["meta/noise"]


def mutated(rng: random.Random) -> bytes:
    """Return an archive with some bytes changed, under checksums that are right."""
    first, _, _ = rng.choice(list(ATTACKS.values()))
    start = first[: BLOCK * rng.randrange(1, 24)]
    blocks = rng.choice([b"", start, plain() + start])
    data = bytearray(blocks + b"".join(plain(name.encode(), text) for name, text in RELEASE) + END)
    for _ in range(rng.randrange(1, 12)):
        at = rng.randrange(len(data) // BLOCK) * BLOCK
        # Sizes, types, names; or anywhere.
        offset = rng.choice(
            [rng.randrange(124, 136), 156, rng.randrange(100), rng.randrange(BLOCK)]
        )
        data[at + offset] = rng.choice([rng.randrange(256), *b"0123456789xgLKS5\0\x80\xff"])
        if rng.random() < 0.9:
            data[at : at + BLOCK] = summed(data[at : at + BLOCK])
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    return gzip.compress(data, 1) if rng.random() < 0.5 else bytes(data)


RELEASE = list(small_release(videos=1).items())


@pytest.mark.parametrize(
    "seeds", [range(200), pytest.param(range(200, 2000), marks=pytest.mark.slow)], ids=len
)
def test_mutated_attacks_raise_nothing_else(tmp_path: Path, seeds: range) -> None:
    refused = 0
    for seed in seeds:
        (tmp_path / "a.tar").write_bytes(mutated(random.Random(seed)))
        refused += isinstance(rejects_or_error(tmp_path / "a.tar"), str)
    assert refused > len(seeds) // 2
