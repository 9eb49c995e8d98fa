"""A corpus that is made in slices by machines that share nothing but the published store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from datasets import Audio, load_dataset
from support.cli_process import run_any, run_inline, run_inline_json
from support.faulty_bucket import faulty_bucket
from support.inline_pool import InlinePool
from support.plain_corpus import wav

import voxblink2
from voxblink2_lib.errors import StoreDamagedError, StoreMismatchError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.published.scratch import last_manifest, scratch_store
from voxblink2_lib.published.slices import CommonPlan, agree, slice_manifests
from voxblink2_lib.store.job_slices import JobSlice
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.training import Corpus, Reader

assert voxblink2  # registers the builder
SLICES = 3


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def memory() -> Iterator[str]:
    fsspec.filesystem("memory").store.clear()
    yield "memory://corpora/store"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus, whose media may be changed."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


def words(corpus: Path, url: object, number: int, *more: object) -> tuple[object, ...]:
    """Options of a run that makes a slice of three."""
    places = ("--data-dir", corpus, "--source", corpus / "media", "--store", url)
    return (*places, "--shard-of-jobs", f"{number}/{SLICES}", "--workers", 1, *more)


def make_slices(
    corpus: Path, url: object, numbers: Iterator[int] | range | tuple[int, ...]
) -> None:
    for number in numbers:
        run_inline("materialize", *words(corpus, url, number))


def shards_at(url: str) -> dict[str, bytes]:
    copy = open_published(url)
    manifest = last_manifest(copy)
    assert manifest is not None
    names = [*manifest.shards("audio")]
    fetch_shards(url, copy, "audio", names)
    return {name: (copy.shards("audio") / name).read_bytes() for name in names}


def shards_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("shards/audio/*.arrow")}


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in dataset.cast_column("audio", Audio(decode=False))]


@pytest.fixture
def sliced(url: str, corpus: Path) -> str:
    """A store in three slices, at a URL of each kind."""
    make_slices(corpus, url, (2, 3, 1))
    return url


def test_the_slices_together_are_what_one_machine_makes(
    sliced: str, made: Path, corpus: Path
) -> None:
    assert shards_at(sliced) == shards_in(made)
    for number in range(1, SLICES + 1):
        names = [*shards_at(f"{sliced}/slices/00{number}-of-003")]
        assert names == [f"audio-{job:05}.arrow" for job in (number - 1, number + 2)]
    request = MaterializeRequest.of(data_dir=corpus, source=str(corpus / "media"), store=sliced)
    # Nothing is left to do: it is a complete store as any other.
    assert materialize(request, retry=False, wait=False).place == sliced


def test_commands_see_the_union(corpus: Path, memory: str, made: Path, tmp_path: Path) -> None:
    make_slices(corpus, memory, (3, 2, 1))
    there = run_inline_json("status", "--store", memory, "--config", "audio", "--missing")
    here = run_inline_json("status", "--store", made, "--config", "audio", "--missing")
    for name in ("videos", "utterances", "speakers", "shards", "missing"):
        assert there[name] == here[name], name
    there = run_inline_json("verify", "--store", memory, "--config", "audio")
    assert there == {
        **run_inline_json("verify", "--store", made, "--config", "audio"),
        "store": memory,
    }
    difference = run_inline_json("diff", memory, made)
    assert [each["reasons"] for each in difference["configs"].values()] == [[]]
    page = tmp_path / "report.html"
    assert run_inline_json("report", "--store", memory, "--out", page)["store"] == memory
    chosen = ("--validation-speakers", 1, "--seed", 3, "--out", tmp_path / "validation.txt")
    there = run_inline_json("split", "--store", memory, *chosen)
    assert there == {**run_inline_json("split", "--store", made, *chosen), "store": memory}
    clips = []
    for name, store in (("a", memory), ("b", made)):
        target = tmp_path / name
        run_inline("export", "folder", "--store", store, "--to", target)
        files = sorted(target.rglob("*.flac"))
        clips.append({path.relative_to(target): path.read_bytes() for path in files})
    assert clips[0] == clips[1]
    assert len(clips[0]) == 6


def test_it_is_loaded_streamed_and_opened_for_training(
    sliced: str, made: Path, tmp_path: Path
) -> None:
    here = rows_of(load_dataset("voxblink2", "audio", store=str(made), split="train"))
    stream = load_dataset("voxblink2", "audio", store=sliced, split="train", streaming=True)
    assert rows_of(stream) == here
    loaded = load_dataset("voxblink2", "audio", store=sliced, split="train")
    assert rows_of(loaded) == here
    ours, theirs = Corpus.open(made), Corpus.open(sliced, cache_dir=tmp_path / "pieces")
    assert theirs.names() == ours.names()
    for row in range(len(ours)):
        assert Reader(theirs).encoded(row) == Reader(ours).encoded(row)


def test_a_folder_that_all_machines_see(corpus: Path, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared folder"
    make_slices(corpus, folder, (1, 2))
    status = run_inline_json("status", "--store", folder, "--config", "audio")
    assert status["videos"] == {"done": 4}
    rows = load_dataset("voxblink2", "audio", store=str(folder), split="train")
    assert len(rows) == 4
    assert len(Corpus.open(str(folder), cache_dir=tmp_path / "pieces")) == 4
    make_slices(corpus, folder, (3,))
    assert shards_at(str(folder)) == shards_in(made)
    assert run_inline_json("verify", "--store", folder, "--config", "audio")["shards"] == 6
    one = run_inline_json("status", "--store", folder / "slices/002-of-003", "--config", "audio")
    assert one["videos"] == {"done": 2}


def test_what_is_published_so_far_is_read(corpus: Path, memory: str) -> None:
    make_slices(corpus, memory, (2,))
    assert run_inline_json("status", "--store", memory, "--config", "audio")["videos"] == {
        "done": 2
    }
    request = MaterializeRequest.of(data_dir=corpus, source=str(corpus / "media"), store=memory)
    with pytest.raises(StoreMismatchError, match="made in 3 slices"):
        materialize(request, retry=False, wait=False)


def test_recovered_videos_stay_in_their_slice(own_corpus: Path, memory: str, home: Path) -> None:
    late = sorted((own_corpus / "media").rglob("*.wav"))[SLICES:]
    for path in late:
        path.unlink()
    make_slices(own_corpus, memory, (1, 2, 3))
    names = {}
    for path in late:
        path.write_bytes(wav())
    for number in range(1, SLICES + 1):
        shutil.rmtree(home)
        # With the place of the slice alone, the next run goes on with it.
        run_inline("materialize", "--store", f"{memory}/slices/00{number}-of-003")
        names[number] = [*shards_at(f"{memory}/slices/00{number}-of-003")]
    numbers = {number: [int(name[6:11]) for name in names[number]] for number in names}
    assert all(job % SLICES == number - 1 for number in numbers for job in numbers[number])
    assert len(shards_at(memory)) == sum(map(len, numbers.values()))
    with Ledger(open_published(memory).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": 6}
    run_inline("verify", "--store", memory)


def test_retry_works_within_a_slice(own_corpus: Path, memory: str) -> None:
    (late,) = (own_corpus / "media" / "id000001").glob("*2.wav")
    late.unlink()
    make_slices(own_corpus, memory, (3,))
    late.write_bytes(wav())
    chosen = ("--shard-of-jobs", "3/3", "--class", "gone")
    result = run_inline("retry", "--store", memory, *chosen)
    assert "1 video was retried." in result.stderr
    assert [*shards_at(memory)] == ["audio-00005.arrow", "audio-00008.arrow"]


# -- Two machines ----------------------------------------------------------------------------------


def test_a_slice_given_to_two_machines_is_made_once(
    corpus: Path, url: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UrlLease, "beat_seconds", 0.05)  # the second looks for beats
    second: list[Any] = []

    class Pool(InlinePool):
        def submit(self, call: Any) -> None:
            if not second:
                other = words(corpus, url, 2, "--scratch", tmp_path / "other")
                second.append(None)
                second[:] = [run_any("materialize", *other, pool=InlinePool)]
            super().submit(call)

    run_inline("materialize", *words(corpus, url, 2, "--scratch", tmp_path / "one"), pool=Pool)
    assert second[0].returncode == 3
    assert "Another process publishes to" in second[0].stderr
    both = shards_in(made)
    assert shards_at(url) == {name: both[name] for name in shards_at(url)}
    # Later it takes up what the first has made, and has nothing to do.
    run_inline("materialize", *words(corpus, url, 2, "--scratch", tmp_path / "other"))
    assert not shards_in(tmp_path / "other")
    # The first one, or what is left of it, may go on, since nothing was made meanwhile.
    run_inline("materialize", *words(corpus, url, 2, "--scratch", tmp_path / "one"))
    assert len(shards_at(url)) == 2


def test_a_machine_that_was_away_writes_over_nothing(
    own_corpus: Path, memory: str, tmp_path: Path
) -> None:
    (late,) = (own_corpus / "media" / "id000001").glob("*2.wav")
    late.unlink()
    run_inline("materialize", *words(own_corpus, memory, 3, "--scratch", tmp_path / "one"))
    late.write_bytes(wav())
    run_inline("materialize", *words(own_corpus, memory, 3, "--scratch", tmp_path / "other"))
    after = shards_at(memory)
    result = run_any("materialize", *words(own_corpus, memory, 3, "--scratch", tmp_path / "one"))
    assert result.returncode == 3
    assert "is not what is published" in result.stderr
    assert shards_at(memory) == after


def test_of_two_first_slices_one_plan_holds(url: str) -> None:
    place = Place(url)
    plan = CommonPlan(3, "release", "selection", {"audio_format": "flac"})
    agree(place, "audio", plan)
    agree(place, "audio", plan)
    other = CommonPlan(3, "release", "other", {"audio_format": "wav"})
    with pytest.raises(StoreMismatchError, match="selection, clips differ"):
        agree(place, "audio", other)
    assert place.sizes().keys() == {"slices/audio.json"}


# -- What is refused -------------------------------------------------------------------------------


def refused(*given: object) -> str:
    result = run_any("materialize", *given)
    assert result.returncode == 2, result.stderr
    return result.stderr


def test_another_number_of_slices_is_refused(corpus: Path, memory: str) -> None:
    make_slices(corpus, memory, (1,))
    before = dict(fsspec.filesystem("memory").store)
    given = words(corpus, memory, 1)
    message = refused(*given, "--shard-of-jobs", "1/2")
    assert "is made in 3 slices, and 1/2 was named. Nothing was changed." in message
    assert "Name one of 1/3 to 3/3" in message
    message = refused(*given[:6])
    assert "--shard-of-jobs, from 1/3 to 3/3" in message
    assert fsspec.filesystem("memory").store == before
    assert not scratch_store(memory, None).root.exists()


def test_what_differs_from_the_other_slices_is_refused(corpus: Path, memory: str) -> None:
    make_slices(corpus, memory, (1,))
    message = refused(*words(corpus, memory, 2, "--audio-format", "wav"))
    assert "clips differ. Nothing was changed." in message
    message = refused(*words(corpus, memory, 2, "--max-videos-per-speaker", 1))
    assert "differ. Nothing was changed." in message
    message = refused(*words(corpus, memory, 1, "--max-videos-per-speaker", 1))
    assert "are of another selection than this run" in message
    assert [*slice_manifests(Place(memory))] == [JobSlice(1, 3)]
    make_slices(corpus, memory, (2,))


def test_more_slices_than_jobs_are_refused(corpus: Path, memory: str) -> None:
    message = refused(*words(corpus, memory, 1), "--shard-of-jobs", "7/7")
    assert "6 selected videos make 6 jobs, too few for 7 slices" in message
    assert not fsspec.filesystem("memory").store


def test_a_store_in_one_piece_takes_no_slice(corpus: Path, memory: str) -> None:
    given = words(corpus, memory, 1)
    run_inline("materialize", *given[:6])
    assert "was made in one piece, not in slices" in refused(*given)


def test_other_wrong_uses(corpus: Path, memory: str, tmp_path: Path) -> None:
    given = words(corpus, memory, 1)
    assert "needs a store that all machines see" in refused(*given[:4], "--shard-of-jobs", "1/3")
    assert "SLURM_ARRAY_TASK_ID is not set" in refused(*given[:6], "--shard-of-jobs", "slurm")
    assert "'x' is no slice of the jobs" in refused(*given[:6], "--shard-of-jobs", "x")
    place = f"{memory}/slices/002-of-003"
    message = refused(*given[:4], "--store", place, "--shard-of-jobs", "1/3")
    assert "is that of the slice 2/3, and 1/3 was named" in message


def test_a_task_of_an_array_makes_its_slice(
    corpus: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"ID": 12, "MIN": 10, "MAX": 14, "STEP": 2, "COUNT": 3}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    given = words(corpus, memory, 1)
    run_inline("materialize", *given[:6], "--shard-of-jobs", "slurm")
    assert [*slice_manifests(Place(memory))] == [JobSlice(2, 3)]


def test_a_damaged_plan_is_told(corpus: Path, memory: str) -> None:
    make_slices(corpus, memory, (1,))
    fsspec.filesystem("memory").pipe_file(f"{memory}/slices/audio.json", b'{"format": 9}')
    with pytest.raises(StoreDamagedError, match=r"slices/audio.json cannot be used"):
        open_published(memory)


def test_slices_from_which_something_was_purged_go_on(corpus: Path, memory: str) -> None:
    make_slices(corpus, memory, (1, 2, 3))
    for number in range(1, SLICES + 1):
        place = f"{memory}/slices/00{number}-of-003"
        run_inline("purge", "id000000", "--store", scratch_store(place, None).root)
        run_inline("materialize", "--store", place)
    with Ledger(open_published(memory).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": 4}
    run_inline("verify", "--store", memory)
    numbers = [int(name[6:11]) for name in shards_at(f"{memory}/slices/001-of-003")]
    assert all(number % SLICES == 0 for number in numbers)


@pytest.mark.parametrize("there", [(1, 2, 3), (1, 3)])
def test_a_purge_is_of_all_slices(corpus: Path, url: str, there: tuple[int, ...]) -> None:
    make_slices(corpus, url, there)
    open_published(url)  # a copy, of which nothing may stay
    dry = run_inline_json("purge", "id000000", "--store", url, "--dry-run", code=1)
    clips = sum(done["clips"] for done in dry["slices"])
    done = run_inline_json("purge", "id000000", "--store", url, code=int(len(there) < SLICES))
    assert done["unpublished"] == SLICES - len(there)
    assert sum(part["clips"] for part in done["slices"]) == clips > 0
    system, path = fsspec.core.url_to_fs(url)
    for name in system.find(path):
        assert b"id000000" not in system.cat_file(name), name
    with Ledger(open_published(url).ledger, "audio", readonly=True) as ledger:
        assert "id000000" not in ledger.planned_videos()["speaker_id"].to_pylist()
    if len(there) < SLICES:
        shown = run_inline("purge", "id000000", "--store", url, code=1).stdout
        assert "Slices   1 of 3 are not published yet, and would make it again" in shown


def test_a_purge_of_slices_has_no_scratch_store_of_its_own(corpus: Path, memory: str) -> None:
    make_slices(corpus, memory, (1,))
    refused = run_inline("purge", "id000000", "--store", memory, "--scratch", "x", code=2)
    assert f"name the URL of a slice with --store: {memory}/slices/001-of-003" in refused.stderr


def test_a_plan_whose_answer_was_lost_is_known_for_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = CommonPlan(3, "release", "selection", {})
    with faulty_bucket(monkeypatch) as faults:
        place = Place("s3://bucket/corpora/store")
        put = "PUT /bucket/corpora/store/slices/audio.json"
        faults.lost = lambda name: name == put and faults.seen.count(put) == 1
        agree(place, "audio", plan)
        assert faults.seen.count(put) > 1
        faults.lost = lambda _: False
        # Every other first request of a kind is refused once.
        faults.seen.clear()
        faults.refused = lambda name: faults.seen.count(name) == 1
        agree(place, "audio", plan)
        with pytest.raises(StoreMismatchError, match="slices differ"):
            agree(place, "audio", CommonPlan(4, "release", "selection", {}))
