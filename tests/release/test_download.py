"""``release get``: from real servers on loopback, killed and gone on with, checked against them."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock
from support.bucket import bucket_server
from support.cli_process import (
    Process,
    environment,
    run_any,
    run_inline,
    run_inline_json,
    start,
    wait_for,
)
from support.drive_server import QUOTA, DriveServer, as_drive
from support.file_server import FileServer
from support.hub_server import dataset_hub
from support.recorded_progress import RecordedProgress

from voxblink2_lib.archive import remote_reader
from voxblink2_lib.errors import ReleaseError, StoppedError, StoreBusyError, StoreFullError
from voxblink2_lib.release import drive
from voxblink2_lib.release.download import PARTIAL, Plan, download, find_place, plan_download
from voxblink2_lib.release.drive import AUTHORS_FOLDER
from voxblink2_lib.release.location import META_ARCHIVE, open_release
from voxblink2_lib.release.manifest import MANIFEST, read_manifest
from voxblink2_lib.release.release_parts import DEFAULT_PARTS, PARTS

BLOCK = 1000
FILES = {
    META_ARCHIVE: random.Random(1).randbytes(7 * BLOCK + 1),
    "data/spk2videos": b"id000000 video000000\n",
    "data/ossi/Small_120/perspk1/gallery": b"a 0\n",
    "ckpt/resnet34/model_pt.pt": random.Random(2).randbytes(2 * BLOCK),
    "md5sums.txt": b"",
    "README.md": b"# Not of the release",
}
BIG = random.Random(3).randbytes(40_000_000)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", BLOCK)
    monkeypatch.setattr(remote_reader, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(drive, "_RETRIES", 0)


@pytest.fixture
def site() -> Iterator[FileServer]:
    with FileServer({f"x/{path}": data for path, data in FILES.items()}) as running:
        running.has_lists = False
        yield running


@pytest.fixture
def authors() -> Iterator[DriveServer]:
    """The authors' folder, with everything in a folder of its own."""
    files = {f"release/{path}": data for path, data in FILES.items()}
    with DriveServer(AUTHORS_FOLDER, files) as running, as_drive(running):
        yield running


def planned(folder: Path, place: str | None, *parts: str) -> Plan:
    names = parts or DEFAULT_PARTS
    return plan_download(names, folder=folder, place=find_place(place, names, folder))


def everything_but(*names: str) -> list[str]:
    return [name for name in PARTS if name not in names]


def check_files(folder: Path, *paths: str) -> None:
    """Check that a folder has these files of the release and no other, with true checksums."""
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(present) == sorted([*paths, MANIFEST])
    records = read_manifest(folder)
    assert sorted(records) == sorted(paths)
    for path in paths:
        data = FILES[path]
        assert (folder / path).read_bytes() == data
        assert records[path].size_bytes == len(data)
        assert records[path].md5 == hashlib.md5(data).hexdigest()
        assert records[path].sha256 == hashlib.sha256(data).hexdigest()


# -- From every kind of place ----------------------------------------------------------------------


ASKED = ("meta", "spk2videos", "ossi", "ckpt")
EXPECTED = [path for path in FILES if path not in ("README.md", "md5sums.txt")]


def test_from_a_bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        for path, data in FILES.items():
            system.pipe_file(f"bucket/deep/er/{path}", data)
        files = download(planned(tmp_path / "r", "s3://bucket/deep", *ASKED))
    check_files(tmp_path / "r", *EXPECTED)
    assert {file.record.compared for file in files} == {("etag",)}


def test_from_a_repository_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with dataset_hub(monkeypatch, "me/release", dict(FILES)) as hub:
        files = download(planned(tmp_path / "r", "hf://datasets/me/release", *ASKED))
        for page in ("", "/", "/tree/main"):
            url = f"https://huggingface.co/datasets/me/release{page}"
            assert not planned(tmp_path / "r", url, *ASKED).missing
        assert hub.bytes_sent[META_ARCHIVE] == len(FILES[META_ARCHIVE])
    check_files(tmp_path / "r", *EXPECTED)
    compared = {file.path: file.record.compared for file in files}
    assert compared[META_ARCHIVE] == ("sha256",)
    assert compared["data/spk2videos"] == ("git",)


def test_from_a_site_without_lists(site: FileServer, tmp_path: Path) -> None:
    files = download(planned(tmp_path / "r", f"{site.url}/x/", *ASKED))
    check_files(tmp_path / "r", *EXPECTED)
    assert {file.record.compared for file in files} == {("etag",)}
    assert site.bytes_sent(f"x/{META_ARCHIVE}") == len(FILES[META_ARCHIVE])


def test_one_file_of_a_site(site: FileServer, tmp_path: Path) -> None:
    url = f"http://bob:hunter22@{site.host}/x/{META_ARCHIVE}?token=7f3a9b11"
    download(planned(tmp_path / "r", url, "meta"))
    check_files(tmp_path / "r", META_ARCHIVE)
    assert b"hunter22" not in (tmp_path / "r" / MANIFEST).read_bytes()
    assert b"7f3a9b11" not in (tmp_path / "r" / MANIFEST).read_bytes()


def test_from_a_local_folder(tmp_path: Path) -> None:
    for path, data in FILES.items():
        (tmp_path / "there" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / path).write_bytes(data)
    download(planned(tmp_path / "r", str(tmp_path / "there"), *ASKED))
    check_files(tmp_path / "r", *EXPECTED)


def test_from_the_authors_folder(authors: DriveServer, tmp_path: Path) -> None:
    plan = planned(tmp_path / "r", None, *ASKED)
    assert plan.total_bytes == sum(len(FILES[path]) for path in EXPECTED)
    authors.journal.clear()
    progress = RecordedProgress()
    files = download(plan, progress=progress)
    check_files(tmp_path / "r", *EXPECTED)
    assert {file.state for file in files} == {"downloaded"}
    (task,) = progress.tasks
    assert (task.unit, task.total, sum(task.counts)) == ("B", plan.total_bytes, plan.total_bytes)


def test_another_folder_of_drive(tmp_path: Path) -> None:
    folder = "1AbcdefghijklmnopqrstuvwxyzABCDEF"
    url = f"https://drive.google.com/drive/folders/{folder}?usp=sharing"
    with DriveServer(folder, {"spk2videos": FILES["data/spk2videos"]}) as server, as_drive(server):
        download(planned(tmp_path / "r", url, "spk2videos"))
    check_files(tmp_path / "r", "data/spk2videos")


# -- What is there already -------------------------------------------------------------------------


def test_a_second_run_downloads_nothing(site: FileServer, tmp_path: Path) -> None:
    url, folder = f"{site.url}/x", tmp_path / "r"
    download(planned(folder, url))
    site.journal.clear()
    files = download(planned(folder, url))
    assert {file.state for file in files} == {"present"}
    assert site.journal == []


def test_what_was_put_there_by_hand_is_taken(site: FileServer, tmp_path: Path) -> None:
    url, folder = f"{site.url}/x", tmp_path / "r"
    folder.mkdir()
    (folder / META_ARCHIVE).write_bytes(FILES[META_ARCHIVE])
    files = download(planned(folder, url))
    assert [file.state for file in files] == ["downloaded", "by hand"]
    assert site.bytes_sent(f"x/{META_ARCHIVE}") == 0
    check_files(folder, META_ARCHIVE, "data/spk2videos")


def test_another_file_by_hand_is_refused(
    monkeypatch: pytest.MonkeyPatch, site: FileServer, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / META_ARCHIVE).write_bytes(b"short")
    with pytest.raises(ReleaseError, match=r"not the file of that place: it has 5 bytes, there it"):
        planned(folder, f"{site.url}/x")
    (folder / META_ARCHIVE).write_bytes(bytes(len(FILES[META_ARCHIVE])))
    with dataset_hub(monkeypatch, "me/release", dict(FILES)):
        plan = planned(folder, "hf://datasets/me/release")
        with pytest.raises(ReleaseError, match=r"there it has the sha256 [0-9a-f]{64}\. Remove it"):
            download(plan)
    assert (folder / META_ARCHIVE).read_bytes() == bytes(len(FILES[META_ARCHIVE]))


def test_a_file_that_changed_at_its_place_is_said(site: FileServer, tmp_path: Path) -> None:
    url = f"{site.url}/x"
    download(planned(tmp_path, url))
    site.files["x/data/spk2videos"] = b"ID000000 video000000\n"
    with pytest.raises(ReleaseError, match=r"since it was downloaded, it has changed there\. Rem"):
        planned(tmp_path, url)


def test_a_part_that_a_place_lacks_is_said(authors: DriveServer, tmp_path: Path) -> None:
    with pytest.raises(
        ReleaseError,
        match=r"has no audio and no asr_res \(the cut audio, such as VB2_audio.tar.gz.00\)\. The "
        r"authors hand it out on request\. Name another place with --from",
    ):
        planned(tmp_path, None, "audio", "meta", "asr_res")
    with pytest.raises(ReleaseError, match="There is nothing at file://"):
        planned(tmp_path, str(tmp_path / "nothing"))


def test_a_name_that_leads_outside_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        dataset_hub(monkeypatch, "me/release", {"ossi/../../../evil": b"x"}),
        pytest.raises(ReleaseError, match=r"A file is named 'ossi/\.\./.*: no release has such"),
    ):
        planned(tmp_path, "hf://datasets/me/release", "ossi")


def test_a_file_that_is_there_twice_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"a/spk2videos": b"x", "b/spk2videos": b"y"}
    with (
        dataset_hub(monkeypatch, "me/release", files),
        pytest.raises(ReleaseError, match=r"has the file data/spk2videos twice: hf://.*/a/spk2"),
    ):
        planned(tmp_path, "hf://datasets/me/release", "spk2videos")


def test_a_full_disk_is_said_before_anything_is_written(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(FILES[META_ARCHIVE]) + len(FILES["data/spk2videos"])
    free = {"free": size - 1}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(**free))
    with pytest.raises(StoreFullError, match=r"7\.0 kB are to come, 7\.0 kB are free\. Free some"):
        planned(tmp_path / "r", f"{site.url}/x")
    assert not (tmp_path / "r").exists()
    free["free"] = size
    planned(tmp_path / "r", f"{site.url}/x")


def test_a_disk_that_fills_up_keeps_what_came(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, f"{site.url}/x", "meta")
    save = plan.place.save

    def filled(offer: Any, partial: Path, digests: Any, _: Any) -> NoReturn:
        def advance(count: int) -> None:
            if digests.size_bytes >= 3 * BLOCK:
                raise OSError(errno.ENOSPC, "No space left on device")

        save(offer, partial, digests, advance)
        raise AssertionError

    monkeypatch.setattr(plan.place, "save", filled)
    with pytest.raises(StoreFullError, match=r"No space is left for"):
        download(plan)
    monkeypatch.undo()
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", BLOCK)
    plan = planned(tmp_path, f"{site.url}/x", "meta")
    assert plan.kept_bytes == 3 * BLOCK
    (file,) = download(plan)
    assert (file.state, file.fetched_bytes) == ("resumed", 4 * BLOCK + 1)
    check_files(tmp_path, META_ARCHIVE)


def test_two_downloads_into_one_folder_are_refused(site: FileServer, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"{site.url}/x")
    (tmp_path / PARTIAL).mkdir()
    with (
        FileLock(tmp_path / PARTIAL / ".lock"),
        pytest.raises(StoreBusyError, match="Another process downloads into"),
    ):
        download(plan)
    download(plan)


# -- What breaks -----------------------------------------------------------------------------------


def test_bytes_that_are_not_those_of_the_checksum_are_thrown_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with dataset_hub(monkeypatch, "me/release", dict(FILES)) as hub:
        plan = planned(tmp_path, "hf://datasets/me/release", "meta")
        hub.repos["me/release"].files[META_ARCHIVE] = bytes(len(FILES[META_ARCHIVE]))
        with pytest.raises(StoppedError, match=r"came damaged: its sha256 is [0-9a-f]+, that plac"):
            download(plan)
        assert not (tmp_path / META_ARCHIVE).exists()
        hub.repos["me/release"].files[META_ARCHIVE] = FILES[META_ARCHIVE]
        download(plan)
    check_files(tmp_path, META_ARCHIVE)


def test_a_place_that_fails_is_gone_on_with(site: FileServer, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"{site.url}/x")
    site.refuses = 5  # of two files: the first comes with a try to spare, the second does not
    with pytest.raises(StoppedError, match=r"What came before is kept: run the same command again"):
        download(plan)
    files = download(planned(tmp_path, f"{site.url}/x"))
    assert {file.state for file in files} <= {"downloaded", "present", "resumed"}
    check_files(tmp_path, META_ARCHIVE, "data/spk2videos")


def test_drive_breaks_off_and_goes_on(authors: DriveServer, tmp_path: Path) -> None:
    data = authors.files[f"release/{META_ARCHIVE}"] = BIG[:4_000_000]
    plan = planned(tmp_path, None, "meta")
    authors.breaks = 1
    with pytest.raises(StoppedError, match=r"vb2_meta.tar.gz cannot be fetched: .*What came befor"):
        download(plan)
    plan = planned(tmp_path, None, "meta")
    kept = plan.kept_bytes
    assert 1_000_000 < kept < len(data)
    authors.journal.clear()
    (file,) = download(plan)
    assert (file.state, file.fetched_bytes) == ("resumed", len(data) - kept)
    assert (authors.journal[-1].start, authors.journal[-1].bytes_sent) == (kept, len(data) - kept)
    assert (tmp_path / META_ARCHIVE).read_bytes() == data


def test_another_version_is_not_joined_with_what_came(site: FileServer, tmp_path: Path) -> None:
    site.files[f"x/{META_ARCHIVE}"] = bytes(len(FILES[META_ARCHIVE]))
    plan = planned(tmp_path, f"{site.url}/x", "meta")
    (tmp_path / PARTIAL).mkdir()
    plan.files[0].partial.write_bytes(bytes(BLOCK))
    site.files[f"x/{META_ARCHIVE}"] = FILES[META_ARCHIVE]
    (file,) = download(planned(tmp_path, f"{site.url}/x", "meta"))
    assert file.state == "downloaded"
    check_files(tmp_path, META_ARCHIVE)


def test_killed_between_the_last_byte_and_the_name(authors: DriveServer, tmp_path: Path) -> None:
    plan = planned(tmp_path, None, "meta")
    (tmp_path / PARTIAL).mkdir()
    plan.files[0].partial.write_bytes(FILES[META_ARCHIVE])  # as gdown leaves it
    plan = planned(tmp_path, None, "meta")
    assert plan.kept_bytes == len(FILES[META_ARCHIVE])
    authors.journal.clear()
    download(plan)
    assert authors.journal == []
    check_files(tmp_path, META_ARCHIVE)


AS_DRIVE = """
import sys, pytest
from support.drive_server import patch_requests
patch_requests(pytest.MonkeyPatch(), sys.argv[1])
from voxblink2_lib.cli import main
sys.exit(main(sys.argv[2:]))
"""


def kept_in(folder: Path) -> int:
    partial = folder / PARTIAL
    return sum(path.stat().st_size for path in partial.iterdir()) if partial.exists() else 0


def keeps(folder: Path, least: int) -> bool:
    return kept_in(folder) >= least


def test_kills_at_random_bytes_cost_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line, with its own size of blocks; the server stops sending where it is told."""
    block = 8 << 20
    monkeypatch.setattr(remote_reader, "AHEAD_BYTES", block)
    rng = random.Random(7)
    with FileServer({META_ARCHIVE: BIG}) as site:
        words = ("release", "get", "meta", "--from", site.url, "--to", tmp_path / "r")
        for number, how in enumerate((signal.SIGKILL, signal.SIGINT), start=1):
            site.serve_only(rng.randrange(block, 2 * block))
            with start(*words) as process:
                least = number * block
                assert wait_for(functools.partial(keeps, tmp_path / "r", least), process)
                process.send_signal(how)
                _, err = process.communicate(timeout=60)
            assert process.returncode == (3 if how == signal.SIGINT else -signal.SIGKILL), err
            site.serve_on()
        kept = kept_in(tmp_path / "r")
        assert kept >= 2 * block
        site.journal.clear()
        (file,) = run_inline_json(*words)["files"]
        # A request of a killed process may come to its server late, and is not served whole.
        assert site.whole_bytes_sent(META_ARCHIVE) == len(BIG) - kept
    assert (file["state"], file["fetched_bytes"]) == ("resumed", len(BIG) - kept)
    assert (tmp_path / "r" / META_ARCHIVE).read_bytes() == BIG
    assert not (tmp_path / "r" / PARTIAL).exists()


def test_a_kill_while_drive_sends_costs_what_was_in_flight(tmp_path: Path) -> None:
    with DriveServer(AUTHORS_FOLDER, {META_ARCHIVE: BIG}) as server:
        words = ["release", "get", "meta", "--to", str(tmp_path / "r")]
        server.serve_only(20_000_000)
        arguments = [sys.executable, "-c", AS_DRIVE, server.url, *words]
        path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
        with Process(arguments, env=environment({"PYTHONPATH": path})) as process:
            assert wait_for(functools.partial(keeps, tmp_path / "r", 5_000_000), process)
            process.kill()
            process.wait(60)
        server.serve_on()
        kept = kept_in(tmp_path / "r")
        with as_drive(server):
            (file,) = run_inline_json(*words)["files"]
        assert server.journal[-1].start == kept
        assert server.journal[-1].bytes_sent == len(BIG) - kept
    assert (file["state"], file["fetched_bytes"]) == ("resumed", len(BIG) - kept)
    assert (tmp_path / "r" / META_ARCHIVE).read_bytes() == BIG


# -- A place that cannot be reached ----------------------------------------------------------------


BY_HAND = r"""\nOr fetch by hand, .*:
  .*vb2_meta\.tar\.gz -> .*/r/vb2_meta\.tar\.gz
  .*-> .*/r/data/spk2videos
Then check them: 'voxblink2 release check .*/r'$"""


def refusal(folder: Path) -> str:
    with pytest.raises(StoppedError) as caught:
        planned(folder, None)
    assert caught.value.exit_code == 3
    assert re.search(BY_HAND, str(caught.value)), str(caught.value)
    return str(caught.value).partition("\n")[0]


def test_a_quota_that_is_used_up(authors: DriveServer, tmp_path: Path) -> None:
    authors.is_exhausted = True
    words = refusal(tmp_path / "r")
    assert "data/spk2videos cannot be fetched: Failed to retrieve file url: Too many users" in words
    assert QUOTA[:60] in words


def test_a_quota_that_is_used_up_in_the_middle(authors: DriveServer, tmp_path: Path) -> None:
    plan = planned(tmp_path / "r", None)
    authors.is_exhausted = True
    with pytest.raises(StoppedError) as caught:
        download(plan)
    first, _, advice = str(caught.value).partition("\n")
    assert "Too many users have viewed or downloaded this file recently" in first
    assert re.fullmatch(
        r"Or fetch by hand, .*:\n"
        r"  https://drive.google.com/file/d/\S{33}/view -> .*/r/data/spk2videos\n"
        r"  https://drive.google.com/file/d/\S{33}/view -> .*/r/vb2_meta.tar.gz\n"
        r"Then check them: 'voxblink2 release check .*/r'",
        advice,
    )


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"", r"cannot be listed: Failed to parse folder contents .*page structure may have chang"),
        (b"<title>Sign in</title>", r"has no meta and no spk2videos"),
    ],
)
def test_pages_that_are_no_list(
    authors: DriveServer, tmp_path: Path, page: bytes, words: str
) -> None:
    authors.page = page
    with pytest.raises((StoppedError, ReleaseError), match=words):
        planned(tmp_path / "r", None)


def test_a_folder_that_is_gone(authors: DriveServer, tmp_path: Path) -> None:
    authors.folder = "another"
    assert "(status code 404)" in refusal(tmp_path / "r")


def test_no_network(tmp_path: Path) -> None:
    with DriveServer(AUTHORS_FOLDER, {}) as server:
        pass
    with as_drive(server):
        assert re.search(r"cannot be listed: .*Connection refused", refusal(tmp_path / "r"))


def test_without_gdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    done = run_inline("release", "get", "--to", tmp_path / "r", code=2)
    assert "gdown, which is not installed: pip install 'voxblink2[get]'" in done.stderr
    assert re.search(BY_HAND, done.stderr.rstrip())


def test_a_site_that_is_not_there(tmp_path: Path) -> None:
    with FileServer({}) as site:
        url = site.url
    done = run_inline("release", "get", "--from", url, "--to", tmp_path / "r", code=3)
    assert re.search(rf"{url}/vb2_meta.tar.gz cannot be reached: ", done.stderr)
    assert re.search(BY_HAND, done.stderr.rstrip())


def test_many_files_are_named_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    done = run_inline("release", "get", "all", "--to", tmp_path / "r", code=2)
    assert len(done.stderr.splitlines()) == 10
    assert re.search(r"and \d+ more", done.stderr)
    done = run_inline("release", "get", "audio", "--to", tmp_path / "r", code=2)
    assert re.search(r"VB2_audio.tar.gz.00 to .39 \(40 files\) -> .*/r/VB2_audio", done.stderr)


# -- The command line ------------------------------------------------------------------------------


def test_what_comes_is_said_before_and_after(site: FileServer, tmp_path: Path) -> None:
    words = ("release", "get", "--from", f"{site.url}/x", "--to", tmp_path / "r")
    listed = run_inline(*words, "--list")
    assert not (tmp_path / "r").exists()
    assert "Missing    2 of 2 files, 7.0 kB" in listed.stdout
    done = run_inline(*words)
    assert listed.stdout in done.stderr
    assert "2 files, 7.0 kB downloaded; 2 compared with checksums of their place" in done.stdout
    assert "Missing    nothing: all 2 files are here" in run_inline(*words).stderr
    record = run_inline_json(*words, "--list")
    assert [file["state"] for file in record["files"]] == ["present", "present"]
    record = run_inline_json(*words)
    assert [file["path"] for file in record["files"]] == ["data/spk2videos", META_ARCHIVE]
    assert open_release(tmp_path / "r").path == tmp_path / "r" / META_ARCHIVE


def test_a_part_that_is_none(tmp_path: Path) -> None:
    done = run_any("release", "get", "metta")
    assert done.returncode == 2
    assert "has no part 'metta'. Its parts are meta, spk2videos" in done.stderr
