"""Files at URLs: real servers of HTTP, S3 and the Hub on loopback, that misbehave as well."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.archive_builder import members, tar, write_archive
from support.bucket import bucket_server
from support.cli_process import run_inline, shards
from support.file_server import FileServer
from support.property_settings import fewer_examples

from voxblink2_lib.archive import remote_reader
from voxblink2_lib.archive.check import check_archive
from voxblink2_lib.archive.parts import JoinedFile, find_archives
from voxblink2_lib.archive.remote import (
    RemoteFile,
    RemoteFolder,
    find_remote,
    local_path,
    remote_file,
    stamp_of,
)
from voxblink2_lib.errors import SourceError

BLOCK = 1000
PROPERTY = fewer_examples(5)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", BLOCK)
    monkeypatch.setattr(remote_reader, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, bytes]:
    """The parts of an archive by their names."""
    return {path.name: path.read_bytes() for path in write_archive(tmp_path / "parts", 12)}


@pytest.fixture
def site(parts: dict[str, bytes]) -> Iterator[FileServer]:
    with FileServer({f"data/{name}": data for name, data in parts.items()}) as running:
        yield running


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, parts: dict[str, bytes]) -> Iterator[str]:
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        for name, data in parts.items():
            system.pipe_file(f"bucket/data/{name}", data)
        system.pipe_file("bucket/data/notes.txt", b"notes")
        yield "s3://bucket/data"


def content(named: str) -> bytes:
    (archive,) = find_archives(named)
    with JoinedFile(archive.parts) as file:
        return file.readall()


# -- Finding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named", ["", "/", "/VB2_audio.tar.gz.00", "/VB2_audio.tar.gz.*", "/VB2*.0[0-9]"]
)
def test_parts_in_a_bucket_are_found_as_local_ones_are(
    bucket: str, parts: dict[str, bytes], named: str
) -> None:
    assert content(bucket + named) == b"".join(parts.values())


@pytest.mark.parametrize("named", ["/", "/VB2_audio.tar.gz.00", "/VB2_audio.tar.gz.*"])
def test_parts_on_a_site_are_found(site: FileServer, parts: dict[str, bytes], named: str) -> None:
    assert content(f"{site.url}/data{named}") == b"".join(parts.values())


def test_what_is_wrong_with_parts_is_said_of_urls_too(bucket: str) -> None:
    with pytest.raises(SourceError, match=rf"{bucket}/VB2_audio.tar.gz.03 is not the first part"):
        find_archives(f"{bucket}/VB2_audio.tar.gz.03")
    with pytest.raises(SourceError, match=r"There is no file 's3://bucket/none', and none that"):
        find_archives("s3://bucket/none")
    with pytest.raises(SourceError, match=r"There is no file 's3://bucket/data/x\*'"):
        find_archives(f"{bucket}/x*")
    import fsspec

    fsspec.filesystem("s3").rm("bucket/data/VB2_audio.tar.gz.02")
    with pytest.raises(SourceError, match=rf"A part of {bucket}/VB2_audio.tar.gz is missing: "):
        find_archives(bucket)


def test_an_archive_is_checked_where_it_is(bucket: str) -> None:
    (archive,) = find_archives(bucket)
    checked = check_archive(archive)
    assert (checked.contents.utterances, checked.problems) == (12, ())


def test_a_whole_tar_is_one_part(site: FileServer) -> None:
    site.files["audio.tar"] = tar(members(3))
    (archive,) = find_archives(f"{site.url}/audio.tar?token=hunter22")
    assert (archive.name, archive.size_bytes) == ("audio.tar", len(site.files["audio.tar"]))
    assert check_archive(archive).contents.utterances == 3


def test_files_at_urls_are_local_paths_too(tmp_path: Path) -> None:
    write_archive(tmp_path / "with space", 3)
    (archive,) = find_archives(f"file://{tmp_path}/with%20space")
    assert len(archive.parts) == 7
    assert local_path("file:///data/x") == Path("/data/x")


# -- Reading ---------------------------------------------------------------------------------------


@PROPERTY
@given(
    size=st.integers(0, 3 * BLOCK + 1),
    moves=st.lists(st.tuples(st.integers(0, 4 * BLOCK), st.integers(0, 2 * BLOCK)), max_size=6),
)
def test_any_place_reads_as_of_a_local_file(size: int, moves: list[tuple[int, int]]) -> None:
    data = bytes(number * number % 251 for number in range(size))
    with (
        pytest.MonkeyPatch.context() as patched,
        FileServer({"x": data}) as site,
        remote_file(f"{site.url}/x").open() as file,
    ):
        patched.setattr(remote_reader, "AHEAD_BYTES", BLOCK)
        whole = io.BytesIO(data)
        for offset, count in moves:
            assert file.seek(offset) == whole.seek(offset)
            assert file.read(count) == whole.read(count)
        assert file.seek(0, io.SEEK_END) == size


def test_every_byte_is_sent_once_and_one_look_takes_one_block(site: FileServer) -> None:
    site.files["x"] = bytes(10 * BLOCK)
    with remote_file(f"{site.url}/x").open() as file:
        assert file.read() == site.files["x"]
    assert site.bytes_sent("x") == 10 * BLOCK
    site.journal.clear()
    with remote_file(f"{site.url}/x").open() as file:
        assert file.read(2) == b"\0\0"
    assert site.bytes_sent("x") == BLOCK


def test_what_breaks_is_tried_again(site: FileServer) -> None:
    site.files["x"] = bytes(range(250)) * 20
    file = remote_file(f"{site.url}/x")
    site.breaks = 2
    with file.open() as stream:
        assert stream.read(BLOCK) == site.files["x"][:BLOCK]
        site.refuses = 2
        assert stream.read() == site.files["x"][BLOCK:]


def test_what_stays_broken_is_said_with_the_place(site: FileServer) -> None:
    site.files["x"] = bytes(5 * BLOCK)
    place = remote_file(f"http://bob:hunter22@{site.host}/x?token=7f3a9b11")
    with place.open() as stream:
        stream.read(BLOCK)
        site.refuses = 3
        with pytest.raises(
            SourceError,
            match=r"x\?token=\*\*\* cannot be read from byte 1,000 on in 3 tries: .*503",
        ) as caught:
            stream.read()
        assert "hunter22" not in str(caught.value)
        assert "7f3a9b11" not in str(caught.value)


def test_a_file_that_is_gone_is_not_asked_for_again(site: FileServer) -> None:
    site.files["x"] = bytes(5 * BLOCK)
    place = remote_file(f"{site.url}/x")
    del site.files["x"]
    with place.open() as stream, pytest.raises(SourceError, match="from byte 0 on: FileNotFound"):
        stream.read()


def test_a_server_without_ranges_is_said(site: FileServer) -> None:
    site.files["x"], site.has_ranges = bytes(5 * BLOCK), False
    with remote_file(f"{site.url}/x").open() as stream:
        stream.seek(2 * BLOCK)
        with pytest.raises(SourceError, match=r"on: .*doesn't appear to support range requests"):
            stream.read()


def test_a_server_that_is_not_there() -> None:
    with FileServer({}) as site:
        url = site.url
    with pytest.raises(SourceError, match=rf"{url}/x cannot be reached: .*Check the address"):
        find_remote(f"{url}/x")


def test_a_protocol_that_is_none() -> None:
    with pytest.raises(SourceError, match=r"nothing://x cannot be reached: .*not known"):
        find_archives("nothing://x")


def test_a_protocol_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(SourceError, match=r"gs://x/y cannot be reached: .*gcsfs.*\. Install it: "):
        find_archives("gs://x/y")


# -- Files and folders -----------------------------------------------------------------------------


def test_a_version_changes_with_the_content(bucket: str, site: FileServer) -> None:
    import fsspec

    url = f"{bucket}/VB2_audio.tar.gz.00"
    before = remote_file(url)
    assert stamp_of(before) == stamp_of(remote_file(url))
    ((name, listed), *_) = RemoteFolder(bucket).files()
    assert (name, listed.version) == ("VB2_audio.tar.gz.00", before.version)
    fsspec.filesystem("s3").pipe_file("bucket/data/VB2_audio.tar.gz.00", bytes(before.size_bytes))
    assert stamp_of(before) != stamp_of(remote_file(url))
    site.files["x"] = b"one"
    first = stamp_of(remote_file(f"{site.url}/x"))
    site.files["x"] = b"two"
    assert first != stamp_of(remote_file(f"{site.url}/x"))


def test_no_text_of_a_file_has_its_secrets() -> None:
    file = RemoteFile("https://bob:hunter22@host/a/b.tar?sig=7f3a", 3, "v", {"url": "hunter22"})
    for text in (str(file), repr(file), file.parent, file.name, repr(RemoteFolder(file.url))):
        assert "hunter22" not in text
        assert "7f3a" not in text
    assert str(file) == "https://***@host/a/b.tar?sig=***"
    assert (file.name, file.parent) == ("b.tar", "https://***@host/a")
    assert pickle.loads(pickle.dumps(file)).url == file.url


# -- As a source -----------------------------------------------------------------------------------


def shards_from(source: object, folder: Path) -> dict[str, bytes]:
    run_inline("materialize", "--source", source, "--store", folder, "--workers", 1)
    return shards(folder)


def test_an_archive_at_a_url_gives_the_shards_of_the_local_one(
    bucket: str, site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", 1 << 16)
    expected = shards_from(tmp_path / "parts", tmp_path / "local")
    assert shards_from(bucket, tmp_path / "bucket") == expected
    site.breaks = 1
    url = f"http://bob:hunter22@{site.host}/data/?token=7f3a9b11"
    assert shards_from(url, tmp_path / "site") == expected
    done = run_inline("materialize", "--store", tmp_path / "site", code=2)
    assert "http://***@" in done.stderr
    for path in (tmp_path / "site").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"hunter22" not in data, path
        assert b"7f3a9b11" not in data, path


def test_a_run_goes_on_after_a_server_that_failed(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", 1 << 13)
    expected = shards_from(tmp_path / "parts", tmp_path / "local")
    words = ("materialize", "--source", f"{site.url}/data/", "--workers", 1)
    site.accepts = 6
    done = run_inline(*words, "--store", tmp_path / "site", code=3)
    assert "cannot be read from byte" in done.stderr
    assert "Run the same command again when the server sends it" in done.stderr
    site.accepts = 1 << 62
    assert shards_from(f"{site.url}/data/", tmp_path / "site") == expected


def test_a_plain_tar_at_a_url_is_a_source_too(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", 1 << 16)
    site.files["audio.tar"] = tar(members(6))
    (tmp_path / "audio.tar").write_bytes(site.files["audio.tar"])
    expected = shards_from(tmp_path / "audio.tar", tmp_path / "local")
    assert shards_from(f"{site.url}/audio.tar", tmp_path / "site") == expected


def test_a_source_at_a_url_without_an_archive_is_refused(bucket: str, tmp_path: Path) -> None:
    words = ("--store", tmp_path / "store", "--workers", 1)
    done = run_inline("materialize", "--source", "s3://bucket/none", *words, code=2)
    assert "There is no file 's3://bucket/none'" in done.stderr
    done = run_inline("materialize", "--source", bucket, "--proxy", "http://x:1", *words, code=2)
    assert f"The source '{bucket}' is an archive at a URL; options such as proxy" in done.stderr
    assert not (tmp_path / "store").exists()
