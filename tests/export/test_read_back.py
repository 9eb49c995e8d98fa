"""Each export is read by the library that it is for: same utterances, same samples, same bytes."""

from __future__ import annotations

import contextlib
import csv
import gc
import glob
import json
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import datasets
import kaldiio
import lhotse
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import webdataset
from support.exported import (
    Samples,
    assert_equal_samples,
    clips_of,
    content,
    export_to,
    make_store,
    materialize,
    samples_of,
)
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.release.selection import Selection

TEXT = '=1/2, and "more"'
NAME = "id000000/video000000/00001"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two speakers, transcripts of two utterances; not to be changed."""
    return make_store(tmp_path_factory.mktemp("exports"))


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@contextlib.contextmanager
def leaking() -> Iterator[None]:
    """Let a reader leave its files to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def table(path: Path) -> dict[str, str]:
    """A list of Kaldi's: a key, and what is after the first space."""
    return dict(line.split(" ", 1) for line in lines(path))


def check_kaldi_lists(folder: Path, store: Path) -> None:
    """Check utt2spk, spk2utt and utt2dur as ``utils/validate_data_dir.sh`` does."""
    speakers = table(folder / "utt2spk")
    assert speakers == {name: name.split("/")[0] for name in clips_of(store)}
    for name in ("utt2spk", "spk2utt", "utt2dur"):
        assert lines(folder / name) == sorted(lines(folder / name))
    turned = {
        utterance: speaker
        for speaker, utterances in table(folder / "spk2utt").items()
        for utterance in utterances.split()
    }
    assert turned == speakers
    assert set(table(folder / "utt2dur").values()) == {"1.2000"}


def test_kaldi(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "kaldi")
    read = dict(kaldiio.load_scp(str(tmp_path / "wav.scp")).items())
    assert {rate for rate, _ in read.values()} == {SAMPLE_RATE_HZ}
    assert_equal_samples({name: samples for name, (_, samples) in read.items()}, store)
    check_kaldi_lists(tmp_path, store)
    assert lines(tmp_path / "wav.scp") == sorted(lines(tmp_path / "wav.scp"))
    archives = {
        name: samples
        for path in (tmp_path / "wav").glob("*.ark")
        for name, (_, samples) in kaldiio.load_ark(str(path))
    }
    assert_equal_samples(archives, store)


def test_kaldi_with_segments(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "kaldi", segments=True)
    places = {"segments": str(tmp_path / "segments")}
    read = kaldiio.load_scp(str(tmp_path / "wav.scp"), **places)
    assert_equal_samples({name: samples for name, (_, samples) in read.items()}, store)
    check_kaldi_lists(tmp_path, store)


def wespeaker_samples(shard_list: Path) -> Iterator[tuple[str, str, Samples]]:
    """Read shards as WeSpeaker's ``tar_file_and_group`` does: key, speaker, samples.

    A member's name is a key up to its last dot; members of one key follow each other.
    """
    for path in lines(shard_list):
        with tarfile.open(path, "r|*") as archive:
            groups: dict[str, dict[str, bytes]] = {}
            for member in archive:
                key, _, kind = member.name.rpartition(".")
                assert key not in list(groups)[:-1], "members of a key are apart"
                file = archive.extractfile(member)
                assert file is not None
                groups.setdefault(key, {})[kind] = file.read()
        for key, group in groups.items():
            assert list(group) == ["spk", "flac"]
            yield key, group["spk"].decode().strip(), samples_of(group["flac"])


def test_wespeaker(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "wespeaker")
    read = list(wespeaker_samples(tmp_path / "shard.list"))
    assert_equal_samples({key: samples for key, _, samples in read}, store)
    assert {key: speaker for key, speaker, _ in read} == table(tmp_path / "utt2spk")
    check_kaldi_lists(tmp_path, store)


def test_webdataset(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "webdataset")
    urls = sorted(glob.glob(f"{tmp_path}/*.tar"))
    assert lines(tmp_path / "shard.list") == urls
    with leaking():
        read = {row["__key__"]: row for row in webdataset.WebDataset(urls, shardshuffle=False)}
    assert {name: row["flac"] for name, row in read.items()} == clips_of(store)
    assert json.loads(read[NAME]["json"]) == {
        "speaker_id": "id000000",
        "video_id": "video000000",
        "utterance_id": "00001",
        "start_seconds": 0.0,
        "end_seconds": 1.2,
        "source": "folder",
        "transcript": TEXT,
        "language": None,
    }


def test_lhotse(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "lhotse")
    with leaking():
        cuts = list(lhotse.CutSet.from_shar(in_dir=str(tmp_path / "shar")))
    for cut in cuts:
        lhotse.validate(cut)
        assert cut.supervisions[0].speaker == cut.id.split("/")[0]
        assert (cut.start, cut.duration, cut.num_samples) == (0, 1.2, 19_200)
    heard = {cut.id: cut.load_audio()[0] for cut in cuts}
    as_int16 = {name: (audio * 2**15).astype(np.int16) for name, audio in heard.items()}
    assert_equal_samples(as_int16, store)
    first = next(cut for cut in cuts if cut.id == NAME)
    assert first.supervisions[0].text == TEXT
    assert first.custom["end_seconds"] == 1.2


def test_nemo(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "nemo")
    entries = [json.loads(line) for line in lines(tmp_path / "manifest.json")]
    read = {}
    for entry in entries:  # as its datasets do: a relative path is below the folder of the list
        samples, rate = soundfile.read(tmp_path / entry["audio_filepath"], dtype="int16")
        assert (len(samples), rate) == (entry["duration"] * rate, SAMPLE_RATE_HZ)
        assert entry["label"] == entry["audio_filepath"].split("/")[1]
        read[entry["audio_filepath"].removeprefix("audio/").removesuffix(".flac")] = samples
    assert_equal_samples(read, store)
    assert [entry.get("text") for entry in entries[:3]] == [TEXT, "good\u2028night", None]


def test_csv(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "csv")
    with open(tmp_path / "utterances.csv", encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    for entry in entries:
        ids = (entry["speaker_id"], entry["video_id"], entry["utterance_id"])
        assert entry["path"] == f"audio/{'/'.join(ids)}.flac"
    read = {
        entry["path"][len("audio/") : -len(".flac")]: (tmp_path / entry["path"]).read_bytes()
        for entry in entries
    }
    assert read == clips_of(store)
    # No spreadsheet evaluates it, and no line ends in it.
    assert [entry["transcript"] for entry in entries[:3]] == [f"'{TEXT}", "good\\u2028night", ""]


def test_parquet(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path / "out", store, "parquet")
    files = str(tmp_path / "out" / "data" / "*.parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.features["audio"] == datasets.Audio(sampling_rate=SAMPLE_RATE_HZ)
    raw = rows.cast_column("audio", datasets.Audio(decode=False))
    names = ["speaker_id", "video_id", "utterance_id"]
    read = {"/".join(row[name] for name in names): row["audio"]["bytes"] for row in raw}
    assert read == clips_of(store)
    assert rows["transcript"][:3] == [TEXT, "good\u2028night", None]
    assert rows[0]["audio"]["array"].shape == (19_200,)
    metadata = pq.read_metadata(sorted(glob.glob(files))[0])
    clips = next(
        metadata.row_group(0).column(place)
        for place in range(metadata.num_columns)
        if metadata.row_group(0).column(place).path_in_schema == "audio.bytes"
    )
    assert clips.compression == "UNCOMPRESSED"


def test_rows_of_a_large_shard_are_in_groups(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.export.parquet._ROWS_PER_GROUP", 2)
    export_to(tmp_path, store, "parquet")
    sizes = [pq.read_metadata(path).num_row_groups for path in (tmp_path / "data").iterdir()]
    assert sorted(sizes) == [2, 3, 3]
    tables = [pq.read_table(path) for path in sorted((tmp_path / "data").iterdir())]
    read = [row["audio"]["bytes"] for table in tables for row in table.to_pylist()]
    assert read == list(clips_of(store).values())


def test_folder(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_to(out, store, "folder")
    files = {path: data for path, data in content(out).items() if path.endswith(".flac")}
    assert files == {f"{name}.flac": data for name, data in clips_of(store).items()}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("id000000", "id000001", "voxblink2-export.json")
    }


def test_a_selection_is_that_of_a_load(store: Path, tmp_path: Path) -> None:
    selection = Selection.of(exclude=["id000000"], max_videos_per_speaker=2)
    made = export_to(tmp_path, store, "folder", selection=selection)
    videos = {path.parent.name for path in tmp_path.glob("*/*/*.flac")}
    assert videos == {"video000010", "video000011"}
    assert made.manifest.utterances == 2
    record = json.loads((tmp_path / "voxblink2-export.json").read_bytes())
    assert record["selection"] == {"exclude": ["id000000"], "max_videos_per_speaker": 2}
    (shard,) = record["shards"]
    assert (
        record["shards"][shard]
        == ((store / "shards" / "audio" / f"{shard}.sha256").read_text().split()[0])
    )


@pytest.mark.parametrize("audio_format", ["wav", "opus"])
def test_other_encodings(tmp_path: Path, audio_format: str) -> None:
    """What a store has as WAV or Opus stays that, and Kaldi gets its samples."""
    corpus = make_corpus(tmp_path / "corpus", video_ids(2))
    store = materialize(corpus, tmp_path / "store", "--audio-format", audio_format)
    clips = clips_of(store)
    export_to(tmp_path / "kaldi", store, "kaldi")
    read = kaldiio.load_scp(f"{tmp_path}/kaldi/wav.scp")
    assert_equal_samples({key: samples for key, (_, samples) in read.items()}, store)
    export_to(tmp_path / "folder", store, "folder")
    files = content(tmp_path / "folder").items()
    named = {path: data for path, data in files if path.startswith("id")}
    assert named == {f"{key}.{audio_format}": data for key, data in clips.items()}
    export_to(tmp_path / "tars", store, "wespeaker")
    members: list[bytes] = []
    for path in lines(tmp_path / "tars" / "shard.list"):
        with tarfile.open(path) as archive:
            files_of = [archive.extractfile(member) for member in archive]
            members += [file.read() for file in files_of if file]
    assert members[1::2] == list(clips.values())
