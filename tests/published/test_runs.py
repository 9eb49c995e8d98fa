"""Runs that make a store at a URL: in a scratch store, which may be lost or another's."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support import cut_runs
from support.cli_process import run_any, run_inline, run_inline_json
from support.inline_pool import InlinePool
from support.plain_corpus import wav

from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.errors import StoreBusyError
from voxblink2_lib.materialize import jobs
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.published import session
from voxblink2_lib.published.manifest import Manifest
from voxblink2_lib.published.place import Place, Published
from voxblink2_lib.published.publisher import Publisher
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.store.ledger import Ledger

MEMORY = "memory://corpora/store"


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus, whose media may be changed."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


def words(corpus: Path, url: str, *more: object) -> tuple[object, ...]:
    return ("--data-dir", corpus, "--source", corpus / "media", "--store", url, *more)


def manifest_at(url: str) -> Manifest:
    manifest = Place(url).read().manifest
    assert manifest is not None
    return manifest


def shards_at(url: str) -> dict[str, bytes]:
    copy = open_published(url)
    names = [*manifest_at(url).shards("audio")]
    fetch_shards(url, copy, "audio", names)
    return {name: (copy.shards("audio") / name).read_bytes() for name in names}


def shards_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("shards/audio/*.arrow")}


class CountingPool(InlinePool):
    """Counts the videos that are cropped."""

    crops = 0

    def submit(self, call: Any) -> None:
        if call[0].__name__ == "run_video":
            CountingPool.crops += 1
        super().submit(call)


def test_a_run_makes_the_same_shards_at_a_url(corpus: Path, url: str, tmp_path: Path) -> None:
    run_inline("materialize", *words(corpus, str(tmp_path / "local")))
    status = run_inline_json("materialize", *words(corpus, url))
    assert status["store"] == url
    assert shards_at(url) == shards_in(tmp_path / "local")
    assert run_inline_json("status", "--store", url, "--config", "audio") == {
        **status,
        "sound": run_inline_json("status", "--store", url, "--config", "audio")["sound"],
    }


def test_a_store_whose_scratch_store_is_lost_is_taken_up(
    own_corpus: Path, memory: str, home: Path
) -> None:
    (late,) = (own_corpus / "media" / "id000002").glob("*5.wav")
    late.unlink()
    run_inline("materialize", *words(own_corpus, memory))
    before = manifest_at(memory)
    shutil.rmtree(home)
    late.write_bytes(wav())
    CountingPool.crops = 0
    result = run_any("materialize", "--store", memory, pool=CountingPool)
    assert result.returncode == 0, result.stderr
    assert "takes up generation" in result.stderr
    assert CountingPool.crops == 1
    after = manifest_at(memory)
    assert after.generation > before.generation
    sealed = {path: file for path, file in before.files.items() if path.endswith("0.arrow")}
    assert sealed.items() <= after.files.items()
    # Not downloaded: only what the run made is there, and all is in the catalogue.
    assert len(shards_in(scratch_store(memory, None).root)) == 1
    assert len(shards_at(memory)) == 6
    with Ledger(open_published(memory).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": 6}


def test_finished_videos_of_open_jobs_outlive_a_scratch_store(
    own_corpus: Path, memory: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedPool(CountingPool):
        def submit(self, call: Any) -> None:
            if CountingPool.crops == 4:
                raise KeyboardInterrupt
            super().submit(call)

    monkeypatch.setattr(jobs, "_SMALL_CORPUS_SHARDS", 1)
    CountingPool.crops = 0
    stopped = run_any("materialize", *words(own_corpus, memory), pool=StoppedPool)
    assert stopped.returncode == 3
    parts = manifest_at(memory).below("parts/")
    assert len(parts) == 4
    shutil.rmtree(home)
    CountingPool.crops = 0
    result = run_any("materialize", *words(own_corpus, memory), pool=CountingPool)
    assert result.returncode == 0, result.stderr
    assert CountingPool.crops == 2
    assert not manifest_at(memory).below("parts/")


def test_a_tail_is_superseded_by_who_has_no_shards(
    own_corpus: Path, memory: str, home: Path
) -> None:
    late = sorted((own_corpus / "media" / "id000002").glob("*.wav"))
    for path in late:
        path.unlink()
    run_inline("materialize", *words(own_corpus, memory))
    for path in late:
        shutil.rmtree(home)
        path.write_bytes(wav())
        run_inline("materialize", "--store", memory)
    assert len(late) == 2
    names = [*manifest_at(memory).shards("audio")]
    assert names == [f"audio-{number:05}.arrow" for number in (0, 1, 2, 3, 7)]
    assert len(manifest_at(memory).former) > 0


def test_what_is_finished_is_published_while_a_run_works(
    corpus: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PUBLISH_SECONDS", 0.0)
    monkeypatch.setattr(session, "_REST", 0.0)
    is_published = threading.Event()

    def publish(publisher: Publisher, **options: Any) -> bool:
        has_changed = real_publish(publisher, **options)
        is_published.set()
        return has_changed

    class WaitingPool(InlinePool):
        def submit(self, call: Any) -> None:
            super().submit(call)
            for _ in range(2):  # the first may have begun before
                is_published.clear()
                assert is_published.wait(30)

    real_publish = Publisher.publish
    monkeypatch.setattr(Publisher, "publish", publish)
    run_inline("materialize", *words(corpus, memory), pool=WaitingPool)
    assert manifest_at(memory).generation > 6
    assert len(shards_at(memory)) == 6


def test_a_load_that_finds_everything_writes_nothing(corpus: Path, memory: str) -> None:
    run_inline("materialize", *words(corpus, memory))
    before = dict(fsspec.filesystem("memory").store)
    request = MaterializeRequest.of(
        data_dir=corpus, source=str(corpus / "media"), store=memory, workers=1
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(fsspec.filesystem("memory")), "pipe_file", None)
        assert materialize(request, retry=False, wait=True).place == memory
    assert fsspec.filesystem("memory").store == before


def test_a_run_whose_url_another_process_publishes_to_ends(
    corpus: Path, memory: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PUBLISH_SECONDS", 0.0)

    def refused(*_: Any, **__: Any) -> bool:
        raise StoreBusyError("Another process publishes to it.")

    monkeypatch.setattr(Publisher, "publish", refused)

    interrupted = threading.Event()

    class SlowPool(InlinePool):
        def submit(self, call: Any) -> None:
            del call
            while True:  # until it is interrupted
                interrupted.wait(0.01)

    result = run_any("materialize", *words(corpus, memory), pool=SlowPool)
    assert result.returncode == 3
    assert "Another process publishes to it." in result.stderr


def test_another_scratch_store_is_used_where_it_is_named(
    corpus: Path, memory: str, tmp_path: Path, home: Path
) -> None:
    scratch = tmp_path / "fast disk" / "scratch"
    run_inline("materialize", *words(corpus, memory, "--scratch", scratch))
    assert (scratch / "ledger.sqlite").exists()
    assert not (home / "scratch").exists()
    # One that is not what is published is refused.
    other = tmp_path / "other"
    run_inline("materialize", *words(corpus, str(other)))
    result = run_any("materialize", *words(corpus, memory, "--scratch", other))
    assert result.returncode == 3
    assert "is not what is published at memory://corpora/store" in result.stderr


def test_other_commands_name_the_url(corpus: Path, memory: str) -> None:
    run_inline("materialize", *words(corpus, memory))
    result = run_any("repair", "--store", memory)
    assert result.returncode == 2
    assert "memory://corpora/store is a URL, which is not possible here" in result.stderr
    run_inline("retry", "--store", memory, "--class", "gone")
    run_inline("index", "--data-dir", corpus, "--store", memory)


def test_cut_audio_is_taken_up_from_any_generation(memory: str, home: Path, tmp_path: Path) -> None:
    source = cut_runs.write(tmp_path / "parts", cut_runs.in_order(36))
    system = fsspec.filesystem("memory")
    generations: list[dict[str, bytes]] = []

    def commit(place: Place, manifest: Manifest, base: Published) -> Published:
        answer = real_commit(place, manifest, base)
        generations.append({path: file.getvalue() for path, file in system.store.items()})
        return answer

    class KnownPublisher(Publisher):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            publishers.append(self)

    def save(points: SeekPoints, *words: Any) -> None:
        real_save(points, *words)
        publishers[-1].publish()  # right after a commit

    real_save = SeekPoints.save
    publishers: list[Publisher] = []
    real_commit = Place.commit
    with cut_runs.small():
        cut_runs.go(source, tmp_path / "local")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Place, "commit", commit)
            patched.setattr(session, "Publisher", KnownPublisher)
            patched.setattr(SeekPoints, "save", save)
            materialize(request_of(source, memory), retry=True, wait=False)
        expected = shards_in(tmp_path / "local")
        assert shards_at(memory) == expected
        assert any("/parts/audio/" in path for files in generations for path in files)
        steps = {0, len(generations) // 3, 2 * len(generations) // 3, len(generations) - 1}
        for generation in sorted(steps):
            shutil.rmtree(home)
            system.store.clear()
            for path, content in generations[generation].items():
                if not path.endswith("publisher.lease"):
                    system.pipe_file(path, content)
            materialize(request_of(source, memory), retry=True, wait=False)
            assert shards_at(memory) == expected


def request_of(source: Path, url: str) -> MaterializeRequest:
    return MaterializeRequest.of(source=str(source), store=url, workers=1)
