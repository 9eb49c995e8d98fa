"""Finding a release, and reading it whatever form it has and whatever is wrong with it."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.release_builder import (
    VIDEO,
    Member,
    member_name,
    small_release,
    special_member,
    voxblink1,
    voxblink2,
    write_archive,
    write_release,
)
from support.speaker_files import write_voxblink1

from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.release import annotation_files, builtin
from voxblink2_lib.release.index import video_keys
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import META_ARCHIVE, RELEASE_VARIABLE, Release, open_release

PROPERTY = fewer_examples(2)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "plain.tar", small_release())


def read_all(release: Release) -> dict[str, tuple[bytes, str]]:
    return {file.path: (file.data, file.problem) for file in release.annotations()}


def refuse(path: object, message: str) -> None:
    """Check that an index of this release is refused, and that nothing is left of it."""
    assert isinstance(path, Path)
    folder = path.parent / "store" / "index"
    with pytest.raises(ReleaseError, match=message):
        build_index(Release(path), folder)
    assert not folder.exists()


# -- Where it is -----------------------------------------------------------------------------------


def test_a_folder_with_meta(tmp_path: Path) -> None:
    write_release(tmp_path, small_release())
    assert open_release(tmp_path) == Release(tmp_path / "meta")
    assert open_release(str(tmp_path / "meta")) == Release(tmp_path / "meta")


def test_a_folder_with_the_archive(tmp_path: Path) -> None:
    write_archive(tmp_path / META_ARCHIVE, small_release())
    assert open_release(tmp_path) == Release(tmp_path / META_ARCHIVE)
    assert open_release(tmp_path / META_ARCHIVE) == Release(tmp_path / META_ARCHIVE)


def test_the_home_folder_can_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_release(tmp_path / "release", small_release())
    assert open_release("~/release").path == tmp_path / "release" / "meta"


@pytest.mark.parametrize("value", [None, ""])
def test_no_release_was_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv(RELEASE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(RELEASE_VARIABLE, value)
    with pytest.raises(ReleaseError, match=r"No release was named.*vb2_meta.*VOXBLINK2_RELEASE"):
        open_release(None)


def test_the_variable_names_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_release(tmp_path / "named", small_release())
    write_release(tmp_path / "other", small_release())
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / "named"))
    assert open_release(None).path == tmp_path / "named" / "meta"
    assert open_release(tmp_path / "other").path == tmp_path / "other" / "meta"


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    release = open_release("demo")
    assert release.default_source == str(builtin.MEDIA)
    assert isinstance(release.path, Path)
    assert release.path.is_file()
    monkeypatch.setenv(RELEASE_VARIABLE, "demo")
    assert open_release(None) == release


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(
        ReleaseError, match=r"The release .*nowhere does not exist\. Check data_dir"
    ):
        open_release(tmp_path / "nowhere")


def test_a_folder_that_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(
        ReleaseError, match=r"is not a VoxBlink2 release: .* folder meta nor a file"
    ):
        open_release(tmp_path)


@pytest.mark.parametrize("is_archive", [False, True])
def test_voxblink1_is_named_by_its_folder_or_the_one_above(
    tmp_path: Path, is_archive: bool
) -> None:
    resource = write_voxblink1(tmp_path, ["id00012"])
    name = f"timestamp/id00012/{VIDEO}/00001.txt"
    if is_archive:
        annotations = write_archive(resource / "timestamp.tar.gz", {name: voxblink1()})
    else:
        annotations = write_release(resource, {name: voxblink1()}) / "timestamp"
    for named in (tmp_path, resource, annotations):
        release = open_release(named)
        assert release.path == annotations
        assert [file.path for file in release.annotations()] == [name]
    # Its folder meta has lists of speakers, and no annotations.
    with pytest.raises(ReleaseError, match="its meta has lists of speakers"):
        open_release(resource / "meta")


def test_voxblink1_without_annotations_is_no_release(tmp_path: Path) -> None:
    resource = write_voxblink1(tmp_path, ["id00012"])
    for named in (tmp_path, resource):
        with pytest.raises(ReleaseError, match=r"of VoxBlink1: timestamp or timestamp\.tar\.gz"):
            open_release(named)


def test_annotations_of_voxblink2_come_before_those_beside_them(tmp_path: Path) -> None:
    for name in ("timestamp", "resource", "meta"):
        (tmp_path / name).mkdir()
    assert open_release(tmp_path).path == tmp_path / "meta"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_release_that_may_not_be_read(archive: Path) -> None:
    archive.chmod(0)
    with pytest.raises(ReleaseError, match="cannot be read: permission denied"):
        open_release(archive)


def test_a_folder_in_place_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / META_ARCHIVE).mkdir()
    refuse(open_release(tmp_path).path, "has no usable annotation")


def test_an_empty_meta_folder(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    refuse(open_release(tmp_path).path, r"The release .*meta has no usable annotation\.$")


# -- The same in every form ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.tgz", "m.tar.bz2", "m.tar.xz", "m"])
def test_every_form_has_the_same_files(tmp_path: Path, name: str) -> None:
    files = small_release()
    folder = open_release(write_release(tmp_path / "folder", files))
    packed = open_release(write_archive(tmp_path / name, files))
    assert read_all(folder) == read_all(packed)
    assert read_all(packed) == {path: (data, "") for path, data in files.items()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz"])
def test_form_and_compression_do_not_change_the_index(tmp_path: Path, name: str, form: int) -> None:
    files = small_release()
    folder = build_index(open_release(write_release(tmp_path / "folder", files)), tmp_path / "a")
    packed = build_index(Release(write_archive(tmp_path / name, files, form=form)), tmp_path / "b")
    assert folder.info.fingerprint == packed.info.fingerprint
    for table in ("utterances.parquet", "boxes.parquet", "videos.parquet"):
        assert (tmp_path / "a" / table).read_bytes() == (tmp_path / "b" / table).read_bytes()


@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_the_order_of_members_does_not_change_the_fingerprint(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    files = list(small_release(utterances=3).items())
    straight = build_index(Release(write_archive(folder / "a.tar", dict(files))), folder / "a")
    random.Random(seed).shuffle(files)
    mixed = build_index(Release(write_archive(folder / "b.tar", dict(files))), folder / "b")
    assert mixed.info.fingerprint == straight.info.fingerprint
    assert mixed.info.utterances == straight.info.utterances
    keys = set(video_keys(straight.videos()))
    assert dict(mixed.utterances(keys)) == dict(straight.utterances(keys))
    assert list(mixed.annotated(keys)) == list(straight.annotated(keys))
    assert mixed.videos() == straight.videos()


def test_folders_in_the_archive_and_dotted_names(tmp_path: Path) -> None:
    files = small_release()
    members: list[Member] = [special_member("./meta/", tarfile.DIRTYPE)]
    members += [(f"./{name}", data) for name, data in files.items()]
    dotted = build_index(Release(write_archive(tmp_path / "a.tar", members)), tmp_path / "a")
    plain = build_index(Release(write_archive(tmp_path / "b.tar", files)), tmp_path / "b")
    assert dotted.info.fingerprint == plain.info.fingerprint
    assert dotted.info.rejected == 0


def test_hidden_files_are_rejected_one_by_one(tmp_path: Path) -> None:
    files = small_release()
    strange = {
        "meta/.DS_Store": b"\0\1",
        "meta/id000001/.DS_Store": b"\0\1",
        "._meta": b"x",
        member_name(utterance="._00001"): voxblink2(),
    }
    plain = build_index(Release(write_archive(tmp_path / "b.tar", files)), tmp_path / "b")
    for number, members in enumerate(({**strange, **files}, {**files, **strange})):
        path = write_archive(tmp_path / f"{number}.tar", members)
        got = build_index(Release(path), tmp_path / f"{number}")
        assert got.info.fingerprint == plain.info.fingerprint
        assert got.info.rejected == len(strange)


# -- What is wrong with a folder -------------------------------------------------------------------


def test_things_in_a_folder_that_are_no_files(tmp_path: Path) -> None:
    write_release(tmp_path, small_release())
    video = next((tmp_path / "meta" / "id000001").iterdir())
    os.mkfifo(video / "90000.txt")
    (video / "90001.txt").mkdir()
    (tmp_path / "meta" / "readme.txt").write_text("hello")
    release = open_release(tmp_path)
    problems = {path: problem for path, (_, problem) in read_all(release).items() if problem}
    assert problems == {
        f"meta/id000001/{video.name}/90000.txt": "not a regular file",
        f"meta/id000001/{video.name}/90001.txt": "not a regular file",
    }
    assert build_index(release, tmp_path / "index").info.rejected == 3


def test_a_dangling_link_in_a_folder_is_rejected(tmp_path: Path) -> None:
    write_release(tmp_path, small_release())
    link = tmp_path / "meta" / "id000001" / "00001.txt"
    link.symlink_to("nowhere")
    index = build_index(open_release(tmp_path), tmp_path / "index")
    assert index.info.rejected == 1
    assert "not a regular file" in (tmp_path / "index" / "rejects.csv").read_text()


def test_a_name_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    write_release(tmp_path, small_release())
    with open(os.fsencode(tmp_path / "meta" / "id000001") + b"/\xff.txt", "wb") as file:
        file.write(voxblink2())
    assert build_index(open_release(tmp_path), tmp_path / "index").info.rejected == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_too_large_is_rejected_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(annotation_files, "MAX_FILE_BYTES", 1000)
    name = member_name("id000009")
    files = {**small_release(), name: b"x" * 1001}
    if packed:
        release = open_release(write_archive(tmp_path / "a.tar.gz", files))
    else:
        release = open_release(write_release(tmp_path, files))
    assert read_all(release)[name] == (b"", "too large for an annotation: 1001 bytes, at most 1000")
    assert build_index(release, tmp_path / "index").info.rejected == 1


# -- What is wrong with an archive -----------------------------------------------------------------


HOSTILE: dict[str, tuple[Member, str]] = {
    "..": (("meta/id000001/../../x.txt", b"x"), r"'meta/id000001/\.\./\.\./x\.txt' has a name"),
    ".. alone": (("../00001.txt", b"x"), r"'\.\./00001\.txt' has a name that reaches outside"),
    "..folder": (special_member("..", tarfile.DIRTYPE), r"'\.\.' has a name that reaches outside"),
    "absolute": (("/etc/passwd", b"x"), "'/etc/passwd' has a name that reaches outside"),
    "symlink": (
        special_member(member_name(), tarfile.SYMTYPE, target="/etc/passwd"),
        r"'meta/id000001/abcdefghijk/00001\.txt' is a link or a device",
    ),
    "hardlink": (
        special_member("meta/again.txt", tarfile.LNKTYPE, target=member_name()),
        r"'meta/again\.txt' is a link or a device",
    ),
    "fifo": (special_member("meta/pipe", tarfile.FIFOTYPE), "'meta/pipe' is a link or a device"),
    "disk": (special_member("meta/disk", tarfile.BLKTYPE), "'meta/disk' is a link or a device"),
    "null": (special_member("meta/null", tarfile.CHRTYPE), "'meta/null' is a link or a device"),
}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(("member", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_members_are_refused_by_name(
    tmp_path: Path, member: Member, message: str, suffix: str
) -> None:
    members: list[Member] = [*small_release().items(), member]
    refuse(
        write_archive(tmp_path / f"a.{suffix}", members),
        f"is not a VoxBlink2 release: member {message}.*Nothing was read",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", "store"]


def test_an_archive_of_nothing(tmp_path: Path) -> None:
    refuse(write_archive(tmp_path / "a.tar.gz", {}), r"has no usable annotation\.$")


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    refuse(
        write_archive(tmp_path / "a.tar.gz", {"photos/cat.jpg": b"\xff\xd8"}),
        r"1 files were rejected; the first, photos/cat\.jpg: not named <speaker>",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        random.Random(1).randbytes(5000),
        b"\x1f\x8b" + random.Random(2).randbytes(5000),
        b"BZh9" + random.Random(3).randbytes(5000),
        b"\xfd7zXZ\0" + random.Random(4).randbytes(5000),
        gzip.compress(b""),
        gzip.compress(b"hello " * 1000),
        b"PK\3\4" + bytes(600),
    ],
    ids=["empty", "x", "random", "gz", "bz2", "xz", "gz of none", "gz of text", "zip"],
)
def test_other_bytes_are_no_archive(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(data)
    refuse(path, r"The archive .*a\.tar\.gz is damaged or not a tar archive: after 0 files")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_archive(tmp_path / f"a.{suffix}", small_release(utterances=4))
    whole = path.read_bytes()
    # Beyond the end mark a plain archive is only filled up: nothing is lost with that.
    end = len(whole.rstrip(b"\0")) + 512 if suffix == "tar" else len(whole)
    for stop in sorted({*range(0, end, max(1, end // 60)), *range(0, end, 512), end - 1}):
        path.write_bytes(whole[:stop])
        with pytest.raises(ReleaseError, match=r"is damaged or not a tar archive: after \d+ files"):
            read_all(Release(path))
    refuse(path, "is damaged or not a tar archive: after .* Nothing was read from it; download it")


def test_a_damaged_header_in_the_middle_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"meta/id000002")] ^= 1
    archive.write_bytes(data)
    refuse(archive, "is damaged or not a tar archive: after 4 files it reads .+")


def test_a_wrong_gzip_checksum_is_refused(tmp_path: Path, archive: Path) -> None:
    data = bytearray(gzip.compress(archive.read_bytes()))
    data[-8] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(data)
    refuse(
        tmp_path / "a.tar.gz",
        "is damaged or not a tar archive: after 8 files it reads the CRC-32 at the end",
    )


def test_gzip_in_several_members_is_read_to_the_end(tmp_path: Path, archive: Path) -> None:
    data = archive.read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(
        b"".join(gzip.compress(data[at : at + 1000]) for at in range(0, len(data), 1000))
    )
    assert read_all(Release(tmp_path / "a.tar.gz")) == read_all(Release(archive))


@PROPERTY
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_in_a_gzip_never_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("bits") / "a.tar.gz"
    write_archive(path, small_release())
    good = read_all(Release(path))
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        # Bits of gzip's own header, as its time, may change without harm.
        assert read_all(Release(path)) == good
    except ReleaseError as error:
        assert "is damaged or not a tar archive" in str(error)  # noqa: PT017  # fine as well


@PROPERTY
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
def test_a_damaged_plain_archive_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a.tar"
    data = bytearray(write_archive(path, small_release(videos=1)).read_bytes())
    for at, byte in changes:
        data[at % len(data)] = byte
    path.write_bytes(data)
    try:
        read_all(Release(path))
    except ReleaseError as error:
        assert str(path) in str(error)  # noqa: PT017  # no error is fine as well


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"},
        {"GNU.sparse.map": "0,x", "GNU.sparse.size": "1"},
        {"GNU.sparse.size": "many"},
        {"size": "-700"},
    ],
    ids=["map in the data", "map in the header", "size", "negative"],
)
def test_strange_pax_headers_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(member_name())
        info.pax_headers = headers
        info.size = 600
        archive.addfile(info, io.BytesIO(b"no number\n" * 60))
    refuse(path, r"is damaged or not a tar archive: after \d files it reads .+")


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path) -> None:
    members = [(member_name(utterance=f"{number:05}"), b"0 1 2 3 4\n") for number in range(5000)]
    path = write_archive(tmp_path / "a.tar", members)
    tracemalloc.start()
    try:
        files = Release(path).annotations()
        for _ in range(500):
            next(files)
        before, _ = tracemalloc.get_traced_memory()
        assert sum(1 for _ in files) == 4500
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # tarfile keeps about 1 KB a member when it is let.
    assert after - before < 100_000
    assert peak - before < 500_000


# -- When it has changed ---------------------------------------------------------------------------


def test_signature_of_an_archive(archive: Path) -> None:
    before = Release(archive).signature()
    assert Release(archive).signature() == before
    state = archive.stat()
    os.utime(archive, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert Release(archive).signature() != before


def test_signature_of_a_folder(tmp_path: Path) -> None:
    write_release(tmp_path, small_release())
    release = open_release(tmp_path)
    seen = [release.signature()]
    assert release.signature() == seen[0]
    path = tmp_path / "meta" / "id000001" / "video001000" / "00000.txt"
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    seen.append(release.signature())
    path.rename(path.with_name("00009.txt"))
    seen.append(release.signature())
    path.with_name("00009.txt").unlink()
    seen.append(release.signature())
    assert len(set(seen)) == 4
