"""Stores to export, and what is in an export: names, samples, files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from support.cli_process import rows, run_inline
from support.plain_corpus import make_corpus, video_ids
from support.speaker_files import write_speakers
from voxblink2_lib.export.formats import find_format
from voxblink2_lib.export.plan import ExportRequest, plan_export
from voxblink2_lib.export.run import Exported, export
from voxblink2_lib.export.target import Target
from voxblink2_lib.store.layout import Store

Samples = npt.NDArray[np.int16]

VIDEOS = 14


def make_store(folder: Path, *, videos: int = VIDEOS, shards: int = 3) -> Path:
    """Make a store of short videos of two speakers in a few shards; return its folder.

    Some have transcripts, one of which a spreadsheet would take for a formula.
    """
    corpus = make_corpus(folder / "corpus", video_ids(videos))
    words = {"video000000": '=1/2, and "more"', "video000001": "good\u2028night"}
    texts = {f"id000000/{video}/00001.wav": {"text": text} for video, text in words.items()}
    write_speakers(corpus, "asr_res", {"id000000": json.dumps(texts)})
    return materialize(corpus, folder / "store", shards=shards)


def materialize(corpus: Path, store: Path, *more: object, shards: int = 3) -> Path:
    """Make a store of a corpus, or complete it; return its folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", shards)
        words = ("--data-dir", corpus, "--source", corpus / "media", "--store", store)
        run_inline("materialize", *words, *more)
    return store


def export_to(
    target: str | Path, store: Path, name: str, *, workers: int | None = 1, **options: Any
) -> Exported:
    """Export a store in this process."""
    segments = options.pop("segments", False)
    request = ExportRequest(
        Store(store),
        options.pop("config", "audio"),
        find_format(name, segments=segments),
        Target.of(str(target)),
        **options,
    )
    return export(plan_export(request), workers=workers)


def samples_of(data: bytes) -> Samples:
    """Decode a clip."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 16_000
    return np.asarray(samples)


def clips_of(store: Path, config: str = "audio") -> dict[str, bytes]:
    """Every clip of a store by ``speaker/video/utterance``, as it is stored."""
    ids = ("speaker_id", "video_id", "utterance_id")
    return {
        "/".join(row[name] for name in ids): row["audio"]["bytes"] for row in rows(store, config)
    }


def assert_equal_samples(exported: Mapping[str, Samples], store: Path) -> None:
    """Check that an export has all utterances of a store and no other, sample by sample."""
    stored = clips_of(store)
    assert exported.keys() == stored.keys()
    for name, data in stored.items():
        np.testing.assert_array_equal(exported[name], samples_of(data), err_msg=name)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an export by its path; the lock aside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
