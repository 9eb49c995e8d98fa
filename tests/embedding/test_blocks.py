"""What there is to embed: every utterance of any kind of input comes exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import cli_process, tiny_models
from support.model_oracle import PROPERTY
from support.tiny_models import read_all, write_arrow, write_scp, write_store

from voxblink2_lib.embedding.block_worker import read_waveform
from voxblink2_lib.embedding.blocks import EmbeddingBlock, find_blocks
from voxblink2_lib.embedding.tables import NAME_COLUMNS, NoAudio
from voxblink2_lib.errors import EmbeddingError, ModelError, VoxBlink2Error

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def content(name: str) -> bytes:
    return f"sound of {name}".encode()


def table(names: Sequence[str], column: str = "name") -> pa.Table:
    """Rows as `datasets` has them; the sounds are no sounds, nothing here decodes."""
    sounds = [{"bytes": content(name), "path": f"{name}.wav"} for name in names]
    return pa.table({column: names, "audio": pa.array(sounds, AUDIO)})


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"u{number:05}" for number in range(start, start + count)]


def expected(names: Sequence[str]) -> list[tuple[str, bytes]]:
    return [(name, content(name)) for name in names]


# -- Stores ----------------------------------------------------------------------------------------


def test_a_store_gives_every_utterance_once(undisturbed: Path) -> None:
    rows = cli_process.rows(undisturbed)
    names = ["/".join(row[part] for part in ("speaker_id", "video_id", "utterance_id"))
             for row in rows]  # fmt: skip
    assert len(set(names)) == 48
    sounds = [row["audio"]["bytes"] for row in rows]
    assert read_all(find_blocks(undisturbed).blocks) == list(zip(names, sounds, strict=True))


def test_a_store_of_audio_visual_alone_gives_that(tmp_path: Path) -> None:
    shards = [table(["a", "b"]), table(["c"])]
    store = write_store(tmp_path / "store", {"audio-visual": shards})
    assert read_all(find_blocks(store).blocks) == expected(["a", "b", "c"])


def test_a_store_of_both_gives_audio(tmp_path: Path) -> None:
    both = {"audio-visual": [table(["seen"])], "audio": [table(["heard"])]}
    assert read_all(find_blocks(write_store(tmp_path / "store", both)).blocks) == expected(
        ["heard"]
    )


def test_parts_in_a_store_are_not_read(tmp_path: Path) -> None:
    """Their rows are in no shard yet, or in one already."""
    store = write_store(tmp_path / "store", {"audio": [table(["a"])]})
    (store / "parts").mkdir()
    write_arrow(store / "parts" / "half.arrow", table(["b"]))
    assert read_all(find_blocks(store).blocks) == expected(["a"])


# -- Arrow -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A dataset of real files that `save_to_disk` wrote, in three shards."""
    paths = [
        tiny_models.write(tmp_path / f"{number}.wav", tiny_models.voice(1, 0.2))
        for number in range(10)
    ]
    columns = {"name": numbered(10), "audio": list(map(str, paths))}
    made = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio())
    made.save_to_disk(tmp_path / "saved", num_shards=3)
    return tmp_path / "saved"


def test_a_saved_dataset(saved: Path) -> None:
    assert len(list(saved.glob("*.arrow"))) == 3
    expected = [(name, (saved.parent / f"{place}.wav").read_bytes())
              for place, name in enumerate(numbered(10))]  # fmt: skip
    assert read_all(find_blocks(saved).blocks) == expected


@pytest.mark.parametrize("work", ["map", "filter"])
def test_what_datasets_caches_beside_a_saved_dataset_is_no_part_of_it(
    work: str, saved: Path
) -> None:
    before = read_all(find_blocks(saved).blocks)
    loaded = datasets.load_from_disk(saved)
    if work == "map":
        loaded.map(lambda row: {"words": len(row["name"])})
    else:
        loaded.filter(lambda row: row["name"] != "u00003")
    assert list(saved.glob("cache-*.arrow"))
    assert read_all(find_blocks(saved).blocks) == before


def test_a_hidden_folder_beside_shards_is_no_part_of_them(tmp_path: Path) -> None:
    for folder in ("shards", ".catalogue"):
        (tmp_path / folder).mkdir()
    write_arrow(tmp_path / "shards" / "one.arrow", table(numbered(2)))
    write_arrow(tmp_path / ".catalogue" / "audio.arrow", table(numbered(3)))
    assert read_all(find_blocks(tmp_path).blocks) == expected(numbered(2))


def test_one_stream_of_arrow(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "one.arrow", table(numbered(7)), batch_rows=3)
    assert read_all(find_blocks(path).blocks) == expected(numbered(7))


@pytest.mark.parametrize("column", NAME_COLUMNS)
def test_columns_that_name_utterances(column: str, tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "one.arrow", table(["x"], column))
    assert read_all(find_blocks(path).blocks) == expected(["x"])


def test_speaker_video_and_utterance_name_before_all_others(tmp_path: Path) -> None:
    rows = table(["x"]).append_column("speaker_id", pa.array(["id990001"]))
    rows = rows.append_column("utterance_id", pa.array(["00007"]))
    rows = rows.append_column("video_id", pa.array(["abcdefghijk"]))
    path = write_arrow(tmp_path / "one.arrow", rows)
    assert read_all(find_blocks(path).blocks) == [("id990001/abcdefghijk/00007", content("x"))]


# -- Parquet ---------------------------------------------------------------------------------------


def write_parquet(path: Path, rows: pa.Table, row_groups: Sequence[int]) -> Path:
    with pq.ParquetWriter(path, rows.schema) as writer:
        first = 0
        for size in row_groups:
            writer.write_table(rows.slice(first, size), row_group_size=max(1, size))
            first += size
    assert pq.read_metadata(path).num_row_groups == len(row_groups)
    return path


def test_parquet_of_bytes_with_paths(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "one.parquet", table(numbered(9)), [4, 3, 2])
    assert read_all(find_blocks(path).blocks) == expected(numbered(9))


def test_parquet_of_plain_bytes(tmp_path: Path) -> None:
    rows = pa.table({"utt": ["a", "b"], "audio": [b"1", None]})
    pq.write_table(rows, tmp_path / "one.parquet")
    assert read_all(find_blocks(tmp_path).blocks) == [("a", b"1"), ("b", b"")]


def test_paths_in_a_table_are_never_opened(tmp_path: Path) -> None:
    sounds = [{"bytes": None, "path": "/a.wav"}, {"bytes": None, "path": None}, None]
    rows = pa.table({"id": [1, 2, 3], "audio": pa.array(sounds, AUDIO)})
    pq.write_table(rows, tmp_path / "one.parquet")
    (first, refused), *others = read_all(find_blocks(tmp_path).blocks)
    assert first == "1"
    assert isinstance(refused, NoAudio)
    with pytest.raises(ModelError, match=r"1 has no bytes, only the path '/a\.wav'\. Files are"):
        read_waveform(refused, "1")
    assert others == [("2", b""), ("3", b"")]


def test_files_below_a_folder_in_order(tmp_path: Path) -> None:
    for place in ("b", "a/deep"):
        (tmp_path / place).mkdir(parents=True)
        pq.write_table(table([place]), tmp_path / place / "x.parquet")
    assert read_all(find_blocks(tmp_path).blocks) == expected(["a/deep", "b"])


# -- Every utterance once --------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 700), min_size=1, max_size=5)


def _arrow(path: Path, sizes: Sequence[int]) -> Path:
    rows = table(numbered(sum(sizes)))
    with pa.ipc.new_stream(str(path), rows.schema) as writer:
        first = 0
        for size in sizes:
            writer.write_batch(rows.slice(first, size).combine_chunks().to_batches()[0])
            first += size
    return path


def _parquet(path: Path, sizes: Sequence[int]) -> Path:
    return write_parquet(path, table(numbered(sum(sizes))), sizes)


def _scp(path: Path, sizes: Sequence[int]) -> Path:
    return write_scp(path, {name: Path("/", name) for name in numbered(sum(sizes))})


@pytest.mark.parametrize(("name", "make"), [("x.arrow", _arrow), ("x.parquet", _parquet),
                                            ("wav.scp", _scp)])  # fmt: skip
@given(sizes=SIZES, kept=st.sampled_from([None, "0", "7"]))
@PROPERTY
def test_blocks_part_the_rows(
    name: str,
    make: Callable[[Path, Sequence[int]], Path],
    sizes: list[int],
    kept: str | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = make(tmp_path_factory.mktemp("blocks") / name, sizes)
    names = numbered(sum(sizes))
    if kept and not any(key.endswith(kept) for key in names):
        return
    blocks = find_blocks(path, keep=(lambda key: key.endswith(kept)) if kept else None).blocks
    utterances = read_all(blocks)
    expected = [key for key in names if not kept or key.endswith(kept)]
    assert [key for key, _ in utterances] == expected
    assert all(audio in (content(key), Path("/", key)) for key, audio in utterances)
    assert [len(block.rows) for block in blocks] == [len(list(block.read())) for block in blocks]
    assert all(1 <= len(block.rows) <= 128 for block in blocks)
    # Many enough for all workers, and to lose little.
    assert len(blocks) >= min(len(expected), 8)


@pytest.mark.parametrize(("rows", "size", "blocks"), [(40, 1, 40), (200, 6, 34), (9000, 128, 71)])
def test_small_inputs_are_cut_finer(rows: int, size: int, blocks: int, tmp_path: Path) -> None:
    found_blocks = find_blocks(_scp(tmp_path / "wav.scp", [rows])).blocks
    assert [len(block.rows) for block in found_blocks[:-1]] == [size] * (blocks - 1)
    assert sum(len(block.rows) for block in found_blocks) == rows


def test_a_large_row_group_is_not_read_in_tiny_steps(tmp_path: Path) -> None:
    assert len(find_blocks(_parquet(tmp_path / "x.parquet", [960])).blocks) == 16


# -- Keep ------------------------------------------------------------------------------------------


def test_only_wanted_utterances_of_each_kind(tmp_path: Path) -> None:
    names = numbered(30)
    requested = {"u00000", "u00013", "u00014", "u00029"}
    sounds = tmp_path / "sounds"
    for name in names:
        tiny_models.write(sounds / f"{name}.wav", [0.0])
    places = [
        write_store(tmp_path / "store", {"audio": [table(names[:14]), table(names[14:])]}),
        write_arrow(tmp_path / "x.arrow", table(names), batch_rows=4),
        write_parquet(tmp_path / "x.parquet", table(names), [14, 16]),
        _scp(tmp_path / "wav.scp", [30]),
        sounds,
    ]
    for place in places:
        utterances = read_all(find_blocks(place, keep=requested.__contains__).blocks)
        assert [name for name, _ in utterances] == sorted(requested), place
        with pytest.raises(EmbeddingError, match=r"None of the requested utterances is in"):
            find_blocks(place, keep=lambda _: False)


# -- Lists of files --------------------------------------------------------------------------------


def test_files_of_a_list_absolute_from_here_and_from_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, lists = tmp_path / "here", tmp_path / "lists"
    files = [tiny_models.write(path, [0.0]) for path in (
        tmp_path / "far.wav", here / "a b.wav", here / "both.wav", lists / "both.wav",
        lists / "sub" / "beside.wav")]  # fmt: skip
    monkeypatch.chdir(here)
    text = f"far {files[0]}\n\n  two\ta b.wav  \nboth both.wav\nbeside sub/beside.wav\nno no.wav\n"
    (lists / "wav.scp").write_text("\ufeff" + text, encoding="utf-8")
    assert read_all(find_blocks(lists / "wav.scp").blocks) == [
        ("far", files[0]),
        ("two", files[1]),
        ("both", files[2]),
        ("beside", files[4]),
        ("no", lists / "no.wav"),  # embedding it will say that it is not there
    ]


@pytest.mark.parametrize("line", ["b touch {ran} |", "b | touch {ran}", "b touch {ran}|", "b"])
def test_commands_and_lonely_words_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    bad = line.format(ran=ran)
    (tmp_path / "wav.scp").write_text(f"a /a.wav\n{bad}\n")
    with pytest.raises(EmbeddingError, match="line 2 is") as error:
        find_blocks(tmp_path / "wav.scp")
    assert repr(bad) in str(error.value)
    assert "Commands ('|') are never run" in str(error.value)
    assert not ran.exists()


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("a /one.wav\nb /two.wav\na /three.wav\n")
    with pytest.raises(EmbeddingError, match=r"'a' exists twice, as /one.wav and as /three.wav"):
        find_blocks(tmp_path / "wav.scp")


# -- Folders of audio ------------------------------------------------------------------------------


def test_files_of_a_folder_are_named_by_their_path(tmp_path: Path) -> None:
    for name in ("b/c/one.wav", "a.b.flac", "x.MP3", "y.opus", "notes.txt", "deep/folder.wav/no"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read_all(find_blocks(tmp_path).blocks) == [
        (name, tmp_path / file)
        for name, file in [
            ("a.b", "a.b.flac"),
            ("b/c/one", "b/c/one.wav"),
            ("x", "x.MP3"),
            ("y", "y.opus"),
        ]
    ]


# -- Wrong inputs ----------------------------------------------------------------------------------


def _no_folder(folder: Path) -> Path:
    return folder / "none"


def _empty(folder: Path) -> Path:
    return folder


def _nothing_sealed(folder: Path) -> Path:
    return write_store(folder / "store", {"audio": []})


def _sound(folder: Path) -> Path:
    return tiny_models.write(folder / "one.wav", tiny_models.voice(1, 0.2))


def _no_parquet(folder: Path) -> Path:
    (folder / "x.parquet").write_bytes(b"PAR1 and no more")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_folder, r"There is no file or folder .*none"),
        (_empty, r"There is nothing to embed in .*: expected a store, .* \(\.wav, \.flac"),
        (_nothing_sealed, r"There is nothing to embed in .*store"),
        (_sound, r"one\.wav cannot be read as a list"),
        (_no_parquet, r"x\.parquet cannot be read as Parquet"),
    ],
)
def test_wrong_inputs(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=message):
        find_blocks(make(tmp_path))


def test_damaged_arrow(tmp_path: Path) -> None:
    (tmp_path / "x.arrow").write_bytes(b"no Arrow at all")
    with pytest.raises(VoxBlink2Error, match=r"x\.arrow is damaged"):
        find_blocks(tmp_path)


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"], "sound": [b"1"]}, "no column 'audio' in .*; there are name, sound"),
        (
            {"audio": [b"1"], "nom": ["a"]},
            r"names utterances \(.*, file_name\); there are audio, nom",
        ),
    ],
)
def test_columns_that_are_missing(
    suffix: str, columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{suffix}"
    rows = pa.table(columns)
    write_arrow(path, rows) if suffix == "arrow" else pq.write_table(rows, path)
    with pytest.raises(EmbeddingError, match=message):
        read_all(find_blocks(path).blocks)
    if "nom" in columns:
        with pytest.raises(EmbeddingError, match=message):
            find_blocks(path, keep=lambda _: True)


@pytest.mark.parametrize("suffix", ["arrow", "parquet", "wav"])
def test_a_file_that_changed_is_another_version(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "arrow":
        write_arrow(path, table(["a"]))
    elif suffix == "parquet":
        pq.write_table(table(["a"]), path)
    else:
        path.write_bytes(b"sound")
    (block,) = find_blocks(tmp_path).blocks
    first = block.version()
    assert find_blocks(tmp_path).blocks == [block]
    assert block.version() == first
    os.utime(path, ns=(0, 1))
    second = block.version()
    path.unlink()
    assert len({first, second, block.version()}) == 3


def test_the_identity_of_a_block_never_changes() -> None:
    # Embeddings that were made by an earlier version are recognized by a hash of it.
    files = EmbeddingBlock("files", range(1), files=(("a", "/x/a.wav"),))
    assert files.identity() == (
        "Block(kind='files', rows=range(0, 1), path='', place=0, files=(('a', '/x/a.wav'),))"
    )
    rows = EmbeddingBlock("arrow", (3, 5), "/x/a.arrow", 2)
    assert rows.identity() == (
        "Block(kind='arrow', rows=(3, 5), path='/x/a.arrow', place=2, files=())"
    )
