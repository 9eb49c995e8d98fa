"""Parquet: one file for each shard, with the columns that ``load_dataset`` gives and the clips."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.rows import UnitRows

PARQUET = "data/{unit}.parquet"
# Some 10 MB of speech, which a reader has in memory at once.
_ROWS_PER_GROUP = 100
# Statistics of clips, and dictionaries of them, would be of no use and take long.
_REPEATED = ["speaker_id", "video_id", "source"]


def write_parquet(rows: UnitRows, output: UnitOutput) -> None:
    """Write a Parquet file. Clips are compressed already, and are stored as they are."""
    tables = rows.tables()
    waiting = next(tables)
    with (
        output.file(PARQUET.format(unit=output.unit)) as file,
        pq.ParquetWriter(
            pa.PythonFile(file, "w"),
            waiting.schema,
            compression="none",
            use_dictionary=_REPEATED,
            write_statistics=_REPEATED,
            # A reader of a few rows, as a viewer on the Hub, need not read the whole group.
            write_page_index=True,
        ) as writer,
    ):
        for table in tables:
            full = len(waiting) // _ROWS_PER_GROUP * _ROWS_PER_GROUP
            if full:
                writer.write_table(waiting.slice(0, full), _ROWS_PER_GROUP)
            waiting = pa.concat_tables([waiting.slice(full), table])
        writer.write_table(waiting, _ROWS_PER_GROUP)
