"""The columns of a shard, stated once."""

from __future__ import annotations

import pyarrow as pa
from datasets import Audio, Features, Value

from voxblink2_lib.records import SAMPLE_RATE_HZ

FEATURES: dict[str, Features] = {
    "audio": Features(
        {
            "audio": Audio(sampling_rate=SAMPLE_RATE_HZ),
            "speaker_id": Value("string"),
            "video_id": Value("string"),
            "utterance_id": Value("string"),
            "start_seconds": Value("float64"),
            "end_seconds": Value("float64"),
            "source": Value("string"),
        }
    )
}


def arrow_schema(config: str) -> pa.Schema:
    """Return the Arrow schema of a configuration's shards, as ``datasets`` expects it."""
    return FEATURES[config].arrow_schema
