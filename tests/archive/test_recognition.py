"""Cut audio is recognized by looking, in every form; all else is told or left to others."""

from __future__ import annotations

import gzip
import re
import tarfile
from pathlib import Path

import pytest
from support.archive_builder import members, tar, wav, write_archive, write_parts

from voxblink2_lib.archive.reader import ArchiveDamagedError
from voxblink2_lib.archive.recognition import find_cut_audio
from voxblink2_lib.errors import SourceError

UTTERANCE = "id000002/-JUT3czS6OI/00001"


def put(folder: Path, *names: str, data: bytes = b"x") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def parts_of(place: object) -> list[list[str]]:
    audio = find_cut_audio(str(place))
    assert audio is not None
    assert audio.folder is None
    return [[path.name for path in archive.parts] for archive in audio.archives]


# -- Archives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "{}/VB2_audio.tar.gz.00", "{}/VB2_audio.tar.gz.*", "{}/"])
def test_parts_by_their_folder_the_first_or_a_pattern(form: str, tmp_path: Path) -> None:
    paths = write_archive(tmp_path, 6, parts=3)
    assert parts_of(form.format(tmp_path)) == [[path.name for path in paths]]


@pytest.mark.parametrize("name", ["audio.tar", "audio.tar.gz", "audio.tgz", "AUDIO.TAR.GZ"])
def test_one_tar(name: str, tmp_path: Path) -> None:
    data = tar(members(3))
    put(tmp_path, name, data=data if name.endswith("tar") else gzip.compress(data))
    assert parts_of(tmp_path / name) == parts_of(tmp_path) == [[name]]


def test_many_tars_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "c.tar"):
        put(tmp_path, name, data=tar(members(2)))
    assert parts_of(tmp_path) == [["a.tar"], ["b.tar"], ["c.tar"]]
    assert parts_of(f"{tmp_path}/[bc].tar") == [["b.tar"], ["c.tar"]]


@pytest.mark.parametrize("prefix", ["", "audio/", "wav/", "./", "dev/aac/"])
@pytest.mark.parametrize("speaker", ["id000002", "id00012"])
def test_any_prefix_and_the_speakers_of_each_corpus(
    prefix: str, speaker: str, tmp_path: Path
) -> None:
    name = f"{prefix}{speaker}/-JUT3czS6OI/00001"
    put(tmp_path / "a", "a.tar", data=tar([("README", b"text"), (f"{name}.wav", wav(1))]))
    assert parts_of(tmp_path / "a") == [["a.tar"]]
    put(tmp_path / "b", f"{name}.m4a")
    audio = find_cut_audio(str(tmp_path / "b"))
    assert audio is not None
    assert audio.folder == tmp_path / "b"


def test_other_archives_beside_it_are_none_of_it(tmp_path: Path) -> None:
    write_archive(tmp_path, 6, parts=2)
    put(tmp_path, "vb2_meta.tar.gz", data=gzip.compress(tar([("meta/x.txt", b"x")])))
    put(tmp_path, "md5sums.txt", "id000002.txt")
    assert parts_of(tmp_path) == [["VB2_audio.tar.gz.00", "VB2_audio.tar.gz.01"]]


def test_an_archive_that_is_damaged_later_is_recognized(tmp_path: Path) -> None:
    first, *_ = write_archive(tmp_path, 60, parts=3)
    (tmp_path / "VB2_audio.tar.gz.01").write_bytes(b"damaged")
    assert parts_of(first) == [[f"VB2_audio.tar.gz.{number:02}" for number in range(3)]]


def identity(place: Path) -> str:
    audio = find_cut_audio(str(place))
    assert audio is not None
    return audio.identity


def test_it_is_the_same_wherever_it_is_and_when_more_parts_come(tmp_path: Path) -> None:
    paths = write_archive(tmp_path / "a", 60, parts=3)
    last = paths[-1].rename(tmp_path / "last")
    before = identity(tmp_path / "a")
    last.rename(paths[-1])
    assert identity(tmp_path / "a") == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert identity(tmp_path / "b") == before
    write_parts(tmp_path / "c", gzip.compress(tar(members(60)[1:])), 3)
    assert identity(tmp_path / "c") != before


# -- Others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["readme.txt"],
        ["id000002/-JUT3czS6OI.mp4", "id000002/00001.wav"],
        ["id000002/-JUT3czS6OI/00001.txt"],
        ["id000002/no-video/00001.wav"],
        ["speaker/-JUT3czS6OI/00001.wav"],
        ["a/b/c/d/id000002/-JUT3czS6OI/00001.wav"],
    ],
)
def test_other_folders_are_left_to_others(names: list[str], tmp_path: Path) -> None:
    assert find_cut_audio(str(put(tmp_path, *names))) is None


def test_archives_beside_media_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "id000002/-JUT3czS6OI.mp4")
    put(tmp_path, "vb2_meta.tar.gz", data=gzip.compress(tar([("meta/x.txt", b"x")])))
    put(tmp_path, "broken.tar", data=b"broken" * 999)
    assert find_cut_audio(str(tmp_path)) is None


def test_the_release_alone_is_none(tmp_path: Path) -> None:
    put(tmp_path, "vb2_meta.tar.gz", data=gzip.compress(tar([("meta/x.txt", b"x")])))
    assert find_cut_audio(str(tmp_path)) is None
    with pytest.raises(
        SourceError, match=r"its first files are no utterances, such as meta/x\.txt \(no audio by"
    ):
        find_cut_audio(str(tmp_path / "vb2_meta.tar.gz"))


def test_a_name_of_the_first_file_is_shown_harmlessly(tmp_path: Path) -> None:
    put(tmp_path, "x.tar", data=tar([("a\x1b[2J.wav", b"x")]))
    with pytest.raises(SourceError) as caught:
        find_cut_audio(str(tmp_path / "x.tar"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"no tar" * 200, gzip.compress(b"no tar" * 200, mtime=0), b"\x1f\x8b"],
    ids=["empty", "text", "gzip of text", "beginning of gzip"],
)
def test_what_is_no_tar_is_told_with_its_name(data: bytes, tmp_path: Path) -> None:
    put(tmp_path, "x.tar", data=data)
    for place in (tmp_path, tmp_path / "x.tar", f"{tmp_path}/*.tar"):
        with pytest.raises(ArchiveDamagedError, match=re.escape(f"{tmp_path / 'x.tar'}, at byte ")):
            find_cut_audio(str(place))


def test_a_tar_of_folders_and_links_only(tmp_path: Path) -> None:
    folder, link = tarfile.TarInfo("audio"), tarfile.TarInfo(f"{UTTERANCE}.wav")
    folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
    put(tmp_path, "x.tar", data=tar([], [folder]))
    with pytest.raises(SourceError, match="no utterances, such as none at all"):
        find_cut_audio(str(tmp_path / "x.tar"))
    put(tmp_path, "x.tar", data=tar([], [folder, link]))
    with pytest.raises(SourceError, match=r"00001\.wav \(no regular file but a link or a device"):
        find_cut_audio(str(tmp_path / "x.tar"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.tar.gz.00", "a.tar.gz.02"], r"A part of \S+/a\.tar\.gz is missing: a\.tar\.gz\.01"),
        (["a.tar.gz", "a.tar.gz.00"], r"a\.tar\.gz lies beside parts of an archive of the same"),
        (["a.tar.gz.01", "a.tar.gz.1"], r"are the same part of a\.tar\.gz"),
    ],
)
def test_parts_that_do_not_belong_together(names: list[str], message: str, tmp_path: Path) -> None:
    put(tmp_path, *names, data=gzip.compress(tar(members(3))))
    with pytest.raises(SourceError, match=message):
        find_cut_audio(str(tmp_path))


def test_another_part_than_the_first(tmp_path: Path) -> None:
    write_archive(tmp_path, 6, parts=3)
    with pytest.raises(SourceError, match=r"\.01 is not the first part of VB2_audio\.tar\.gz\."):
        find_cut_audio(str(tmp_path / "VB2_audio.tar.gz.01"))


@pytest.mark.parametrize(
    "named", ["/no/such/place", "youtube", "a\0b", "[", "x" * 5000, "~nobody/"]
)
def test_what_is_not_there_is_none(named: str) -> None:
    assert find_cut_audio(named) is None
