"""Small speaker models on disk, audio files, a store, and embedding without worker processes.

Models are small enough for a test, and their embeddings are compared with those of the same model
called directly on each utterance, without batches, blocks or files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from huggingface_hub import cached_assets_path
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioXVector,
    UniSpeechSatConfig,
    UniSpeechSatForXVector,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForXVector,
    WavLMConfig,
    WavLMForXVector,
)

from support.inline_pool import InlinePool
from support.model_oracle import golden_waveform, small_extractor, small_model
from voxblink2_lib.embedding.block_worker import BlockTask, EmbedOptions, embed_block
from voxblink2_lib.embedding.blocks import EmbeddingBlock
from voxblink2_lib.embedding.tables import Audio
from voxblink2_lib.files import sha256_of
from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerResNet, SpeakerResNetConfig
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.workers.pool import Call

Array = npt.NDArray[np.float32]
RATE = 16_000
SAME = 1e-4  # of embeddings, relative to their length


# -- Sounds ----------------------------------------------------------------------------------------


def voice(seed: int, seconds: float) -> Array:
    """Return a waveform that is different for each seed."""
    made: Array = golden_waveform(seed, round(seconds * RATE))
    return made


def write(path: Path, samples: Any, *, rate: int = RATE, **options: Any) -> Path:
    """Write an audio file; WAV is float unless specified otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        options.setdefault("subtype", "FLOAT")
    soundfile.write(path, samples, rate, **options)
    return path


def write_scp(path: Path, files: Mapping[str, Path]) -> Path:
    """Write a list of names and files."""
    path.write_text("".join(f"{name} {file}\n" for name, file in files.items()))
    return path


def write_store(root: Path, shards: Mapping[str, Sequence[pa.Table]]) -> Path:
    """Write a store of sealed shards, by the name of their configuration."""
    store = Store(root)
    for config, tables in shards.items():
        store.shards(config).mkdir(parents=True)
        with Ledger(store.ledger, config) as ledger:
            ledger.add_jobs([[VideoKey("id990001", str(job))] for job in range(len(tables))])
            for job, table in enumerate(tables):
                path = write_arrow(store.shards(config) / f"{config}-{job:05}.arrow", table)
                size = path.stat().st_size
                ledger.seal(SealedShard(job, path.name, sha256_of(path), len(table), size))
    return root


def write_arrow(path: Path, table: pa.Table, *, batch_rows: int | None = None) -> Path:
    """Write a stream of Arrow, as `datasets` does."""
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


# -- Models ----------------------------------------------------------------------------------------


def save_small(folder: Path, kind: str = "basic-gsp", *, seed: int = 1) -> str:
    """Write a small model of this library."""
    small_model(kind, seed=seed).save_pretrained(folder)
    small_extractor().save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def save_separating(folder: Path) -> str:
    """Write a model that separates voices without training.

    It has no blocks: its embedding is mean and deviation over time of the positive and of the
    negative part of each log-mel band.
    """
    config = SpeakerResNetConfig(
        depths=[0], base_channels=2, pooling="tsp", xvector_output_dim=2 * 2 * 80
    )
    model = SpeakerResNet(config)
    model.front.conv1.weight.zero_()
    model.front.conv1.weight[0, 0, 1, 1] = 1
    model.front.conv1.weight[1, 0, 1, 1] = -1
    model.bottleneck.weight.copy_(torch.eye(320))
    model.bottleneck.bias.zero_()
    model.train(mode=False)
    model.save_pretrained(folder)
    SpeakerFeatureExtractor().save_pretrained(folder)
    return str(folder)


FOREIGN: dict[str, tuple[type[Any], type[Any]]] = {
    "wav2vec2": (Wav2Vec2ForXVector, Wav2Vec2Config),
    "wavlm": (WavLMForXVector, WavLMConfig),
    "unispeech-sat": (UniSpeechSatForXVector, UniSpeechSatConfig),
}


def foreign_model(kind: str, *, norm: str = "group") -> Any:
    """Return a tiny speaker model of transformers, on waveforms."""
    torch.manual_seed(3)
    network, config = FOREIGN[kind]
    made = network(
        config(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=(8,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            tdnn_dim=(16, 16, 16, 16, 24),
            xvector_output_dim=12,
            feat_extract_norm=norm,
            initializer_range=0.3,  # the usual one makes numbers of 1e-8 in nets so small
        )
    )
    made.train(mode=False)
    return made


def save_foreign(folder: Path, model: Any, *, mask: bool) -> str:
    """Write it, with a feature extractor that gives attention masks or does not."""
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=mask).save_pretrained(folder)
    return str(folder)


@functools.lru_cache(maxsize=2)
def _loaded(folder: str) -> tuple[Any, Any]:
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    return extractor, AutoModelForAudioXVector.from_pretrained(folder).train(mode=False)


def directly(folder: str, waveform: Array) -> Array:
    """Return the embedding of one waveform by the model alone."""
    extractor, model = _loaded(folder)
    features = extractor(waveform, sampling_rate=RATE, return_tensors="pt", padding=True)
    features.pop("attention_mask", None)  # nothing is padded
    with torch.inference_mode():
        embedding: Array = model(**features).embeddings[0].numpy()
    return embedding


# -- Embedding in this process ---------------------------------------------------------------------


def block_of(files: Mapping[str, Path]) -> EmbeddingBlock:
    """Return a block of files."""
    named = tuple((name, str(path)) for name, path in files.items())
    return EmbeddingBlock("files", range(len(named)), files=named)


def embed_files(
    model: str, files: Mapping[str, Path], part: Path, **options: Any
) -> dict[str, Any]:
    """Embed files as one block; return the vector of each, or the reason why it has none."""
    threads = torch.get_num_threads()  # unchanged
    done = embed_block(BlockTask(block_of(files), part, EmbedOptions(model, **options), threads))
    rows = pq.read_table(part).to_pylist()
    assert [row["name"] for row in rows] == list(files)
    assert [row["embedding"] is None for row in rows] == [bool(row["reason"]) for row in rows]
    assert done.rejected == sum(bool(row["reason"]) for row in rows)
    assert done.embedded + done.rejected == len(files)
    return {row["name"]: row["reason"] or np.float32(row["embedding"]) for row in rows}


def read_all(blocks: Sequence[EmbeddingBlock]) -> list[tuple[str, Audio]]:
    """Read all blocks in order."""
    return [utterance for block in blocks for utterance in block.read()]


Watch = Callable[[BlockTask], None]


def calls_here(monkeypatch: pytest.MonkeyPatch, watch: Watch | None = None) -> list[BlockTask]:
    """Make `embed` run its calls in this process, since a worker takes seconds to start.

    Args:
        monkeypatch: of the test.
        watch: is called before each call, and may raise.

    Returns:
        The tasks that were run so far; a list that grows.
    """
    ran: list[BlockTask] = []

    class InThisProcess(InlinePool):
        def run(self, next_call: Callable[[], Call]) -> Iterator[tuple[Call, Any]]:
            def watched() -> Call:
                call = next_call()
                if watch:
                    watch(call[1])
                ran.append(call[1])
                return call

            return super().run(watched)

    monkeypatch.setattr("voxblink2_lib.embedding.run.WorkerPool", InThisProcess)
    monkeypatch.setattr(
        torch, "set_num_threads", lambda _: None
    )  # they are shared with other tests
    return ran


def cache_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `embed` use a folder of the test as its cache."""
    in_folder = functools.partial(cached_assets_path, assets_dir=folder)
    monkeypatch.setattr("voxblink2_lib.embedding.run.cached_assets_path", in_folder)
