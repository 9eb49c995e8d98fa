"""Columns of a shard, and of the rows that users read: those, and what the index knows of them."""

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
_SHARD_FEATURES: dict[str, Features] = {
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

# Joined to the columns of a shard when it is read: see store.joined_columns.
JOINED_FEATURES = Features({"transcript": Value("string"), "language": Value("string")})
SPEAKER_FEATURES = Features(
    {
        "speaker_gender": Value("string"),
        "speaker_language": Value("string"),
        "speaker_location": Value("string"),
        "speaker_tags": Sequence(Value("string")),
    }
)
FEATURES: dict[str, Features] = {
    config: Features({**features, **JOINED_FEATURES})
    for config, features in _SHARD_FEATURES.items()
}


def arrow_schema(config: str) -> pa.Schema:
    """Return the Arrow schema of a configuration's shards, as ``datasets`` expects it."""
    return _SHARD_FEATURES[config].arrow_schema


def shard_features(schema: pa.Schema) -> Features:
    """Return the features of a shard's columns, which may be those of an earlier version.

    Raises:
        KeyError: it has a column that no shard has.
    """
    known = _SHARD_FEATURES["audio-visual"]
    return Features({name: known[name] for name in schema.names})


def row_features(config: str, shard: pa.Schema | None = None) -> Features:
    """Return the features of the rows that users read, without those about speakers.

    Args:
        config: the configuration.
        shard: columns of the store's shards, which may be those of an earlier version; default:
            those of new shards.
    """
    if shard is None:
        return FEATURES[config]
    return Features({**shard_features(shard), **JOINED_FEATURES})
