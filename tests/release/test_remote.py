"""A release at a URL: in a bucket, a repository of the Hub, on a site; whatever form it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bucket import bucket_server
from support.cli_process import run_inline, run_inline_json
from support.file_server import FileServer
from support.hub_server import dataset_hub
from support.release_builder import small_release, voxblink2, write_archive, write_release

from voxblink2_lib.archive import remote_reader
from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.files import home_folder
from voxblink2_lib.release import annotation_files, remote
from voxblink2_lib.release.builtin import MEDIA, RELEASE
from voxblink2_lib.release.index_build import build_index, open_index
from voxblink2_lib.release.location import META_ARCHIVE, open_release
from voxblink2_lib.store.layout import open_store


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_reader, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        yield system


def fingerprint(data_dir: object, folder: Path) -> str:
    return build_index(open_release(str(data_dir)), folder).info.fingerprint


def test_an_archive_in_a_bucket_gives_the_index_of_the_local_one(
    system: Any, tmp_path: Path
) -> None:
    local = write_archive(tmp_path / META_ARCHIVE, small_release())
    system.put(str(local), f"bucket/release/{META_ARCHIVE}")
    system.touch("bucket/release/")  # some programs make folders so
    expected = fingerprint(local, tmp_path / "local")
    for number, named in enumerate(("", "/", f"/{META_ARCHIVE}")):
        folder = tmp_path / str(number)
        assert fingerprint(f"s3://bucket/release{named}", folder) == expected
        for table in ("utterances.parquet", "boxes.parquet", "videos.parquet"):
            same = (tmp_path / "local" / table).read_bytes()
            assert (folder / table).read_bytes() == same
    assert [path.name for path in home_folder().rglob("*")] == []  # no copy of it


def test_a_folder_in_a_bucket_gives_the_index_of_the_local_one(
    system: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_FETCHED_AT_ONCE", 3)
    monkeypatch.setattr(annotation_files, "MAX_FILE_BYTES", 2000)
    files = small_release()
    files["meta/id000001/abcdefghijk/00009.txt"] = b" " * 2001
    files["meta/README"] = b"none"
    local = write_release(tmp_path / "release", files)
    system.put(str(local), "bucket/release", recursive=True)
    seen = {file.path: file for file in open_release("s3://bucket/release").annotations()}
    assert seen == {file.path: file for file in open_release(local).annotations()}
    expected = fingerprint(local, tmp_path / "local")
    assert fingerprint("s3://bucket/release", tmp_path / "a") == expected
    assert fingerprint("s3://bucket/release/meta", tmp_path / "b") == expected


def test_a_release_in_a_repository_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local = write_archive(tmp_path / META_ARCHIVE, small_release())
    files = {META_ARCHIVE: local.read_bytes(), "README.md": b"# A data set"}
    with dataset_hub(monkeypatch, "me/release", files) as hub:
        expected = fingerprint(local, tmp_path / "local")
        assert fingerprint("hf://datasets/me/release", tmp_path / "hub") == expected
        assert hub.bytes_sent[META_ARCHIVE] == len(files[META_ARCHIVE])
        named = f"hf://datasets/me/release@main/{META_ARCHIVE}"
        assert fingerprint(named, tmp_path / "named") == expected


def test_a_release_on_a_site(tmp_path: Path) -> None:
    local = write_archive(tmp_path / META_ARCHIVE, small_release())
    with FileServer({f"x/{META_ARCHIVE}": local.read_bytes()}) as site:
        expected = fingerprint(local, tmp_path / "local")
        assert fingerprint(f"{site.url}/x/", tmp_path / "a") == expected
        site.breaks = 1
        named = f"{site.url}/x/{META_ARCHIVE}?token=hunter22"
        assert fingerprint(named, tmp_path / "b") == expected


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_what_changes_at_a_url_is_indexed_anew(system: Any, tmp_path: Path, form: str) -> None:
    def upload(files: dict[str, bytes]) -> None:
        if form == "archive":
            local = write_archive(tmp_path / META_ARCHIVE, files)
            system.put(str(local), f"bucket/release/{META_ARCHIVE}")
        else:
            system.pipe({f"bucket/release/{path}": data for path, data in files.items()})

    files = small_release()
    upload(files)
    release = open_release("s3://bucket/release")
    index = open_index(release, tmp_path / "index")
    assert open_index(release, tmp_path / "index").info == index.info
    upload({**files, "meta/id000009/abcdefghijk/00001.txt": voxblink2(speaker="id000009")})
    changed = open_index(open_release("s3://bucket/release"), tmp_path / "index")
    assert changed.info.speakers == index.info.speakers + 1


def test_what_is_no_release_is_said(system: Any) -> None:
    system.pipe_file("bucket/other/notes.txt", b"")
    with pytest.raises(ReleaseError, match=r"^s3://bucket/other is not a VoxBlink2 release: it "):
        open_release("s3://bucket/other")
    with pytest.raises(ReleaseError, match=r"The release s3://bucket/none does not exist"):
        open_release("s3://bucket/none")
    system.pipe_file(f"bucket/other/{META_ARCHIVE}", b"\x1f\x8bno")
    with pytest.raises(ReleaseError, match=r"The archive s3://bucket/other/vb2_.* is damaged"):
        list(open_release("s3://bucket/other").annotations())


def test_a_server_that_breaks_off_ends_the_index_and_rejects_nothing(tmp_path: Path) -> None:
    local = write_archive(tmp_path / META_ARCHIVE, small_release())
    with FileServer({META_ARCHIVE: local.read_bytes()}) as site:
        release = open_release(f"{site.url}/{META_ARCHIVE}")
        site.refuses = 3
        with pytest.raises(ReleaseError, match=r"cannot be read from byte 0 on in 3 tries: .*503"):
            build_index(release, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_default_store_of_a_url_has_its_name() -> None:
    with FileServer({f"my/{META_ARCHIVE}": b"", "x": b""}) as site:
        url = f"http://bob:hunter22@{site.host}"
        stores = [
            open_store(None, open_release(f"{url}/my/{META_ARCHIVE}?token=7f3a9b11")),
            open_store(None, open_release(f"{url}/x")),
        ]
        names = [store.root.name for store in stores]
    assert [name.rpartition("-")[0] for name in names] == ["my", "x"]


# -- A whole run -----------------------------------------------------------------------------------


def test_a_store_goes_on_with_a_release_at_a_url_and_keeps_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"x/{META_ARCHIVE}": (RELEASE / META_ARCHIVE).read_bytes()}
    with FileServer(files) as site:
        url = f"http://bob:hunter22@{site.host}/x/{META_ARCHIVE}?token=7f3a9b11"
        store = tmp_path / "store"
        words = ("--store", store, "--workers", 1)
        limits = ("--source", MEDIA, "--max-speakers", 1)
        first = run_inline("materialize", "--data-dir", url, *limits, *words)
        assert "hunter22" not in first.stdout + first.stderr
        refused = run_inline("materialize", *words, code=2)
        assert "remembers --data-dir as http://***@" in refused.stderr
        assert "variable VOXBLINK2_RELEASE" in refused.stderr
        monkeypatch.setenv("VOXBLINK2_RELEASE", url)
        record = run_inline_json("materialize", *words)
        assert "hunter22" not in json.dumps(record)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"hunter22" not in data, path
            assert b"7f3a9b11" not in data, path


def test_load_dataset_takes_a_url(system: Any, tmp_path: Path, inline_workers: None) -> None:
    from datasets import load_dataset

    import voxblink2  # noqa: F401  # registers the builder

    system.put(str(RELEASE / META_ARCHIVE), f"bucket/release/{META_ARCHIVE}")
    rows = load_dataset(
        "voxblink2",
        "audio",
        data_dir="s3://bucket/release",
        source=str(MEDIA),
        store=str(tmp_path / "store"),
        cache_dir=str(tmp_path / "cache"),
        max_speakers=1,
        split="train",
    )
    assert len(set(rows["speaker_id"])) == 1
