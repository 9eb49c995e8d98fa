"""A data set for others: whole at any time, read without this library, and nothing sent twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.cli_process import rows as stored_rows
from support.cli_process import run_inline, run_inline_json
from support.exported import clips_of, materialize
from support.hub_server import Hub
from support.speaker_files import write_speakers

from voxblink2_lib.errors import StoreBusyError, StoreDiskError, StoreError
from voxblink2_lib.hub import run as run_file
from voxblink2_lib.hub.plan import PublishRequest, plan_publication
from voxblink2_lib.hub.present import find_repository, look_at
from voxblink2_lib.hub.run import Publication, publish
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.release.tombstones import PurgedIds, Tombstones
from voxblink2_lib.store.layout import Store

# Of the Hub's client, when it sends a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

NAME = "me/clips"
PLACE = f"hf://datasets/{NAME}"
IDS = ("speaker_id", "video_id", "utterance_id")
# What others run. An import of this library, or of the builder, ends it.
OTHERS = """
import json, sys
sys.modules["voxblink2"] = sys.modules["voxblink2_lib"] = None
from datasets import load_dataset
name, out, *configs = sys.argv[1:]
read = {}
for config in configs:
    stream = load_dataset(name, config, split="train", streaming=True)
    kinds = {column: type(kind).__name__ for column, kind in stream.features.items()}
    rows = list(stream.decode(False))
    for row in rows:
        media = [column for column in ("audio", "video") if column in row]
        row.update({column: row[column]["bytes"].hex() for column in media})
    read[config] = {"kinds": kinds, "rows": rows}
default = next(iter(load_dataset(name, split="train", streaming=True)))
read["samples"] = list(default["audio"].get_all_samples().data.shape)
json.dump(read, open(out, "w"))
"""


def published(store: Path, config: str = "audio") -> Publication:
    repository = find_repository(PLACE, "dataset")
    present = look_at(repository, is_public=False)
    return publish(plan_publication(PublishRequest(Store(store), config, repository, present)))


def data_files(hub: Hub, split: str = "train", name: str = NAME) -> dict[str, bytes]:
    files = hub.repos[name].files
    return {path: files[path] for path in sorted(files) if f"/{split}/" in path}


def rows_of(files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    for content in files.values():
        yield from pq.read_table(io.BytesIO(content)).to_pylist()


def clips_on(hub: Hub, split: str = "train") -> dict[str, bytes]:
    rows = rows_of(data_files(hub, split))
    return {"/".join(row[name] for name in IDS): row["audio"]["bytes"] for row in rows}


def as_others(hub: Hub, tmp_path: Path, *configs: str) -> dict[str, Any]:
    """Stream the data set in a process that has ``datasets`` and not this library."""
    out = tmp_path / "read.json"
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "others"), "HF_HUB_DISABLE_XET": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-W", "ignore", "-c", OTHERS, NAME, str(out), *configs]
    subprocess.run(command, check=True, env={**kept, **own}, cwd=tmp_path)
    return dict(json.loads(out.read_text()))


def by_name(rows: list[dict[str, Any]], column: str) -> dict[str, bytes]:
    return {"/".join(row[name] for name in IDS): bytes.fromhex(row[column]) for row in rows}


def test_others_stream_it_without_this_library(hub: Hub, store: Path, tmp_path: Path) -> None:
    """Both configurations, of two stores; without a name, the audio."""
    faces = tmp_path / "faces"
    words = ("--data-dir", "demo", "--source", MEDIA, "--store", faces, "--speakers", "id990003")
    run_inline("materialize", "--config", "audio-visual", "--video-size", 32, *words)
    record = run_inline_json("publish", PLACE, "--store", store)
    assert (record["uploaded"], record["utterances"], record["is_public"]) == (3, 14, False)
    run_inline("publish", PLACE, "--store", faces)
    assert hub.repos[NAME].is_private
    read = as_others(hub, tmp_path, "audio", "audio-visual")
    assert read["samples"] == [1, 19_200]
    assert (read["audio"]["kinds"]["audio"], read["audio-visual"]["kinds"]["video"]) == (
        "Audio",
        "Video",
    )
    audio, both = read["audio"]["rows"], read["audio-visual"]["rows"]
    assert by_name(audio, "audio") == clips_of(store)
    assert by_name(both, "audio") == clips_of(faces, "audio-visual")
    videos = [row["video"]["bytes"] for row in stored_rows(faces, "audio-visual")]
    assert [*by_name(both, "video").values()] == videos
    assert [row["boxes"] for row in both] == [
        row["boxes"] for row in stored_rows(faces, "audio-visual")
    ]
    texts = {row["transcript"] for row in audio}
    assert texts == {None, '=1/2, and "more"', "good\u2028night"}


def test_a_reader_need_not_read_much(hub: Hub, store: Path) -> None:
    published(store)
    for content in data_files(hub).values():
        file = pq.ParquetFile(io.BytesIO(content))
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        assert all(group.num_rows <= 100 for group in groups)
        assert all(group.column(0).has_offset_index for group in groups)


def test_what_was_uploaded_before_a_kill_is_not_sent_again(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = run_file._upload_file
    sent: list[int] = []

    def killed(*arguments: Any) -> int:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(1)
        return upload(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run_file, "_upload_file", killed)
        with pytest.raises(KeyboardInterrupt):
            published(store)
    assert hub.repos[NAME].files == {}  # nobody sees a part
    assert len(hub.uploads) == 2
    published(store)
    assert clips_on(hub) == clips_of(store)
    assert len(hub.uploads) == len(set(hub.uploads))


def test_large_files_are_not_read_into_memory(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_file, "SMALL_BYTES", 0)
    published(store)
    assert clips_on(hub) == clips_of(store)


def test_a_killed_commit_is_made_again(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.published.repository.Repository.commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            published(store)
    before = list(hub.uploads)
    assert published(store).uploaded == 3
    assert hub.uploads == before


def interrupted(*_: object, **__: object) -> str:
    raise KeyboardInterrupt


def test_nothing_new_is_no_commit(hub: Hub, store: Path) -> None:
    published(store)
    commit, uploads = hub.repos[NAME].commit, list(hub.uploads)
    again = published(store)
    assert (again.uploaded, again.kept, again.removed) == (0, 3, 0)
    assert (hub.repos[NAME].commit, hub.uploads) == (commit, uploads)


def test_new_clips_are_added_to_what_is_there(hub: Hub, made: Path, tmp_path: Path) -> None:
    corpus, store = made.parent / "corpus", tmp_path / "store"
    materialize(corpus, store, "--max-videos-per-speaker", 3)
    published(store)
    before, sent = data_files(hub), set(hub.uploads)
    materialize(corpus, store)
    after = published(store)
    assert after.kept == len(before)
    assert before.items() <= data_files(hub).items()
    assert clips_on(hub) == clips_of(store)
    assert len(hub.uploads) == len(set(hub.uploads))
    assert sent <= set(hub.uploads)


@pytest.mark.parametrize("video", ["video000000", "video000003"])
def test_what_was_purged_is_gone_from_the_history_too(hub: Hub, store: Path, video: str) -> None:
    """One of them has a transcript, whose table is shared by all files."""
    published(store)
    before = data_files(hub)
    run_inline("purge", video, "--store", store, "--reason", "asked")
    after = published(store)
    assert (after.uploaded, after.kept, after.removed, after.erased) == (1, 2, 1, 1)
    assert clips_on(hub) == clips_of(store)
    assert len(before.items() & data_files(hub).items()) == 2
    everywhere = [*hub.repos[NAME].files.values(), *hub.large_files.values()]
    assert not any(video.encode() in content for content in everywhere)
    assert b"were removed on request" in hub.repos[NAME].files["README.md"]


def test_a_transcript_that_comes_later_changes_only_its_file(
    hub: Hub, made: Path, store: Path
) -> None:
    published(store)
    corpus = Path(shutil.copytree(made.parent / "corpus", store.parent / "corpus"))
    texts = {"id000000/video000001/00001.wav": {"text": "other words", "language": "en"}}
    write_speakers(corpus, "asr_res", {"id000000": json.dumps(texts)})
    run_inline("index", "--data-dir", corpus, "--store", store)
    after = published(store)
    assert (after.uploaded, after.kept, after.removed) == (1, 2, 1)
    assert "other words" in {row["transcript"] for row in rows_of(data_files(hub))}
    assert b"- en" in hub.repos[NAME].files["README.md"]


def test_a_store_that_is_half_purged_is_refused(hub: Hub, store: Path) -> None:
    purged = PurgedIds(videos=frozenset({"video000003"}))
    Tombstones.of(store).added(purged, reason="").begun().write(store)
    done = run_inline("publish", PLACE, "--store", store, code=2)
    assert "the purge was stopped before its end" in done.stderr
    assert not hub.uploads


def test_transcripts_that_change_meanwhile(
    hub: Hub, made: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Path(shutil.copytree(made.parent / "corpus", store.parent / "corpus"))
    upload = run_file._upload_file

    def late(*arguments: Any) -> int:
        write_speakers(corpus, "asr_res", {"id000000": "00001 other words"})
        run_inline("index", "--data-dir", corpus, "--store", store)
        return upload(*arguments)

    monkeypatch.setattr(run_file, "_upload_file", late)
    with pytest.raises(StoreError, match="has changed the transcripts"):
        published(store)
    assert hub.repos[NAME].files == {}


def test_a_file_that_somebody_deleted_is_made_again(hub: Hub, store: Path) -> None:
    published(store)
    path = next(iter(data_files(hub)))
    del hub.repos[NAME].files[path]
    assert published(store).uploaded == 1
    assert clips_on(hub) == clips_of(store)


def test_no_speaker_is_in_both_splits(hub: Hub, store: Path, tmp_path: Path) -> None:
    split = tmp_path / "validation.txt"
    run_inline("split", "--validation-speakers", 1, "--store", store, "--out", split)
    run_inline("publish", PLACE, "--store", store, "--validation", split)
    train, validation = clips_on(hub), clips_on(hub, "validation")
    assert train | validation == clips_of(store)
    speakers = [{name.split("/")[0] for name in part} for part in (train, validation)]
    assert speakers[0].isdisjoint(speakers[1])
    assert "- split: validation" in hub.repos[NAME].files["README.md"].decode()


def test_another_publication_meanwhile_is_a_conflict(hub: Hub, store: Path) -> None:
    repository = find_repository(PLACE, "dataset")
    present = look_at(repository, is_public=False)
    published(store)
    commit = hub.repos[NAME].commit
    run_inline("purge", "video000003", "--store", store)
    late = plan_publication(PublishRequest(Store(store), "audio", repository, present))
    with pytest.raises(StoreBusyError, match=r"has published audio to .* meanwhile"):
        publish(late)
    assert hub.repos[NAME].commit == commit


def test_a_commit_of_the_owner_meanwhile_is_none(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card may be edited on the Hub, at any moment."""
    edit = run_file._add_card
    edits: list[str] = []

    def edited(*arguments: Any) -> None:
        edit(*arguments)
        if not edits:
            edits.append("once")
            repo = hub.repos[NAME]
            card = b"---\nextra_gated_prompt: Why?\n---\nWritten by its owner."
            hub.repos[NAME] = repo._replace(files={"README.md": card}, commit="1" * 40)

    monkeypatch.setattr(run_file, "_add_card", edited)
    published(store)
    card = hub.repos[NAME].files["README.md"].decode()
    assert "extra_gated_prompt: Why?" in card
    assert card.endswith("Written by its owner.\n")
    assert clips_on(hub) == clips_of(store)


def test_a_lost_answer_to_a_commit(hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxblink2_lib.published.repository import Repository

    commit = Repository.commit

    def unheard(self: Repository, *words: str, **options: Any) -> str:
        commit(self, *words, **options)
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(Repository, "commit", unheard)
    assert published(store).commit == hub.repos[NAME].commit
    assert clips_on(hub) == clips_of(store)


def test_a_hub_that_fails_says_that_it_goes_on(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise ConnectionError("no answer")

    monkeypatch.setattr("voxblink2_lib.published.repository.Repository.commit", refused)
    with pytest.raises(StoreDiskError, match="data set hf://datasets/me/clips cannot be published"):
        published(store)
