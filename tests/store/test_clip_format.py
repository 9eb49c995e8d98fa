"""A store knows the format of its clips, and what made them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.cli import main
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize, retry_videos
from voxblink2_lib.media.versions import decoder_versions
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format, read_versions
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.status import read_status
from voxblink2_lib.store.verify import verify_store

pytestmark = pytest.mark.usefixtures("inline_workers")

VIDEOS = video_ids(3)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the decoders of each run are; the last one is used."""
    names = ["libavcodec 1.0.0"]
    monkeypatch.setattr("voxblink2_lib.materialize.run.decoder_versions", lambda: names[-1])
    return names


def go(folder: Path, videos: int, *, retry: bool = False) -> Store:
    selection = Selection.of(max_videos_per_speaker=videos)
    store, media = str(folder / "store"), str(folder / "media")
    request = MaterializeRequest(
        data_dir=str(folder), source=media, store=store, workers=1, selection=selection
    )
    return materialize(request, retry=retry, wait=False)


def recorded(store: Store) -> tuple[int, tuple[str, ...]]:
    with Ledger(store.ledger, "audio", readonly=True) as ledger:
        return read_clip_format(store, ledger), read_versions(ledger)


def test_other_versions_are_reported_once_and_kept(
    tmp_path: Path, versions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    make_corpus(tmp_path, VIDEOS)
    store = go(tmp_path, 1)
    assert recorded(store) == (CLIP_FORMAT, ("libavcodec 1.0.0",))
    versions.append("libavcodec 2.0.0")
    go(tmp_path, 1)  # makes no clip
    assert recorded(store) == (CLIP_FORMAT, ("libavcodec 1.0.0",))
    assert not caplog.messages
    go(tmp_path, 2)
    (message,) = caplog.messages
    assert "so far were made with libavcodec 1.0.0; this run makes them with libavc" in message
    assert "libavcodec 2.0.0" in message
    both = ("libavcodec 1.0.0", "libavcodec 2.0.0")
    assert recorded(store) == (CLIP_FORMAT, both)
    go(tmp_path, 3)
    assert len(caplog.messages) == 1
    assert recorded(store) == (CLIP_FORMAT, both)


def test_verify_and_status_show_them(
    tmp_path: Path, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_corpus(tmp_path, VIDEOS)
    store = go(tmp_path, 1)
    versions.append("libavcodec 2.0.0")
    go(tmp_path, 2)
    verified = verify_store(store, sample=1).configs["audio"]
    for result in (verified, read_status(store, "audio")):
        assert (result.clip_format, result.made_with) == (CLIP_FORMAT, tuple(versions))
    capsys.readouterr()
    assert main(["verify", "--store", str(store.root)]) == 0
    expected = "Clips of format 2, made with libavcodec 1.0.0 and with libavcodec 2.0.0\n"
    assert expected in capsys.readouterr().out
    for command in ("verify", "status"):
        assert main([command, "--store", str(store.root), "--config", "audio", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["clip_format"], record["made_with"]) == (2, versions)


def test_clips_of_a_retry_are_of_this_format_too(tmp_path: Path, versions: list[str]) -> None:
    media = make_corpus(tmp_path, VIDEOS) / "media"
    media.rename(tmp_path / "kept")
    for path in (tmp_path / "kept").glob("*/*"):
        empty = media / path.relative_to(tmp_path / "kept")
        empty.parent.mkdir(parents=True, exist_ok=True)
        empty.touch()
    store = go(tmp_path, 1)
    # As a store of version 0.1.0 without a clip.
    with Ledger(store.ledger, "audio") as ledger, ledger._database.transaction() as connection:
        connection.execute("delete from facts where name in ('audio.clip_format')")
    shutil.rmtree(media)
    (tmp_path / "kept").rename(media)
    request = MaterializeRequest(store=str(store.root), source=str(media), workers=1)
    assert retry_videos(request, ["media-unusable"]) == (store, 1)
    assert recorded(store) == (CLIP_FORMAT, tuple(versions))
    assert read_status(store, "audio").videos == {"done": 1}


def test_the_versions_are_those_of_the_libraries_that_decode() -> None:
    names = [entry.split()[0] for entry in decoder_versions().split(", ")]
    assert names == ["libavcodec", "libavformat", "libswscale", "libsoxr"]
    assert all(entry.split()[1][0].isdigit() for entry in decoder_versions().split(", "))
