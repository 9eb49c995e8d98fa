"""A store with transcripts to look at: the demo, from a folder of media."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from support import cli_process
from support.speaker_files import transcripts_of, write_speakers
from voxblink2_lib.browse.browser import StoreBrowser
from voxblink2_lib.browse.query import Query
from voxblink2_lib.release.builtin import MEDIA, RELEASE
from voxblink2_lib.store.layout import Store

SPEAKERS = [f"id99000{number}" for number in range(1, 9)]
SAID = {"id990001": ["demoHarbour", "demo_Garden"], "id990003": ["-demoSailor"]}


def make_release(folder: Path) -> Path:
    """Copy the built-in release, and add transcripts of three videos."""
    shutil.copytree(RELEASE, folder)
    files = {
        "id990001": transcripts_of("id990001", SAID["id990001"], words="The harbour, 100% of"),
        "id990003": transcripts_of("id990003", SAID["id990003"], language="de", words="Wörter zu"),
    }
    write_speakers(folder, "asr_res", files)
    return folder


def make_store(folder: Path, *more: object, config: str = "audio") -> Path:
    """Make a store of all of the demo, or what more words of the command line select."""
    release = make_release(folder / "release")
    store = folder / "store"
    cli_process.run_inline(
        *("materialize", "--data-dir", release, "--store", store, "--source", MEDIA),
        *("--config", config, *more),
    )
    return store


def make_mixed_store(folder: Path) -> Path:
    """Make a store of all of the demo with audio, and with faces."""
    store = make_store(folder)
    cli_process.run_inline(
        *("materialize", "--data-dir", folder / "release", "--store", store, "--source", MEDIA),
        *("--config", "audio-visual"),
    )
    return store


def write_suspects(folder: Path, store: Path) -> Path:
    """Write lists as ``voxblink2 purity`` does, with every utterance of a store; return where."""
    browser = StoreBrowser.open(Store(store), exclude=folder.parent / "unused.txt")
    keys = [row.key for row in browser.search.page(Query(), most=1000).rows]
    folder.mkdir()
    far = "".join(f"{key.name},2.00,0.1000\n" for key in keys)
    (folder / "far.csv").write_text(f"name,seconds,cosine\n{far}", "utf-8")
    mixed = f"{keys[0].speaker_id},0.1500,20,5,{keys[0].video_id}\n"
    head = "speaker_id,cosine,utterances,of_second_voice,videos\n"
    (folder / "two_voices.csv").write_text(head + mixed, "utf-8")
    return folder


def digests(store: Path) -> dict[str, str]:
    """Return a digest of every file of a store, by its path in it."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
