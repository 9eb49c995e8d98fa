"""What leaves a node while it works, how soon, and what is taken of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.shard_builder import SCHEMA, clip

from voxblink2_lib.cluster.checkpoints import MOST_UNSAVED, SAVE_SECONDS, SAVE_VIDEOS, Checkpoints
from voxblink2_lib.errors import StoreDiskError
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.published.place import Place
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shards import make_rows, write_part

KEYS = [VideoKey("id000001", f"video{number:06}") for number in range(50)]
DIGESTS = {key: number for number, key in enumerate(KEYS)}


class JobOnNode:
    """A job of fifty videos in a store of its own, as a node has it."""

    def __init__(self, root: Path, url: str) -> None:
        self.now = 0.0
        self.store = Store(root)
        self.store.tmp.mkdir(parents=True)
        self.ledger = Ledger(self.store.ledger, "audio")
        self.ledger.add_jobs([KEYS])
        self.saved = Checkpoints(Place(url), self.store, self.ledger, 0, clock=lambda: self.now)

    def finish(self, *numbers: int, status: Any = "done") -> None:
        """Finish videos, as workers and the loop do."""
        for number in numbers:
            key = KEYS[number]
            outcome = Outcome(key, status, clips=int(status == "done"), digest=number)
            if status == "done":
                clips = [clip(number, video=key.video_id, data=b"clip")]
                rows = make_rows(clips, schema=SCHEMA, audio_format="wav", source="folder")
                path = self.store.part("audio", 0, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_part(path, rows, outcome)
            self.ledger.verdicts("folder").record(outcome)
            self.saved.note(has_clips=status == "done")
            self.saved.save_if_due()

    def statuses(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.statistics.videos().items() if count}

    def parts(self) -> int:
        return len([*self.store.job_parts("audio", 0).glob("*.arrow")])


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Any]:
    made: list[JobOnNode] = []

    def make() -> JobOnNode:
        node = JobOnNode(tmp_path / f"node{len(made)}", f"file://{tmp_path}/url")
        made.append(node)
        return node

    yield make
    for node in made:
        with node.saved:
            node.ledger.close()


def test_clips_and_failures_are_there_for_the_next_node(nodes: Any) -> None:
    first = nodes()
    first.finish(*range(10))
    first.finish(10, 11, status="gone")
    first.saved.save()
    second = nodes()
    assert second.saved.restore(DIGESTS) == 10
    assert second.parts() == 10
    # Of the others the part file has the outcome, which the loop reads.
    assert second.statuses() == {"done": 10, "gone": 2, "planned": 38}


def test_a_third_node_has_what_both_before_have_left(nodes: Any) -> None:
    first, second, third = nodes(), nodes(), nodes()
    first.finish(*range(5))
    first.finish(5, status="gone")
    first.saved.save()
    second.saved.restore(DIGESTS)
    second.finish(*range(10, 15))
    second.finish(15, status="private")
    second.saved.save()
    assert third.saved.restore(DIGESTS) == 10
    assert third.statuses()["gone"] == third.statuses()["private"] == 1


def test_few_videos_leave_after_some_minutes(nodes: Any) -> None:
    assert SAVE_SECONDS < 300
    first = nodes()
    first.finish(0)
    first.now = SAVE_SECONDS - 1
    first.saved.save_if_due()
    assert nodes().saved.restore(DIGESTS) == 0
    first.now = SAVE_SECONDS
    first.saved.save_if_due()
    first.saved.save()
    assert nodes().saved.restore(DIGESTS) == 1


def test_a_slow_network_stops_the_job_before_too_much_is_only_here(
    nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_UNSAVED <= 32
    free, upload = threading.Event(), Place.upload

    def slow_upload(*values: Any) -> str:
        free.wait()
        return upload(*values)

    monkeypatch.setattr(Place, "upload", slow_upload)
    first = nodes()
    first.finish(*range(MOST_UNSAVED - 1))  # all that may be finished meanwhile
    other = threading.Thread(target=lambda: first.saved.note(has_clips=True))
    other.start()
    other.join()
    waiting = threading.Thread(target=first.saved.save_if_due)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    free.set()
    waiting.join()
    assert nodes().saved.restore(DIGESTS) >= SAVE_VIDEOS


def test_what_was_cut_short_is_not_taken(nodes: Any, tmp_path: Path) -> None:
    first = nodes()
    first.finish(*range(6))
    first.finish(6, status="gone")
    first.saved.save()
    first.finish(7, status="private")
    first.saved.save()
    folder = tmp_path / "url" / "jobs" / "audio" / "00000"
    parts = sorted(folder.glob("*/*.arrow"))
    parts[0].write_bytes(parts[0].read_bytes()[:-20])
    parts[1].write_bytes(b"")
    parts[2].rename(parts[2].with_name("stranger.arrow"))
    last = max(folder.glob("*/*/*.parquet"))
    last.write_bytes(last.read_bytes()[:-1])
    second = nodes()
    assert second.saved.restore(DIGESTS) == 4
    # The file before the last one, which was cut short, is whole.
    assert second.statuses()["gone"] == 1
    assert "private" not in second.statuses()


def test_clips_by_other_annotations_are_not_taken(nodes: Any) -> None:
    first = nodes()
    first.finish(0, 1, 2)
    first.saved.save()
    assert nodes().saved.restore({**DIGESTS, KEYS[1]: 99}) == 2
    assert nodes().saved.restore({KEYS[0]: 0}) == 1


def test_an_upload_that_fails_is_an_error_of_the_job(
    nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreDiskError("the server is gone")

    monkeypatch.setattr(Place, "upload", fail)
    first = nodes()
    with pytest.raises(StoreDiskError, match="the server is gone"):
        first.finish(*range(2 * MOST_UNSAVED))
