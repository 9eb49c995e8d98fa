"""Formats of one tar archive for each shard: WebDataset, WeSpeaker's, and Lhotse's Shar."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.rows import ExportRow
from voxblink2_lib.export.tar_writer import TarWriter
from voxblink2_lib.records import SAMPLE_RATE_HZ

SHARD_LIST = "shard.list"
WEBDATASET_TAR, WESPEAKER_TAR = "{unit}.tar", "shards/{unit}.tar"
SHAR_RECORDINGS, SHAR_CUTS = "shar/recording.{unit}.tar", "shar/cuts.{unit}.jsonl"
UTT2SPK, UTT2DUR = "utt2spk", "utt2dur"


def write_webdataset(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write a tar with the clip of each utterance, its face, and the other columns as JSON."""
    path = WEBDATASET_TAR.format(unit=output.unit)
    with output.file(path) as file:
        tar = TarWriter(file)
        for row in rows:
            tar.add(f"{row.name}.{row.extension}", row.audio)
            if row.video is not None:
                tar.add(f"{row.name}.mp4", row.video)
            tar.add(f"{row.name}.json", json.dumps(row.about).encode())
        tar.finish()
    output.line(SHARD_LIST, output.place(path))


def write_wespeaker(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write a tar with ``<name>.spk``, the speaker's id, before the clip of each utterance."""
    path = WESPEAKER_TAR.format(unit=output.unit)
    with output.file(path) as file:
        tar = TarWriter(file)
        for row in rows:
            tar.add(f"{row.name}.spk", row.key.speaker_id.encode())
            tar.add(f"{row.name}.{row.extension}", row.audio)
            add_kaldi_lines(row, output)
        tar.finish()
    output.line(SHARD_LIST, output.place(path))


def add_kaldi_lines(row: ExportRow, output: UnitOutput) -> None:
    """Add the lines of an utterance in Kaldi's lists of speakers and lengths."""
    output.line(UTT2SPK, f"{row.name} {row.key.speaker_id}")
    output.line(UTT2DUR, f"{row.name} {row.seconds:.4f}")


def write_lhotse(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write a shard of Shar: ``recording.<unit>.tar`` and ``cuts.<unit>.jsonl``.

    In the tar, each clip is followed by its recording as JSON; in the list, the cuts are in the
    same order. Lhotse takes every file of the folder ``shar`` for a field of its own.
    """
    cuts = []
    with output.file(SHAR_RECORDINGS.format(unit=output.unit)) as file:
        tar = TarWriter(file)
        for row in rows:
            recording = json.dumps(_recording(row))
            tar.add(f"{row.name}.{row.extension}", row.audio)
            tar.add(f"{row.name}.json", recording.encode())
            cuts.append(f'{json.dumps(_cut(row))[:-1]}, "recording": {recording}}}\n')
        tar.finish()
    with output.file(SHAR_CUTS.format(unit=output.unit)) as file:
        file.write("".join(cuts).encode())


def _recording(row: ExportRow) -> dict[str, Any]:
    """Return a recording of Lhotse whose bytes are in the tar."""
    return {
        "id": row.name,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": SAMPLE_RATE_HZ,
        "num_samples": row.samples,
        "duration": row.seconds,
        "channel_ids": [0],
    }


def _cut(row: ExportRow) -> dict[str, Any]:
    """Return a cut of Lhotse without its recording, which it has all of, and with its speaker."""
    part = {"start": 0, "duration": row.seconds, "channel": 0}
    supervision = {
        "id": row.name,
        "recording_id": row.name,
        **part,
        "text": row.about.get("transcript"),
        "language": row.about.get("language"),
        "speaker": row.key.speaker_id,
        "gender": row.about.get("speaker_gender"),
    }
    known = {name: value for name, value in supervision.items() if value is not None}
    custom = {name: row.about[name] for name in ("video_id", "start_seconds", "end_seconds")}
    return {
        "id": row.name,
        **part,
        "supervisions": [known],
        "custom": custom,
        "type": "MonoCut",
    }
