"""Where what was purged still is: caches of datasets, exports, files of embeddings."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st
from support import cli_process

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.purge.ids import read_purged_ids
from voxblink2_lib.purge.run import plan_purge, purge_store
from voxblink2_lib.purge.traces import ids_in
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.provenance import Provenance, note_copy

NAMES = ["id990001/demoHarbour/00001", "id990002/demoKitchen/00001", "id990003/-demoSailor/00002"]
PURGED = {
    "id990002": [1],
    "-demoSailor": [2],
    "id990001/demoHarbour/00001": [0],
}


def stones(*ids: str) -> Tombstones:
    return Tombstones(b"salt" * 4).added(read_purged_ids(ids), reason="asked")


def write(path: Path, names: list[str]) -> Path:
    """Write names into a file, in the form that its extension says."""
    text = "".join(f"{name} {name}.flac\n" for name in names)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif path.name == "names.parquet":
        pq.write_table(pa.table({"name": names, "embedding": [[1.0]] * len(names)}), path)
    elif path.suffix == ".parquet":
        ids = zip(*(name.split("/") for name in names), strict=True)
        columns = dict(zip(("speaker_id", "video_id", "utterance_id"), map(list, ids), strict=True))
        pq.write_table(pa.table(columns), path, compression="zstd")
    elif path.suffix == ".npz":
        np.savez_compressed(path, names=np.array(names))
    elif path.suffix == ".npy":
        np.save(path, np.array([dict.fromkeys(names, 1.0)], dtype=object), allow_pickle=True)
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("purged", PURGED)
@pytest.mark.parametrize(
    "file", ["wav.scp", "list.gz", "names.parquet", "columns.parquet", "all.npz", "all.npy"]
)
def test_files_of_names(tmp_path: Path, file: str, purged: str) -> None:
    tombstones = stones(purged)
    assert ids_in(write(tmp_path / file, NAMES), tombstones) == {purged}
    rest = [name for place, name in enumerate(NAMES) if place not in PURGED[purged]]
    assert ids_in(write(tmp_path / file, rest), tombstones) == set()


def test_names_of_files_of_an_export(tmp_path: Path) -> None:
    path = tmp_path / "id990003" / "-demoSailor" / "00002.flac"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"fLaC")
    assert ids_in(path, stones("-demoSailor")) == {"-demoSailor"}
    assert ids_in(path, stones("id990001")) == set()


@given(
    before=st.text(alphabet="abc/ -_.\n", max_size=8),
    after=st.text(alphabet="xyz/ .\n", max_size=8),
)
def test_an_id_is_seen_within_any_text(before: str, after: str) -> None:
    for name in ("id990002", "-demoSailor"):
        assert name in set(stones(name).names_in(f"{before}{name}{after}".encode()))


def test_a_load_after_a_purge_has_none_of_it_and_the_cache_before_is_named(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    assets = tmp_path / "assets" / "voxblink2" / "embeddings"
    assets.mkdir(parents=True)
    write(assets / "names.parquet", NAMES)
    store = Path(shutil.copytree(undisturbed, tmp_path / "store"))

    def load(**options: object) -> datasets.Dataset:
        return load_dataset("voxblink2", store=str(store), split="train", **options)

    before = load()
    ids = read_purged_ids(["id990002"])
    assert len(plan_purge(Store(store), ids).caches) == 2
    result = purge_store(Store(store), ids)
    cache, embeddings = result.caches
    assert embeddings == str(assets / "names.parquet")
    assert cache == str(Path(before.cache_files[0]["filename"]).parent)
    after = load()
    assert after._fingerprint != before._fingerprint
    names = {row for row in before["speaker_id"] if row != "id990002"}
    assert set(after["speaker_id"]) == names
    assert len(after) == sum(row != "id990002" for row in before["speaker_id"])
    streamed = load(streaming=True)
    assert {row["speaker_id"] for row in streamed.remove_columns("audio")} == names
    some = load(speakers=["id990001", "id990002"])
    assert set(some["speaker_id"]) == {"id990001"}
    shutil.rmtree(cache)
    shutil.rmtree(assets)
    assert purge_store(Store(store), read_purged_ids([])).caches == ()


def test_exports_and_embeddings_of_rewritten_shards_are_named(
    undisturbed: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    out = tmp_path / "export"
    cli_process.run_inline("export", "csv", "--store", store, "--to", out, "--workers", 1)
    manifest = json.loads((out / "voxblink2-export.json").read_text())
    assert len(manifest["store_id"]) == 32
    embeddings = tmp_path / "names.parquet"
    origin = Provenance.of(manifest["store_id"], manifest["shards"].values())
    pq.write_table(pa.table({"name": NAMES[:1]}, metadata=origin.as_metadata()), embeddings)
    note_copy(str(embeddings), origin)
    words = ("purge", "id990002", "--store", store)
    dry = cli_process.run_inline_json(*words, "--dry-run", code=1)
    done = cli_process.run_inline_json(*words)
    again = cli_process.run_inline("purge", "--store", store)
    assert dry["copies"] == done["copies"] == [str(out), str(embeddings)]
    assert f"Copy     made before, look with --check: {embeddings}" in again.stdout
    check = ("purge", "--check", out, embeddings, "--store", store)
    left = cli_process.run_inline_json(*check, code=1)
    assert left["traces"]
    assert all(out in Path(trace["path"]).parents for trace in left["traces"])
    assert str(embeddings) in left["made_from_purged"]
    # What is exported again has nothing of it.
    cli_process.run_inline("export", "csv", "--store", store, "--to", out, "--workers", 1)
    note = cli_process.run_inline(*check)
    assert f"Made     {embeddings} was made from" in note.stdout
    assert cli_process.run_inline_json("purge", "--store", store)["copies"] == [str(embeddings)]


def test_the_command(undisturbed: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(undisturbed, tmp_path / "my store"))
    names = write(tmp_path / "names.txt", NAMES)
    listed = tmp_path / "takedown.txt"
    listed.write_text("id990002  # asked\nid990002/demoChess_1/00001.wav\nid000009\n")
    words = ("purge", listed, "--reason", "asked", "--store", store)
    dry = cli_process.run_inline_json(*words, "--dry-run", code=1)
    assert (dry["dry_run"], dry["unknown"]) == (True, ["id000009"])
    nothing = cli_process.run_inline("purge", "--check", names, "--store", store, code=2)
    assert "Nothing was purged" in nothing.stderr
    done = cli_process.run_inline(*words)
    assert "Unknown  not in the store, and kept out of it: id000009" in done.stdout
    assert f"{dry['clips']:,} clips removed" in done.stdout
    left = cli_process.run_inline_json("purge", "--check", names, "--store", store, code=1)
    assert [trace["path"] for trace in left["traces"]] == [str(names)]
    names.write_text("\n".join(name for name in NAMES if "id990002" not in name))
    whole = cli_process.run_inline("purge", "--check", names, "--store", store)
    assert whole.stdout == "Nothing is left\n"
    for command in ("verify", "status", "report"):
        out = ("--out", tmp_path / "report.html") if command == "report" else ()
        cli_process.run_inline(command, "--store", store, *out)
    cli_process.run_inline("repair", "--store", store, "--no-fetch")
    wrong = cli_process.run_inline("purge", "nobody", "--store", store, code=2)
    assert "neither an id nor a readable text file" in wrong.stderr
    absent = cli_process.run_inline("purge", "--check", "absent", "--store", store, code=2)
    assert "no file or folder absent" in absent.stderr
    both = cli_process.run_inline("purge", "id990001", "--check", names, "--store", store, code=2)
    assert "Leave out ids" in both.stderr
