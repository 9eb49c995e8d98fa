"""A store with transcripts to look at: the demo, from a folder of media."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from support import cli_process
from support.speaker_files import transcripts_of, write_speakers
from voxblink2_lib.release.builtin import MEDIA, RELEASE

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


def digests(store: Path) -> dict[str, str]:
    """Return a digest of every file of a store, by its path in it."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
