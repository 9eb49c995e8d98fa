"""Open-set protocols: reading their lists, and what of them has an embedding."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.trial_lists import labelled_places, read_labelled
from voxblink2_lib.scoring.trials import Missing, Places
from voxblink2_lib.scoring.validation import Flags, Rows, check_choice

# More digits than a speaker's number has would take long to convert.
_INTEGER = re.compile(r"[+-]?[0-9]{1,100}(\.0*)?")


def numbered_rows(rows: Sequence[int]) -> list[str]:
    """Return the places of rows that were read from no file.

    >>> numbered_rows([0, 4])
    ['row 1', 'row 5']
    """
    return [f"row {row + 1:,}" for row in rows]


@dataclass(frozen=True)
class OpenSetProtocol:
    """An open-set protocol: labelled lists of enrolled utterances and of probes.

    Attributes:
        name: such as ``Small_120/perspk1``.
        gallery: names of enrolled utterances.
        gallery_labels: their speakers.
        probes: names of probes.
        probe_labels: their speakers; one that is not in the gallery is unknown.
        gallery_places: returns where rows of the gallery are, for messages: file and line, if it
            was read.
        probe_places: the same for probes.
    """

    name: str
    gallery: list[str]
    gallery_labels: list[str]
    probes: list[str]
    probe_labels: list[str]
    gallery_places: Places = field(default=numbered_rows, compare=False)
    probe_places: Places = field(default=numbered_rows, compare=False)


@dataclass(frozen=True, eq=False)
class ProtocolCoverage:
    """What of a protocol can be scored with some embeddings.

    Attributes:
        gallery: rows of the enrolled embeddings. Shape: [enrolled].
        gallery_labels: their speakers. Shape: [enrolled].
        probes: rows of the probes' embeddings. Shape: [scored].
        probe_labels: their speakers. Shape: [scored].
        missing: names without an embedding.
        lost_speakers: speakers of the gallery without any embedding.
        lost_probes: number of their probes.
    """

    gallery: Rows
    gallery_labels: npt.NDArray[np.str_]
    probes: Rows
    probe_labels: npt.NDArray[np.str_]
    missing: list[str]
    lost_speakers: list[str]
    lost_probes: int


def read_protocols(folder: str | Path) -> list[OpenSetProtocol]:
    """Read the open-set protocols in or below a folder, the smallest gallery first.

    A protocol is a folder with the files ``gallery`` and ``probe``, each line an utterance and its
    label.

    Args:
        folder: the folder, or that of the release, which has its protocols in ``data/ossi``.

    Raises:
        ScoringError: there is no protocol, or a file is not such a list.
    """
    top = _top_folder(folder)
    protocols = []
    for path in sorted({file.parent for file in protocol_files(folder)}):
        name = path.relative_to(top).as_posix() if path != top else top.resolve().name
        (gallery, enrolled), (probes, truth) = map(
            read_labelled, (path / "gallery", path / "probe")
        )
        labels = _plain_labels([*enrolled, *truth])
        enrolled, truth = labels[: len(enrolled)], labels[len(enrolled) :]
        places = (partial(labelled_places, path / file) for file in ("gallery", "probe"))
        protocols.append(OpenSetProtocol(name, gallery, enrolled, probes, truth, *places))
    if not protocols:
        raise ScoringError(
            f"{folder} contains no open-set protocol: a folder with the files 'gallery' and "
            "'probe'. The release has them in data/ossi."
        )
    return sorted(protocols, key=_gallery_size)


def protocol_files(folder: str | Path) -> list[Path]:
    """Return the files of the protocols in or below a folder, sorted.

    Raises:
        ScoringError: it is no folder.
    """
    top = _top_folder(folder)
    files = {
        file for name in ("gallery", "probe") for file in (top / name, *top.glob(f"**/{name}"))
    }
    return sorted(file for file in files if file.is_file())


def _top_folder(folder: str | Path) -> Path:
    # A release holds millions of files beside its protocols.
    inner = (Path(folder) / name for name in ("data/ossi", "ossi"))
    top = next(filter(os.path.isdir, inner), Path(folder))
    if not top.is_dir():
        raise ScoringError(f"{folder} is not a folder. The release has its protocols in data/ossi.")
    return top


def _plain_labels(labels: list[str]) -> list[str]:
    """Return labels, the same integer always in the same spelling if all are integers.

    >>> _plain_labels(["00", "0.0", "-1", "12"]), _plain_labels(["00", "0", "x"])
    (['0', '0', '-1', '12'], ['00', '0', 'x'])
    """
    words = set(labels)
    if not all(map(_INTEGER.fullmatch, words)):
        return labels
    integers = {word: str(int(word.partition(".")[0])) for word in words}
    return [integers[label] for label in labels]


def _gallery_size(protocol: OpenSetProtocol) -> tuple[int, int]:
    return len(set(protocol.gallery_labels)), len(protocol.gallery)


def cover_protocol(
    protocol: OpenSetProtocol, embeddings: Embeddings, *, missing: Missing = "error"
) -> ProtocolCoverage:
    """Find out what of a protocol can be scored.

    Args:
        protocol: the lists.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out utterances without an embedding, and probes
            of speakers of whom no enrolled utterance is left.

    Raises:
        ScoringError: an utterance has no embedding; or no enrolled utterance or no probe is left.
    """
    check_choice("missing", missing, get_args(Missing))
    rows = embeddings.rows_of([*protocol.gallery, *protocol.probes])
    gallery, probes = np.split(rows, [len(protocol.gallery)])
    labels, truth = np.array(protocol.gallery_labels), np.array(protocol.probe_labels)
    absent = _without_row(protocol.gallery, gallery) + _without_row(protocol.probes, probes)
    if absent and missing == "error":
        raise ScoringError(
            f"{protocol.name}: {len(absent):,} of {len(gallery) + len(probes):,} utterances have "
            f"no embedding in {embeddings.source}. Names without a match: "
            f"{embeddings.index.unmatched_text(absent)}. To leave such utterances out and have "
            "them counted: missing='skip' (--missing skip)."
        )
    enrolled: Flags = gallery >= 0
    lost = np.setdiff1d(labels, labels[enrolled])
    is_lost = np.isin(truth, lost)
    scored: Flags = (probes >= 0) & ~is_lost
    if not enrolled.any() or not scored.any():
        raise ScoringError(
            f"{protocol.name}: no {'probe' if enrolled.any() else 'gallery utterance'} that could "
            f"be scored has an embedding in {embeddings.source}. Names without a match: "
            f"{embeddings.index.unmatched_text(absent)}."
        )
    return ProtocolCoverage(
        gallery=gallery[enrolled],
        gallery_labels=labels[enrolled],
        probes=probes[scored],
        probe_labels=truth[scored],
        missing=absent,
        lost_speakers=lost.tolist(),
        lost_probes=int(is_lost.sum()),
    )


def _without_row(names: Sequence[str], rows: Rows) -> list[str]:
    return [names[row] for row in np.flatnonzero(rows < 0).tolist()]
