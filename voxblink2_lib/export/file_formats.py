"""Formats of one file for each clip: a folder as of VoxCeleb, and the lists of NeMo and of CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.rows import ExportRow
from voxblink2_lib.foreign_text import csv_cell

NEMO_LIST, CSV_LIST = "manifest.json", "utterances.csv"
CLIP, FACE = "{name}.{extension}", "{name}.mp4"
# Beside the lists, so that these may be moved together with the clips.
LISTED_CLIP = f"audio/{CLIP}"
_CSV_COLUMNS = (
    *("path", "speaker_id", "video_id", "utterance_id", "seconds", "start_seconds", "end_seconds"),
    *("transcript", "language"),
    *("speaker_gender", "speaker_language", "speaker_location", "speaker_tags"),
)


def write_folder(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write ``<speaker>/<video>/<utterance>.<ext>``, and the face as ``.mp4`` beside it."""
    for row in rows:
        output.put(CLIP.format(name=row.name, extension=row.extension), row.audio)
        if row.video is not None:
            output.put(FACE.format(name=row.name), row.video)


def write_nemo(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write the clips below ``audio``, and a line of NeMo's manifest for each."""
    for row in rows:
        entry = {
            "audio_filepath": _put_clip(row, output),
            "offset": 0,
            "duration": row.seconds,
            "label": row.key.speaker_id,
            **_named({"text": row.about.get("transcript"), "lang": row.about.get("language")}),
        }
        output.line(NEMO_LIST, json.dumps(entry))


def write_csv(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write the clips below ``audio``, and a row of ``utterances.csv`` for each."""
    for row in rows:
        values = row.about | {"path": _put_clip(row, output), "seconds": row.seconds}
        output.line(CSV_LIST, _csv_line(_cell(name, values.get(name)) for name in _CSV_COLUMNS))


def csv_header() -> str:
    """Return the first line of ``utterances.csv``."""
    return _csv_line(_CSV_COLUMNS)


def _put_clip(row: ExportRow, output: UnitOutput) -> str:
    path = LISTED_CLIP.format(name=row.name, extension=row.extension)
    output.put(path, row.audio)
    return path


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are known."""
    return {name: value for name, value in values.items() if value is not None}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        value = " ".join(value)
    is_foreign = isinstance(value, str) and name != "path"
    return csv_cell(value) if is_foreign else str(value)


def _csv_line(cells: Iterable[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(cells)
    return file.getvalue()
