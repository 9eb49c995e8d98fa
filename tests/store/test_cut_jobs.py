"""Jobs that are cut from an archive: their sizes, split videos, and a ledger that is made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import cli_process, cut_runs
from support.cut_runs import go, in_order, name_of, round_robin, row_names, write
from support.disk_faults import FaultyDisk, KilledError
from support.plain_corpus import make_release, video_ids

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.catalogue import local_catalogue
from voxblink2_lib.store.cut_jobs import Stream, job_size
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.rebuild import rebuild_ledger
from voxblink2_lib.store.shards import read_batches
from voxblink2_lib.store.verify import verify_store
from voxblink2_lib.store.view import view_of

VIDEOS = 9


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with cut_runs.small():
        yield


def opened(store: Path) -> Ledger:
    return Ledger(store / "ledger.sqlite", "audio", readonly=True)


def split(store: Path) -> dict[str, list[int]]:
    """Return the jobs of each video that is in more than one."""
    with opened(store) as ledger:
        cut = ledger.cut
        jobs = {}
        for key in cut.split_videos():
            known = cut.video(key)
            assert known is not None
            jobs[key.video_id] = [*cut.earlier_jobs(key), known.job]
        return jobs


def test_jobs_become_larger_up_to_the_size_of_others() -> None:
    sizes = [job_size(place) for place in range(40)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (32, 1024)


def test_a_stream_and_a_position_are_remembered(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "audio") as ledger:
        assert ledger.cut.stream() is None
        assert ledger.cut.position() is None
        stream = Stream("archive", "plan", 3, is_finished=True, problem="why")
        ledger.cut.set_stream(stream)
        ledger.cut.set_position({"offset": 9})
        assert ledger.cut.stream() == stream
        assert ledger.cut.position() == {"offset": 9}
        ledger.cut.set_position(None)
        assert ledger.cut.position() is None


NEAR = [*in_order(3), name_of(0, 7)]  # the job goes on
APART = [*in_order(VIDEOS), name_of(0, 7)]  # two jobs later
EVERYWHERE = round_robin(VIDEOS, 4)


@pytest.mark.parametrize(
    ("names", "most"), [(NEAR, 0), (APART, 2), (EVERYWHERE, 4)], ids=["near", "apart", "everywhere"]
)
def test_scattered_videos_in_ledger_view_catalogue_and_checks(
    names: list[str], most: int, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    go(write(tmp_path / "parts", names), store.root)
    jobs = split(store.root)
    assert max(map(len, jobs.values()), default=0) == most
    assert verify_store(store, sample=99).problems == ()
    catalogue, _ = local_catalogue(store.root, "audio")
    assert len(catalogue.table) == len(names)
    with opened(store.root) as ledger:
        shards = ledger.shards()
        assert ledger.statistics.totals().clips == len(names)
    for selection in (
        Selection.of(speakers=["id000000"]),
        Selection.of(videos=["video000000"]),
        Selection.of(exclude=["video000001", "id000002"]),
        Selection.of(max_speakers=1, max_videos_per_speaker=1),
    ):
        view = view_of(store, "audio", shards, selection)
        rows = [row for part in view.shards for row in rows_of(store, part.shard)]
        kept = [rows[number] for number in view.indices().tolist()]
        wanted = [row for row in cli_process.rows(store.root) if is_selected(row, selection)]
        assert [(row["video_id"], row["utterance_id"]) for row in kept] == [
            (row["video_id"], row["utterance_id"]) for row in wanted
        ]
        assert view.videos == view.selected == len({row["video_id"] for row in wanted})


def rows_of(store: Store, shard: SealedShard) -> list[dict[str, Any]]:
    batches = read_batches(store.shards("audio") / shard.name)
    return [row for batch in batches for row in batch.to_pylist()]


def is_selected(row: dict[str, str], selection: Selection) -> bool:
    ids = {row["speaker_id"], row["video_id"]}
    if selection.max_speakers:
        return row["video_id"] == "video000000"
    named = selection.speakers | selection.videos
    return not ids & selection.exclude and bool(not named or ids & named)


def test_views_of_a_store_with_annotations_have_what_is_not_annotated(tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", video_ids(4), per_speaker=3)
    store = Store(tmp_path / "store")
    go(write(tmp_path / "parts", round_robin(6)), store.root, data_dir=release)
    with opened(store.root) as ledger:
        shards = ledger.shards()
    view = view_of(store, "audio", shards, Selection.of(speakers=["id000001"]))
    assert view.videos == 3  # of which one is annotated
    view = view_of(store, "audio", shards, Selection.of(videos=["video000005"]))
    assert len(view.indices()) == 3
    view = view_of(store, "audio", shards, Selection.of(max_speakers=2))
    assert view.videos == 4
    assert verify_store(store, sample=99).problems == ()


@pytest.mark.parametrize("names", [APART, EVERYWHERE], ids=["apart", "everywhere"])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_ledger_that_is_made_again_knows_split_videos_and_the_run_goes_on(
    share: float, names: list[str], tmp_path: Path
) -> None:
    parts, store = write(tmp_path / "parts", names), tmp_path / "store"
    go(parts, tmp_path / "whole")
    disk = FaultyDisk(tmp_path / "counted")
    with disk.installed():
        go(parts, tmp_path / "counted")
    stopped = FaultyDisk(store, "killed", round(share * len(disk.operations)))
    with stopped.installed():
        try:
            go(parts, store)
        except KilledError:
            assert stopped.is_dead
    before = split(store)
    for path in store.glob("ledger*"):
        path.unlink()
    with Store(store).locked(wait=False):
        rebuild_ledger(Store(store))
    if share == 1.0:
        assert split(store) == before
        assert verify_store(Store(store), sample=99).problems == ()
    go(parts, store)
    assert row_names(store) == sorted(names)
    assert verify_store(Store(store), sample=99).problems == ()
    if share == 1.0:
        assert cli_process.shards(store) == cli_process.shards(tmp_path / "whole")


def test_a_name_of_a_request_is_its_archive(tmp_path: Path) -> None:
    go(write(tmp_path / "parts", in_order(2)), tmp_path / "store")
    request = MaterializeRequest(source=str(tmp_path / "parts"), store=str(tmp_path / "store"))
    with opened(tmp_path / "store") as ledger:
        stream = ledger.cut.stream()
        assert stream is not None
        assert stream.is_finished
        assert ledger.setting("source") == request.source
        assert ledger.cut.video(VideoKey("id000000", "video000009")) is None
