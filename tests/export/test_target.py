"""Folders and URLs: what is written where, and in which words a bad one is refused."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xxhash
from support.bucket import bucket_server
from support.exported import content, export_to, make_store, materialize
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.errors import (
    DependencyError,
    ExportError,
    SelectionError,
    StoppedError,
    StoreError,
    VoxBlink2Error,
)
from voxblink2_lib.export.formats import find_format
from voxblink2_lib.export.manifest import MANIFEST, read_manifest
from voxblink2_lib.export.target import ChecksumWriter, Target
from voxblink2_lib.export.units import FOLDER
from voxblink2_lib.files import WriteBehind
from voxblink2_lib.release.selection import Selection


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four videos in two shards, not to be changed."""
    return make_store(tmp_path_factory.mktemp("exports"), videos=4, shards=2)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        yield system


def without_places(files: dict[str, bytes], place: str) -> dict[str, bytes]:
    return {name: data.replace(place.encode(), b"") for name, data in files.items()}


@pytest.mark.parametrize("name", ["kaldi", "nemo"])
def test_a_bucket_gets_what_a_folder_gets(
    store: Path, tmp_path: Path, bucket: Any, name: str
) -> None:
    export_to(tmp_path, store, name)
    url = f"s3://bucket/{name}"
    export_to(f"{url}/", store, name)
    files = {path.removeprefix(f"bucket/{name}/"): bucket.cat(path) for path in bucket.find(url)}
    assert without_places(files, url) == without_places(content(tmp_path), str(tmp_path))
    assert export_to(url, store, name).written == 0
    bucket.rm(f"{url}/{FOLDER}/audio-00001.receipt")
    assert export_to(url, store, name).written == 1
    bucket.invalidate_cache()
    assert {path.removeprefix(f"bucket/{name}/") for path in bucket.find(url)} == files.keys()


def test_memory_and_files_by_url(store: Path, tmp_path: Path) -> None:
    """Only this process sees its memory, so that no other works on it."""
    export_to(tmp_path / "a", store, "webdataset")
    export_to("memory://exported/b", store, "webdataset", workers=8)
    system = fsspec.filesystem("memory")
    assert {path.removeprefix("/exported/b/") for path in system.find("/exported/b")} == set(
        content(tmp_path / "a")
    )
    export_to(f"file://{tmp_path}/c", store, "webdataset")
    assert (tmp_path / "c" / "audio-00000.tar").read_bytes() == system.cat(
        "/exported/b/audio-00000.tar"
    )


def test_checksums_can_be_checked_later(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "wespeaker")
    listed = sorted((tmp_path / FOLDER).glob("*.xxh128"))
    pairs = [line.split("  ") for path in listed for line in path.read_text().splitlines()]
    assert [path for _, path in pairs] == ["shards/audio-00000.tar", "shards/audio-00001.tar"]
    for checksum, path in pairs:
        assert xxhash.xxh3_128_hexdigest((tmp_path / path).read_bytes()) == checksum


def test_a_writer_counts_and_hashes(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        writer = ChecksumWriter(file)
        assert writer.write(memoryview(b"ab").cast("H")) == 2
        assert writer.write(b"c") == 1
    assert (writer.tell(), writer.checksum) == (3, xxhash.xxh3_128_hexdigest(b"abc"))
    assert writer.writable()


@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_a_system_that_takes_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    def writev(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:taken])

    monkeypatch.setattr(os, "writev", writev)
    with open(tmp_path / "file", "wb") as file, closing(WriteBehind(file)) as behind:
        writer = ChecksumWriter(file, behind=behind)
        writer.write(b"a")
        writer.write_all([b"bc", memoryview(b"de")])
        writer.write_all([b"f"])
    assert (tmp_path / "file").read_bytes() == b"abcdef"
    assert (writer.tell(), writer.checksum) == (6, xxhash.xxh3_128_hexdigest(b"abcdef"))


# -- Refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("", ExportError, "empty text. Name a folder or a URL"),
        ("nothing://x", ExportError, r"nothing://x is no target: Protocol not known: nothing"),
        ("s3://no-such-bucket/x", VoxBlink2Error, "s3://no-such-bucket/x"),
        ("s3://user:secret@bucket/x", VoxBlink2Error, "s3://"),
    ],
)
def test_a_target_that_is_none(
    store: Path, bucket: Any, target: str, error: type[VoxBlink2Error], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        export_to(target, store, "webdataset")
    assert "secret" not in str(caught.value)


def test_a_package_that_is_missing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("voxblink2_lib.export.target.fsspec.core.url_to_fs", missing)
    with pytest.raises(DependencyError, match=r"Install s3fs to access S3.*'voxblink2\[s3\]'"):
        export_to("s3://bucket/x", store, "folder")


def test_a_server_that_fails(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = fsspec.get_filesystem_class("memory")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Slow Down\nmore")

    monkeypatch.setattr(kind, "pipe_file", refuse)
    with pytest.raises(StoppedError, match=r"Slow Down\. Everything finished is kept; run the"):
        export_to("memory://exported/slow", store, "folder")


def test_a_folder_with_something_else(store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ExportError, match=r"is not empty and has no export: there is notes\."):
        export_to(tmp_path, store, "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_file_in_its_place(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ExportError, match=r"cannot be used: .*Not a directory"):
            export_to(target, store, "folder")


def test_a_folder_that_is_the_stores(store: Path) -> None:
    for target in (store, store / "export"):
        with pytest.raises(ExportError, match="is in the store itself"):
            export_to(target, store, "folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(store: Path, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(ExportError, match="Permission denied"):
        export_to(tmp_path / "x", store, "folder")


def test_another_export_is_there(store: Path, tmp_path: Path) -> None:
    """Another format, options, selection, or store."""
    export_to(tmp_path, store, "kaldi")
    before = content(tmp_path)
    selection = Selection.of(videos=["video000001"])
    with pytest.raises(ExportError, match="export with format kaldi, and csv was requested"):
        export_to(tmp_path, store, "csv")
    with pytest.raises(ExportError, match=r'with options {"segments": false}, and {"segments": t'):
        export_to(tmp_path, store, "kaldi", segments=True)
    with pytest.raises(
        ExportError, match=r"with selection none, and .*video000001.* was requested"
    ):
        export_to(tmp_path, store, "kaldi", selection=selection)
    corpus = make_corpus(tmp_path.parent / f"{tmp_path.name}-other", video_ids(11))
    other = materialize(corpus, corpus / "store")
    with pytest.raises(ExportError, match=r"an export of another store, .*no shard is the same"):
        export_to(tmp_path, other, "kaldi")
    assert content(tmp_path) == before


@pytest.mark.parametrize("data", [b"", b"{}", b'{"version": 2}', b"\xff"])
def test_a_manifest_that_is_damaged(store: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(ExportError, match="is damaged, or of a later version"):
        read_manifest(Target.of(str(tmp_path)))


def test_receipts_and_lists_that_are_damaged(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "kaldi")
    receipt = tmp_path / FOLDER / "audio-00000.receipt"
    (tmp_path / FOLDER / "audio-00000.utt2spk").write_bytes(b"")  # as a power cut may leave it
    assert export_to(tmp_path, store, "kaldi").written == 1
    for data in (b"x", b"{}", b"[]", b'{"lists": []}'):
        receipt.write_bytes(data)
        with pytest.raises(ExportError, match=f"{receipt.name} is no receipt of an export. Remove"):
            export_to(tmp_path, store, "kaldi")
    receipt.write_bytes(b"")  # as a power cut may leave it
    assert export_to(tmp_path, store, "kaldi").written == 1
    assert len((tmp_path / "utt2spk").read_text().splitlines()) == 4


def test_a_list_that_is_gone_from_a_server(store: Path) -> None:
    """A server is not asked for each file."""
    url = "memory://exported/lists"
    export_to(url, store, "wespeaker")
    system = fsspec.filesystem("memory")
    for path in (f"{FOLDER}/audio-00000.utt2spk", "utt2spk"):
        system.rm(f"/exported/lists/{path}")
    message = (
        rf"audio-00000\.utt2spk is missing\. Remove {url}/.*audio-00000\.receipt; the shard is"
    )
    with pytest.raises(ExportError, match=message):
        export_to(url, store, "wespeaker")
    system.rm(f"/exported/lists/{FOLDER}/audio-00000.receipt")
    assert export_to(url, store, "wespeaker").written == 1


def test_formats_that_there_are_not() -> None:
    with pytest.raises(ExportError, match=r"format must be kaldi, .* or folder, got 'mp3'"):
        find_format("mp3")
    with pytest.raises(ExportError, match="segments are for the format kaldi, not for nemo"):
        find_format("nemo", segments=True)


def test_a_store_without_clips(store: Path, tmp_path: Path) -> None:
    selection = Selection.of(speakers=["id999999"])
    with pytest.raises(StoreError, match="There is no store at"):
        export_to(tmp_path / "out", tmp_path / "none", "folder")
    with pytest.raises(StoreError, match="has nothing of the configuration 'audio-visual'"):
        export_to(tmp_path / "out", store, "folder", config="audio-visual")
    with pytest.raises(SelectionError, match="id999999"):
        export_to(tmp_path / "out", store, "folder", selection=selection)
    assert not (tmp_path / "out").exists()


def test_tars_are_as_tarfile_reads_them(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "webdataset")
    with tarfile.open(tmp_path / "audio-00000.tar") as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.mtime, m.mode, m.type) for m in members} == {
        (0, 0, 0, 0o644, tarfile.REGTYPE)
    }
