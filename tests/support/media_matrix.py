"""Runs over the self-naming files: many videos at once, as a user's folder holds them."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import soundfile

from support import cli_process
from support.inline_pool import InlinePool
from support.release_builder import voxblink2, write_release
from support.self_naming import SPANS, Floats, Recipe, make
from support.synthetic_audio import MediaCache
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.records import SAMPLE_RATE_HZ, ConfigName

_SPEAKER = "id000001"
_BOX = (100, 40, 80, 80)
_RENDERERS = 2


@dataclass
class CutVideo:
    """What a run made of a video.

    Attributes:
        status: its class in the ledger.
        reason: the reason in the ledger.
        clips: samples of each utterance that was cut, by its name.
        faces: MP4 of each utterance's face, by its name; none if only audio was cut.
        missing: reason of each utterance that was not cut.
    """

    status: str = "planned"
    reason: str = ""
    clips: dict[str, Floats] = field(default_factory=dict, repr=False)
    faces: dict[str, bytes] = field(default_factory=dict, repr=False)
    missing: dict[str, str] = field(default_factory=dict)


def cut_all(cache: MediaCache, recipes: Sequence[Recipe], folder: Path) -> dict[str, CutVideo]:
    """Cut the files of some recipes, those with pictures and the others; return them by name."""
    with ThreadPoolExecutor(_RENDERERS) as renderers:
        made = renderers.map(lambda recipe: (recipe, make(cache, recipe)), recipes)
        paths = dict(made)
    results: dict[str, CutVideo] = {}
    configs: tuple[ConfigName, ...] = ("audio", "audio-visual")
    for config in configs:
        chosen = {
            recipe.name: {f".{recipe.extension}": path}
            for recipe, path in paths.items()
            if recipe.with_video == (config == "audio-visual")
        }
        if chosen:
            results |= cut_files(chosen, folder / config, config=config)
    return results


def cut_files(
    videos: Mapping[str, Mapping[str, Path]], folder: Path, *, config: ConfigName
) -> dict[str, CutVideo]:
    """Cut some videos in one run, in this process.

    Args:
        videos: the files of each video by what follows its id in their names.
        folder: an empty one, for corpus and store.
        config: what is cut.

    Returns:
        What became of each video, by its name in ``videos``.
    """
    names = {f"matrix{number:05}": name for number, name in enumerate(videos)}
    for video, name in names.items():
        _add_video(folder, video, videos[name])
    store = folder / "store"
    request = MaterializeRequest(
        config=config,
        data_dir=str(folder),
        source=str(folder / "media"),
        store=str(store),
        workers=1,
        clips={"video_size": 32} if config == "audio-visual" else {},
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", InlinePool)
        materialize(request, retry=False, wait=False)
    found = _read(store, config)
    return {name: found.get(video, CutVideo()) for video, name in names.items()}


def _add_video(folder: Path, video: str, files: Mapping[str, Path]) -> None:
    for first, last in SPANS:
        rows = [(frame, *_BOX) for frame in range(first, last + 1)]
        annotation = voxblink2(rows, speaker=_SPEAKER, video=video)
        write_release(folder, {f"meta/{_SPEAKER}/{video}/{first:05}.txt": annotation})
    media = folder / "media" / _SPEAKER
    media.mkdir(parents=True, exist_ok=True)
    for ending, path in files.items():
        os.symlink(path, media / f"{video}{ending}")


def _read(store: Path, config: ConfigName) -> dict[str, CutVideo]:
    results: dict[str, CutVideo] = {}
    database = sqlite3.connect(f"file:{store / 'ledger.sqlite'}?mode=ro", uri=True)
    for video, status, reason in database.execute("select video_id, status, reason from videos"):
        results[video] = CutVideo(status, reason)
    for video, name, reason in database.execute(
        "select video_id, utterance_id, reason from missing"
    ):
        results[video].missing[name] = reason
    database.close()
    for row in cli_process.rows(store, config):
        result, name = results[row["video_id"]], row["utterance_id"]
        samples, rate_hz = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float64")
        assert rate_hz == SAMPLE_RATE_HZ
        result.clips[name] = samples
        if config == "audio-visual":
            result.faces[name] = row["video"]["bytes"]
    return results
