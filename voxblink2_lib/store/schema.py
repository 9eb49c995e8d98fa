"""Columns of a shard."""

from __future__ import annotations

import pyarrow as pa
from datasets import Audio, Features, Sequence, Value, Video

from voxblink2_lib.records import SAMPLE_RATE_HZ

_ABOUT_COLUMNS = {
    "speaker_id": Value("string"),
    "video_id": Value("string"),
    "utterance_id": Value("string"),
    "start_seconds": Value("float64"),
    "end_seconds": Value("float64"),
    "source": Value("string"),
}
FEATURES: dict[str, Features] = {
    "audio": Features({"audio": Audio(sampling_rate=SAMPLE_RATE_HZ), **_ABOUT_COLUMNS}),
    "audio-visual": Features(
        {
            "audio": Audio(sampling_rate=SAMPLE_RATE_HZ),
            "video": Video(),
            **_ABOUT_COLUMNS,
            "boxes": Sequence(Sequence(Value("int16"), length=4)),
            "boxes_fit": Value("bool"),
            "boxes_evidence": Value("string"),
        }
    ),
}


def arrow_schema(config: str) -> pa.Schema:
    """Return the Arrow schema of a configuration's shards, as ``datasets`` expects it."""
    return FEATURES[config].arrow_schema


def shard_features(schema: pa.Schema) -> Features:
    """Return the features of a shard's columns, which may be those of an earlier version.

    Raises:
        KeyError: it has a column that no shard has.
    """
    known = FEATURES["audio-visual"]
    return Features({name: known[name] for name in schema.names})
