"""The page about the store's format: its reader of a few lines reads what the package reads."""

from __future__ import annotations

import inspect
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import cli_process

from voxblink2_lib.release.index import BOX_COLUMNS, UTTERANCE_COLUMNS
from voxblink2_lib.release.speaker_index import SPEAKER_COLUMNS, TRANSCRIPT_COLUMNS
from voxblink2_lib.store.ledger_schema import FORMAT
from voxblink2_lib.store.schema import arrow_schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "store_format.md"
OLD_STORE = Path(__file__).parent / "made_by_0_1_0"
_LINES = 22  # of the function, as the page promises about twenty

Reader = Callable[..., Iterator[dict[str, Any]]]


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def read_clips(page: str) -> Reader:
    """The reader of the page, with nothing around it."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "def " in code)
    assert len(code.splitlines()) <= _LINES
    assert "voxblink2" not in code
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    reader: Reader = names["read_clips"]
    assert inspect.isgeneratorfunction(reader)
    return reader


def section(page: str, heading: str) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_reader_yields_the_rows_of_a_store(read_clips: Reader, undisturbed: Path) -> None:
    rows = [*read_clips(str(undisturbed))]
    assert rows == cli_process.rows(undisturbed)
    assert len(rows) == 48


def test_the_reader_yields_what_load_dataset_gives(read_clips: Reader, undisturbed: Path) -> None:
    from datasets import load_dataset

    import voxblink2  # noqa: F401  # registers the builder

    dataset = load_dataset("voxblink2", "audio", store=str(undisturbed), split="train")
    loaded = dataset.with_format("arrow")[:].drop_columns(["transcript", "language"])
    assert [*read_clips(str(undisturbed))] == loaded.to_pylist()


@pytest.mark.parametrize("config", ["audio", "audio-visual"])
def test_the_reader_reads_a_store_of_the_first_version(read_clips: Reader, config: str) -> None:
    assert [*read_clips(str(OLD_STORE), config)] == cli_process.rows(OLD_STORE, config)


def test_what_no_ledger_names_is_left_out(
    read_clips: Reader, undisturbed: Path, tmp_path: Path
) -> None:
    """A superseded tail may lie beside the shards for a moment."""
    (tmp_path / "shards").symlink_to(tmp_path / "copy")
    (tmp_path / "copy" / "audio").mkdir(parents=True)
    (tmp_path / "ledger.sqlite").write_bytes((undisturbed / "ledger.sqlite").read_bytes())
    shards = sorted((undisturbed / "shards" / "audio").glob("*.arrow"))
    for shard in shards:
        (tmp_path / "copy" / "audio" / shard.name).symlink_to(shard)
    (tmp_path / "copy" / "audio" / "audio-00099.arrow").symlink_to(shards[0])
    assert [*read_clips(str(tmp_path))] == cli_process.rows(undisturbed)


def test_the_page_names_every_column(page: str, undisturbed: Path) -> None:
    named = set(re.findall(r"`(\w+)`", section(page, "Shards")))
    assert set(arrow_schema("audio-visual").names) <= named
    named = set(re.findall(r"`(\w+)`", section(page, "Index")))
    texts = {"info_text", "info_bytes", "asr_text", "asr_bytes", "first_transcript", "transcripts"}
    tables = (UTTERANCE_COLUMNS, BOX_COLUMNS, TRANSCRIPT_COLUMNS, SPEAKER_COLUMNS)
    columns = {name for table in tables for name in table.names} - texts
    columns |= set(pq.read_schema(undisturbed / "index" / "videos.parquet").names)
    assert columns - named <= {"speaker_id", "video_id", "utterance_id"}


def test_the_page_names_the_columns_of_the_catalogue_and_of_the_ledger(
    page: str, undisturbed: Path
) -> None:
    with pa.memory_map(str(undisturbed / "catalogue" / "audio.arrow")) as file:
        columns = set(pa.ipc.open_file(file).schema.names)
    assert columns <= set(re.findall(r"`(\w+)`", section(page, "Catalogue")))
    ledger_section = section(page, "Ledger")
    assert f"`format` (now {FORMAT})" in ledger_section
    named = set(re.findall(r"`(\w+)`", ledger_section))
    ids = {"config", "speaker_id", "video_id", "utterance_id"}
    with closing(sqlite3.connect((undisturbed / "ledger.sqlite").as_uri(), uri=True)) as ledger:
        for table in ("jobs", "videos", "attempts", "verdicts", "missing"):
            rows = ledger.execute("select name from pragma_table_info(?)", [table])
            assert {name for (name,) in rows} - named <= ids, table
