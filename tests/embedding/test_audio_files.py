"""Which files of a folder are embedded, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import tiny_models
from support.tiny_models import calls_here, read_all, voice, write

from voxblink2_lib.cli import main
from voxblink2_lib.embedding.audio_files import EXTENSIONS, find_audio_files
from voxblink2_lib.embedding.blocks import find_blocks
from voxblink2_lib.errors import EmbeddingError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_in(folder: Path, prefer: Sequence[str] = ()) -> list[str]:
    files = find_audio_files(folder, prefer=prefer).files
    return [str(Path(path).relative_to(folder)) for _, path in files]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_each_extension_counts(extension: str, tmp_path: Path) -> None:
    touch(tmp_path, f"x{extension}", f"y{extension.upper()}")
    assert [name for name, _ in find_audio_files(tmp_path).files] == ["x", "y"]


def test_what_is_skipped_is_counted_by_type(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.TXT", "c/d.txt", "c/README", "c/._a.wav")
    found = find_audio_files(tmp_path)
    assert found.files == [("a", str(tmp_path / "a.wav"))]
    assert found.skipped == {".txt": 2, "no extension": 1, ".wav": 1}


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "deep/b.wav", "c.wav")
    touch(tmp_path / "here", "a.wav")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "twice").symlink_to("linked")
    (tmp_path / "elsewhere" / "deep" / "round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "up").symlink_to("..")
    (tmp_path / "here" / "linked.wav").symlink_to(tmp_path / "elsewhere" / "c.wav")
    (tmp_path / "here" / "nowhere.wav").symlink_to("none")
    below = ["linked/c.wav", "linked/deep/b.wav", "twice/c.wav", "twice/deep/b.wav"]
    up = ["up/elsewhere/c.wav", "up/elsewhere/deep/b.wav"]
    assert names_in(tmp_path / "here") == sorted(
        ["a.wav", *below, "linked.wav", "nowhere.wav", *up], key=lambda name: Path(name).parts
    )


def test_the_order_is_that_of_paths(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a/z.wav", "a b/c.wav", "a-b.wav", "B.wav")
    assert names_in(tmp_path) == [
        str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.wav"))
    ]


@pytest.mark.parametrize(
    ("prefer", "kept"),
    [
        ((), ["x.flac", "x.m4a", "x.wav", "y.m4a", "z.mp3", "z.wav"]),
        (("wav", "flac"), ["x.wav", "y.m4a", "z.wav"]),
        ((".FLAC", " mp3"), ["x.flac", "y.m4a", "z.mp3"]),
        (("opus",), ["x.flac", "x.m4a", "x.wav", "y.m4a", "z.mp3", "z.wav"]),
    ],
)
def test_files_of_one_name(prefer: tuple[str, ...], kept: list[str], tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "x.flac", "x.m4a", "y.m4a", "z.wav", "z.mp3")
    assert names_in(tmp_path, prefer) == kept
    left = 6 - len(kept)
    assert find_audio_files(tmp_path, prefer=prefer).skipped == (
        {"other kinds": left} if left else {}
    )
    assert len(read_all(find_blocks(tmp_path, prefer=prefer).blocks)) == len(kept)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EmbeddingError, match=r"'doc' is no extension of audio files\. Known are wav"
    ):
        find_audio_files(tmp_path, prefer=["doc"])


def test_a_folder_of_other_files_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt", "c.csv", "d", "e.pdf", "f.doc", "g.xyz")
    match = r"audio files \(\.wav, .* and others that FFmpeg decodes\); there are only 2 \.txt, 1 "
    with pytest.raises(EmbeddingError, match=match):
        find_blocks(tmp_path)


def test_the_command_tells_of_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls_here(monkeypatch)
    model, sounds = tiny_models.save_small(tmp_path / "model"), tmp_path / "sounds"
    for name in ("a.wav", "b.wav", "b.flac", "c.wav"):
        write(sounds / name, voice(1, 0.5))
    touch(sounds, "notes.txt", "list.csv", "more.txt", "broken.wav")
    words = ["embed", "--model", str(model), "--audio", str(sounds), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "all.parquet")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("all.parquet: 2 of 12 dimensions")
    assert lines[1].startswith("Rejected   3 utterances, 2 for the name of another; reasons in ")
    assert lines[2:] == [
        "Skipped    3 files by type: 2 .txt, 1 .csv",
        "Of files with the same name, --prefer wav,flac takes one",
    ]
    out = str(tmp_path / "preferred.parquet")
    for _ in range(2):  # the second finds all of it done
        assert main([*words, "--out", out, "--prefer", "wav,flac", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["utterances"], record["rejected"], record["duplicates"]) == (3, 1, 0)
        assert record["skipped"] == {".txt": 2, ".csv": 1, "other kinds": 1}
