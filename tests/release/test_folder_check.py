"""``release check``: what is equal, missing, different, or cannot be known."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.archive_builder import write_archive
from support.cli_process import run_inline, run_inline_json
from support.property_settings import fewer_examples

from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.release.download import download, find_place, plan_download
from voxblink2_lib.release.location import META_ARCHIVE
from voxblink2_lib.release.manifest import MANIFEST, FileRecord, read_manifest, write_manifest
from voxblink2_lib.release.release_parts import PARTS, in_short, part_of

META = gzip.compress(random.Random(1).randbytes(5000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release that was downloaded."""
    there = tmp_path / "there"
    (there / "data").mkdir(parents=True)
    (there / META_ARCHIVE).write_bytes(META)
    (there / "data" / "spk2videos").write_bytes(b"id000000 video000000\n")
    folder, names = tmp_path / "here", ("meta", "spk2videos")
    place = find_place(str(there), names, folder)
    download(plan_download(names, folder=folder, place=place))
    return folder


def checked(folder: Path, *words: object, code: int = 0) -> dict[str, Any]:
    return run_inline_json("release", "check", folder, *words, code=code)


def test_what_was_downloaded_is_equal(folder: Path) -> None:
    done = run_inline("release", "check", folder)
    assert done.stdout.splitlines() == ["2 equal to their checksums", "No problems."]
    assert checked(folder) == {
        "ok": True,
        "problems": [],
        "files": [
            {"path": "data/spk2videos", "state": "equal"},
            {"path": META_ARCHIVE, "state": "equal"},
        ],
    }


def test_each_difference_is_named(folder: Path) -> None:
    (folder / META_ARCHIVE).write_bytes(META[:-1] + b"\1")
    (folder / "data" / "spk2videos").write_bytes(b"")
    short, other = checked(folder, code=1)["problems"]
    assert short == "data/spk2videos has 0 bytes, 21 are right."
    seen, right = hashlib.md5(META[:-1] + b"\1").hexdigest(), hashlib.md5(META).hexdigest()
    assert other == f"{META_ARCHIVE} has the md5 {seen}, in release.json it is {right}."
    (folder / META_ARCHIVE).unlink()
    assert f"{META_ARCHIVE} is missing." in checked(folder, code=1)["problems"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_lists_of_checksums_are_compared_too(tmp_path: Path, kind: str) -> None:
    paths = write_archive(tmp_path / "parts", 6, parts=3)
    sums = tmp_path / "sums.txt"
    lines = [f"{hashlib.new(kind, path.read_bytes()).hexdigest()}  {path.name}" for path in paths]
    sums.write_text("\n".join(["# of the parts", *lines, f"{'0' * 32}  VB2_audio.tar.gz.03"]))
    (missing,) = checked(tmp_path / "parts", "--sums", sums, code=1)["problems"]
    assert missing == "VB2_audio.tar.gz.03 is missing."
    sums.write_text("\n".join(lines))
    assert checked(tmp_path / "parts", "--sums", sums)["ok"]
    paths[1].write_bytes(bytes(len(paths[1].read_bytes())))
    (problem,) = checked(tmp_path / "parts", "--sums", sums, code=1)["problems"]
    assert problem.startswith(f"VB2_audio.tar.gz.01 has the {kind} ")
    assert "in the list it is" in problem


def test_a_list_without_checksums_is_refused(tmp_path: Path) -> None:
    sums = tmp_path / "sums.txt"
    sums.write_text("no checksums\n")
    done = run_inline("release", "check", tmp_path, "--sums", sums, code=2)
    assert "no line is an MD5 or SHA-256 and a name" in done.stderr


def test_what_was_put_there_by_hand_is_checked_by_itself(tmp_path: Path) -> None:
    (tmp_path / META_ARCHIVE).write_bytes(META)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spk2videos").write_bytes(b"")
    done = run_inline("release", "check", tmp_path)
    assert done.stdout.splitlines() == [
        "1 whole by the checksum in the file itself, of which no other is known",
        "1 not checked",
        "Of data/spk2videos, no checksum is known.",
        "No problems.",
    ]
    (tmp_path / META_ARCHIVE).write_bytes(META[:-100])
    (damaged, *_) = checked(tmp_path, code=1)["problems"]
    assert damaged.startswith(f"{META_ARCHIVE} is damaged: the stream ends within a member")


def test_nothing_to_check_is_a_failure(tmp_path: Path) -> None:
    problem = f"There was nothing to check in {tmp_path}: no file with a known checksum."
    assert checked(tmp_path, code=1)["problems"] == [problem]
    write_archive(tmp_path, 6, parts=2)
    done = run_inline("release", "check", tmp_path, code=1)
    assert f"'voxblink2 archive check {tmp_path}' reads all parts." in done.stdout
    assert problem in done.stdout
    done = run_inline("release", "check", tmp_path / "nowhere", code=2)
    assert "There is no folder" in done.stderr


# -- The manifest ----------------------------------------------------------------------------------


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    sums = ("0" * 32, "1" * 64)
    files = {
        "a/b": FileRecord("ossi", 3, *sums, place="s3://x", version="v", compared=("etag",)),
        "c": FileRecord("meta", 0, *sums),
    }
    write_manifest(tmp_path, files)
    assert read_manifest(tmp_path) == files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"format": 2, "files": {}}', "it has format 2, not 1"),
        ('{"format": 1, "files": {"../x": {}}}', r"it names the file '\.\./x'"),
        ('{"format": 1, "files": {"/x": {}}}', "it names the file '/x'"),
        ('{"format": 1, "files": {"x": {"part": 1}}}', "missing 3 required"),
        (
            '{"format": 1, "files": {"x": {"md5": 1, "sha256": 1, "part": 1, "size_bytes": -1}}}',
            "size_bytes is -1",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ReleaseError, match=rf"The manifest .* cannot be used: .*{words}.*Remove"):
        read_manifest(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = ["part", "size_bytes", "md5", "sha256", "place", "version", "compared"]


@fewer_examples(2)
@given(
    record=VALUES
    | st.fixed_dictionaries(
        {
            "format": st.just(1),
            "files": VALUES
            | st.dictionaries(
                st.text(max_size=5),
                VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES | st.just("0" * 32)),
            ),
        }
    )
)
def test_whatever_a_manifest_has_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, record: object
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    (folder / MANIFEST).write_text(json.dumps(record))
    with contextlib.suppress(ReleaseError):
        assert read_manifest(folder) == {}


# -- Parts -----------------------------------------------------------------------------------------


def test_every_known_file_belongs_to_its_part_wherever_it_is() -> None:
    for part in PARTS.values():
        for path in part.files:
            for there in (path, f"VoxBlink2/{path}", f"a/{path.removeprefix('data/')}"):
                assert part_of(there) == (part.name, path)


@given(path=st.text(alphabet="a./\\\0\ncktposi", max_size=20))
def test_no_place_leads_out_of_the_folder(path: str) -> None:
    for start in ("ossi/", "x/ckpt/"):
        try:
            _, place = part_of(f"{start}{path}") or ("", "x")
        except ReleaseError:
            continue
        assert ".." not in Path(place).parts
        assert not Path(place).is_absolute()
        assert "\0" not in place


def test_names_in_short() -> None:
    assert in_short(["a", *PARTS["audio"].files]) == ["a", "VB2_audio.tar.gz.00 to .39 (40 files)"]
    assert in_short(["a.01", "b"]) == ["a.01", "b"]
