"""What the marker ``with`` puts in place: what a reader has, and a page does not make."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch

from support import cli_process, sounds, tiny_models
from support.bucket import bucket_server
from support.hub_server import hub_of_processes
from support.model_oracle import small_extractor, small_model
from support.ossi_builder import OssiCorpus
from support.page_score_files import write_embeddings, write_protocols, write_systems
from support.page_session import PageSession, Preparation
from voxblink2_lib.training import Corpus

# -- Stores ----------------------------------------------------------------------------------------


def demo_store(session: PageSession) -> None:
    """Put a store of the demo at /data/voxblink2."""
    place = session.folder / "data" / "voxblink2"
    if not place.exists():
        shutil.copytree(session.demo_store(), place)


def store(session: PageSession) -> None:
    """Put a store of the demo at STORE, and name it and its release."""
    shutil.copytree(session.demo_store(), session.folder / "STORE")
    session.names |= {"STORE": "STORE", "RELEASE": "demo"}


def validation_list(session: PageSession) -> None:
    """Write validation.txt, the list of two speakers of STORE who are for validation."""
    options = ("--store", "STORE", "--validation-speakers", 2, "--seed", 1)
    cli_process.run_inline("split", *options, "--out", session.folder / "validation.txt")


def archive(session: PageSession) -> None:
    """Put an archive of cut audio at /data/parts, with its checksums, and its release at release.

    The same archive is at /data/voxblink1.
    """
    corpus, data = OssiCorpus(), session.folder / "data"
    parts = corpus.write_parts(data / "parts")
    corpus.write_release(session.folder / "release")
    (parts / "md5sums.txt").write_text(_md5_sums(parts))
    shutil.copytree(parts, data / "voxblink1")


def _md5_sums(folder: Path) -> str:
    files = sorted(folder.glob("*.tar.gz.*"))
    return "".join(f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def bucket(session: PageSession) -> None:
    """Run an S3 server with an empty bucket."""
    session.stack.enter_context(bucket_server(session.patched)).mkdir("bucket")


def hub(session: PageSession) -> None:
    """Run a Hub that this process, and those that it starts, take for the Hub."""
    session.stack.enter_context(hub_of_processes(session.patched))


# -- Scores ----------------------------------------------------------------------------------------


def scores(session: PageSession) -> None:
    """Name the scores, labels and speakers of 400 trials."""
    rng = np.random.default_rng(5)
    labels = np.arange(400) % 2 == 1
    enrolled = rng.integers(0, 20, 400)
    session.names |= {
        "scores": rng.normal(labels * 2.0, 1.0),
        "labels": labels.astype(np.int64),
        "enrolment_speakers": enrolled,
        "test_speakers": np.where(labels, enrolled, (enrolled + 7) % 20),
    }


def embeddings(session: PageSession) -> None:
    """Write embeddings, lists of trials, facts about utterances, and the open-set protocols."""
    write_embeddings(session.folder)
    write_protocols(session.folder / "data" / "ossi")


def two_systems(session: PageSession) -> None:
    """Write scores of two systems, in vox1_o.txt's trials and in others."""
    write_systems(session.folder)


# -- Models and training ---------------------------------------------------------------------------


def model(session: PageSession) -> None:
    """Write a small model to resnet34, and name waveforms and the labels of a batch."""
    folder = session.folder / "resnet34"
    if not folder.exists():
        tiny_models.save_small(folder)
    short, long = tiny_models.voice(1, 1.0), tiny_models.voice(2, 1.5)
    session.names |= {"short": short, "long": long, "waveforms": [short, long]}
    session.names["labels"] = torch.tensor([0, 1])


def classifier(session: PageSession) -> None:
    """Name a small model with a head for the labels of the demo, its extractor, and a device."""
    demo_store(session)
    classes = 3 * len(Corpus.open(session.folder / "data" / "voxblink2").speakers)
    session.names |= {
        "extractor": small_extractor(),
        "model": small_model("basic-gsp", num_speakers=classes),
        "device": torch.device("cpu"),
    }


def training_step(session: PageSession) -> None:
    """Name what a training script of the reader has: its ranks, its step, its saving."""
    session.names |= {"rank": 0, "world_size": 1, "train": _nothing, "save": _nothing}


def _nothing(*_: object) -> None:
    pass


def noises(session: PageSession) -> None:
    """Write an impulse response to RIRS_NOISES, and recordings of each kind to musan."""
    impulse = np.zeros(800, np.float32)
    impulse[40], impulse[400] = 0.9, 0.2
    sounds.write(session.folder / "RIRS_NOISES" / "room.wav", impulse)
    for hz, kind in ((300, "noise"), (500, "music"), (700, "speech")):
        for number in range(3):
            sound = sounds.tone(hz + 10 * number, 3 * sounds.SECOND)
            sounds.write(session.folder / "musan" / kind / f"{number}.wav", sound)


PREPARATIONS: dict[str, Preparation] = {
    "archive": archive,
    "bucket": bucket,
    "classifier": classifier,
    "demo store": demo_store,
    "embeddings": embeddings,
    "hub": hub,
    "model": model,
    "noises": noises,
    "scores": scores,
    "store": store,
    "training step": training_step,
    "two systems": two_systems,
    "validation list": validation_list,
}
