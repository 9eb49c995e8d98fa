"""Whole shards that the ledger does not know any more, as it and the outcomes beside them are lost.

Such a shard says itself which videos it has. It does not say which of the job's videos had no clip:
those are planned again by the next run.
"""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.errors import StoreError, next_command
from voxblink2_lib.files import sha256_of
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.records import SAMPLE_RATE_HZ, SealedShard, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.file_checks import listed_checksum
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.purged_rows import has_purged_rows
from voxblink2_lib.store.shard_check import open_shard, shard_batches
from voxblink2_lib.store.shard_names import shard_name, shard_order

_REASON = "it is not in the shard; the ledger that had the reason is lost"

# Length in samples of each clip by the id of its utterance, of each video.
_Clips = dict[VideoKey, dict[str, int]]


def adopt_shards(bench: Workbench, ledger: Ledger, index: Index | None) -> None:
    """Take whole shards that the ledger does not know into it again.

    Args:
        bench: the store.
        ledger: its ledger.
        index: its index; without one, such shards are left where they are.
    """
    folder = bench.store.shards(ledger.config)
    jobs = set(ledger.jobs())
    tombstones = Tombstones.of(bench.store.root)
    for path in sorted(folder.glob("*.arrow")):
        _, job = shard_order(path.name)
        if path.name != shard_name(ledger.config, max(job, 0)) or job in jobs:
            continue
        if (sha256 := listed_checksum(path)) is None or sha256_of(path) != sha256:
            continue
        if has_purged_rows(path, tombstones):
            again = next_command("purge", store=bench.shown_root)
            bench.leave(path, f"It has clips that were purged; {again} removes it.")
        elif index is None:
            bench.leave(path, "It is in no ledger, and without the index it cannot be compared.")
        elif clips := _clips_of(path, ledger, index):
            rows = sum(map(len, clips.values()))
            shard = SealedShard(job, path.name, sha256, rows, path.stat().st_size)
            ledger.adopt(shard, _outcomes(clips, index))
            text = f"It was in no ledger; taken into it again, with {len(clips):,} videos"
            bench.mend("shard", path, text)


def _clips_of(path: Path, ledger: Ledger, index: Index) -> _Clips | None:
    """Return the clips of a shard; ``None`` if it is not of this store, or has been superseded."""
    clips: _Clips = {}
    try:
        for batch in shard_batches(open_shard(path)):
            for row in batch.drop_columns(["audio"]).to_pylist():
                samples = round((row["end_seconds"] - row["start_seconds"]) * SAMPLE_RATE_HZ)
                key = VideoKey(row["speaker_id"], row["video_id"])
                clips.setdefault(key, {})[row["utterance_id"]] = samples
    except StoreError:
        return None
    annotated = {
        key: {utterance.utterance_id for utterance in utterances}
        for key, utterances in index.utterances(frozenset(clips))
    }
    is_annotated = all(names.keys() <= annotated.get(key, set()) for key, names in clips.items())
    is_elsewhere = any(ledger.reopened.status(key) == "done" for key in clips)
    return None if is_elsewhere or not is_annotated else clips


def _outcomes(clips: _Clips, index: Index) -> list[Outcome]:
    return [
        Outcome(
            video.key,
            "done",
            clips=len(clips[video.key]),
            samples=sum(clips[video.key].values()),
            digest=video.digest,
            missing=tuple(
                MissingUtterance(utterance.utterance_id, _REASON)
                for utterance in video.utterances
                if utterance.utterance_id not in clips[video.key]
            ),
        )
        for video in index.annotated(frozenset(clips))
    ]
