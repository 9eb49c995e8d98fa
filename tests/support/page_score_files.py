"""The files of trials, embeddings and scores that the page about scoring names, small."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Vectors = npt.NDArray[np.float32]
Row = tuple[str, str, bool]
SPEAKERS, EACH, SIZE = 12, 4, 16
_COHORT = 320


def names_of(first: int) -> list[str]:
    """Return names of utterances as VoxCeleb has them, of speakers from a number on."""
    return [
        f"id{first + speaker}/abcdefghi{speaker:02}/{number:05}.wav"
        for speaker in range(SPEAKERS)
        for number in range(EACH)
    ]


def pairs(names: Sequence[str]) -> list[Row]:
    """Return all trials of some utterances, and whether they are of one speaker."""
    count = len(names)
    return [(names[a], names[b], a // EACH == b // EACH) for a in range(count) for b in range(a)]


# -- Embeddings ------------------------------------------------------------------------------------


def write_embeddings(folder: Path) -> None:
    """Write embeddings in three formats, a cohort, lists of trials, and facts about utterances."""
    names, vectors = names_of(10000), _vectors()
    table = pa.table({"utterance": names, "embedding": list(vectors)})
    pq.write_table(table, folder / "embeddings.parquet")
    (folder / "data" / "archive").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "embeddings.parquet", folder / "data" / "archive")
    with kaldiio.WriteHelper(f"ark,scp:{folder}/xvector.ark,{folder}/xvector.scp") as file:
        for name, vector in zip(names, vectors, strict=True):
            file(name, vector)
    np.save(folder / "embeddings.npy", vectors)
    _write(folder / "embeddings.txt", names, lambda name: name)
    cohort = np.random.default_rng(1).normal(size=(_COHORT, SIZE)).astype(np.float32)
    np.save(folder / "cohort.npy", cohort)
    _write(folder / "cohort.txt", range(_COHORT), lambda row: f"other{row:04}")
    _write_lists(folder, names)


def _vectors() -> Vectors:
    rng = np.random.default_rng(13)
    centres = np.repeat(rng.normal(size=(SPEAKERS, SIZE)), EACH, axis=0)
    return (centres + 1.1 * rng.normal(size=centres.shape)).astype(np.float32)


def _write_lists(folder: Path, names: Sequence[str]) -> None:
    trials = pairs(names)
    _write(folder / "vox1_o.txt", trials, lambda row: f"{row[2]:d} {row[0]} {row[1]}")
    _write(folder / "utt2gender", names, lambda name: f"{name} {'fm'[_speaker(name) % 2]}")
    header = "enrol\ttest\tlabel\tgender\tsource_type\n"
    lines = (f"{a}\t{b}\t{same:d}\t{_gender(a, b)}\t{_type(a, b)}\n" for a, b, same in trials)
    (folder / "key.tsv").write_text(header + "".join(lines))
    models = {f"id{10000 + s}-enroll": names[s * EACH : s * EACH + 2] for s in range(SPEAKERS)}
    _write(folder / "enroll.map", models, lambda model: f"{model} {' '.join(models[model])}")
    probes = [(model, name) for model in models for name in names[EACH - 1 :: EACH]]
    _write(folder / "trials.lst", probes, lambda row: f"{row[0]} {row[1]} {_label(*row)}")


def _speaker(name: str) -> int:
    return int(name[2:7])


def _gender(a: str, b: str) -> str:
    return "".join("fm"[_speaker(name) % 2] for name in (a, b))


def _type(a: str, b: str) -> str:
    return "talk" if (_speaker(a) + _speaker(b)) % 3 else "phone"


def _label(a: str, b: str) -> str:
    return "target" if _speaker(a) == _speaker(b) else "nontarget"


def _write(path: Path, rows: Iterable[Any], line: Callable[[Any], str]) -> None:
    path.write_text("".join(f"{line(row)}\n" for row in rows))


# -- Open-set protocols ----------------------------------------------------------------------------


def write_protocols(folder: Path) -> None:
    """Enrol so many utterances of each known speaker; everybody's last utterance is a probe."""
    sizes: Mapping[str, int] = {"Small_120": 4, "Medium_1.2k": 5, "Large_12k": 6}
    for size, known in sizes.items():
        for each in (1, 3, 5):
            place = folder / size / f"perspk{each}"
            place.mkdir(parents=True)
            gallery = [(s, n) for s in range(known) for n in range(min(each, EACH - 1))]
            probes = [(s, EACH - 1) for s in range(SPEAKERS)]
            for kind, rows in {"gallery": gallery, "probe": probes}.items():
                text = "".join(f"{_dashed(s, n)} {min(s, known)}\n" for s, n in rows)
                (place / kind).write_text(text)


def _dashed(speaker: int, number: int) -> str:
    name = names_of(10000)[speaker * EACH + number]
    return name.removesuffix(".wav").replace("/", "-")


# -- Scores ----------------------------------------------------------------------------------------


def write_systems(folder: Path) -> None:
    """Write scores of two systems: of trials to calibrate with, of others, and of vox1_o.txt."""
    for kind, first in {"dev": 20000, "eval": 30000}.items():
        names = names_of(first)
        for seed, suffix in enumerate(("", "_a", "_b")):
            _write_scores(folder / f"{kind}{suffix}.txt", pairs(names), first + seed)
        seconds = np.random.default_rng(first).uniform(2, 20, len(names))
        rows = [f"{name} {value:.2f}" for name, value in zip(names, seconds, strict=True)]
        _write(folder / f"{kind}_utt2dur", rows, lambda row: row)
    trials = pairs(names_of(10000))
    for seed, name in enumerate(("a.txt", "b.txt", "other_tool.txt")):
        _write_scores(folder / name, trials, seed, has_labels=name != "other_tool.txt")


def _write_scores(path: Path, trials: Sequence[Row], seed: int, *, has_labels: bool = True) -> None:
    rng = np.random.default_rng(seed)
    lines = []
    for enrolment, test, same in trials:
        label = f" {_label(enrolment, test)}" if has_labels else ""
        lines.append(f"{enrolment} {test} {rng.normal(2.0 * same, 1.0):.6f}{label}")
    _write(path, lines, lambda line: line)
