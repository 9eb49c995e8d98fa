"""Calibration and fusion of score files: fitted, kept with what they were fitted on, applied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxblink2_lib import __version__
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.scoring.calibration import Calibration, fit_calibration
from voxblink2_lib.scoring.names import utterance_key
from voxblink2_lib.scoring.trials import TrialList
from voxblink2_lib.scoring.validation import Floats, check_number

_FORMAT = "voxblink2 score calibration 1"

# Any odd number of 64 bits, so that a pair and its reverse differ.
_ODD = np.uint64(0x9E3779B97F4A7C15)


class System(NamedTuple):
    """A system that was fitted: its file of scores, the digest of that, and the factor."""

    scores: str
    sha256: str
    weight: float


@dataclass(frozen=True)
class ScoreCalibration:
    """``llr = offset + sum of weight * score + sum of weight * quality measure``.

    Attributes:
        systems: the systems, in the order in which their scores are given; more than one is a
            fusion.
        offset: the constant term.
        quality: factor of each quality measure.
        quality_columns: the columns that these are of; none if the file had no header.
        is_log: measures are logarithms of what is in the file.
        p_target: prior for which the ratios are best.
        ridge: weight of the squared factors.
        trials: how many trials it was fitted on.
        targets: target trials among them.
        trials_sha256: see :func:`trials_digest`.
        sources: digests of the other files, by what they are.
        versions: of this library and of NumPy.
    """

    systems: tuple[System, ...]
    offset: float
    quality: dict[str, float]
    quality_columns: tuple[str, ...]
    is_log: bool
    p_target: float
    ridge: float
    trials: int
    targets: int
    trials_sha256: str
    sources: dict[str, str]
    versions: dict[str, str]

    def ratios(self, scores: Sequence[Floats], quality: Mapping[str, Floats]) -> Floats:
        """Return natural log-likelihood ratios, float64. Shape: [trials].

        Args:
            scores: of each system, in the order of the fit. Shape of each: [trials].
            quality: the measures; others than those of the fit are not used. Shape of each:
                [trials].

        Raises:
            ScoringError: another number of systems, or a measure is missing.
        """
        self.check_systems(len(scores))
        if missing := [name for name in self.quality if name not in quality]:
            raise ScoringError(
                f"the measure {shortened(missing[0])} is missing; this calibration was fitted with "
                f"{self.quality_text}. Name a file of them (--quality FILE)."
            )
        first, *others = (system.weight for system in self.systems)
        factors = dict(zip(map(_system_name, range(1, len(self.systems))), others, strict=True))
        columns = dict(zip(factors, scores[1:], strict=True))
        known = {name: quality[name] for name in self.quality}
        calibration = Calibration(first, self.offset, factors | self.quality)
        return calibration(scores[0], columns | known)

    @property
    def quality_text(self) -> str:
        """The names of the measures, for messages."""
        return shortened(", ".join(self.quality), quoted=False)

    def check_systems(self, count: int) -> None:
        """Refuse another number of systems.

        Raises:
            ScoringError: names those of the fit.
        """
        if count != len(self.systems):
            names = shortened(", ".join(each.scores for each in self.systems), quoted=False)
            raise ScoringError(
                f"This calibration takes as many files of scores as it was fitted on, "
                f"{len(self.systems)}, in this order: {names}; got {count}."
            )

    def fitted_on(self, digests: Sequence[str], trials: TrialList) -> str | None:
        """Return what is the same as in the fit; ``None`` if neither files nor trials are.

        Args:
            digests: SHA-256 of the files of scores.
            trials: their trials.
        """
        for number, digest in enumerate(digests, 1):
            if digest in {system.sha256 for system in self.systems}:
                return f"score file {number} is a file that it was fitted on"
        if trials_digest(trials) == self.trials_sha256:
            return f"the {self.trials:,} trials are those that it was fitted on"
        return None

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON.

        Raises:
            StoreError: the disk is full or fails.
        """
        with atomic_write(Path(path)) as file:
            file.write(json.dumps(self.as_dict(), indent=1).encode() + b"\n")

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration for JSON."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"format": _FORMAT, **record, "systems": [each._asdict() for each in self.systems]}

    @classmethod
    def load(cls, path: str | Path) -> ScoreCalibration:
        """Read what :meth:`save` wrote.

        Raises:
            ScoringError: the file is missing or no such calibration.
        """
        advice = "Name a file that 'score calibrate fit' wrote."
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ScoringError(f"{path} cannot be read: {error.strerror}. {advice}") from error
        with as_own_error(ScoringError, f"{path} cannot be read as a calibration", advice):
            record = json.loads(text)
            if record.pop("format", None) != _FORMAT:
                raise ScoringError(f'{path} lacks "format": "{_FORMAT}". {advice}')
            systems = tuple(
                System(str(each["scores"]), str(each["sha256"]), each["weight"])
                for each in record.pop("systems")
            )
            columns = tuple(map(str, record.pop("quality_columns")))
            calibration = cls(systems=systems, quality_columns=columns, **record)
            numbers = [calibration.trials, calibration.p_target, calibration.offset]
            numbers += [system.weight for system in systems]
            for number in (*numbers, *calibration.quality.values()):
                check_number(f"{path}: what is fitted", number)
            if not systems:
                raise ScoringError(f"{path} has no system. {advice}")
            return calibration


class FitInputs(NamedTuple):
    """What a calibration is fitted on.

    Attributes:
        paths: the file of scores of each system.
        digests: their SHA-256.
        scores: of each system. Shape of each: [trials].
        trials: the list, with labels.
        quality: the measures. Shape of each: [trials].
        quality_columns: the columns that were named for them.
        is_log: they are logarithms of what is in the file.
        sources: digests of the other files, by what they are.
    """

    paths: Sequence[str]
    digests: Sequence[str]
    scores: Sequence[Floats]
    trials: TrialList
    quality: Mapping[str, Floats]
    quality_columns: Sequence[str]
    is_log: bool
    sources: Mapping[str, str]


def fit_score_calibration(
    inputs: FitInputs, *, p_target: float = 0.5, ridge: float = 0.0
) -> ScoreCalibration:
    """Fit a calibration of one system, or a fusion of several.

    Args:
        inputs: scores, labels and measures.
        p_target: prior for which the ratios are optimized.
        ridge: see :func:`~voxblink2_lib.scoring.calibration.fit_calibration`.

    Raises:
        ScoringError: see there.
    """
    others = {_system_name(row): column for row, column in enumerate(inputs.scores) if row}
    fitted = fit_calibration(
        inputs.scores[0],
        inputs.trials.labels,
        quality={**others, **inputs.quality},
        p_target=p_target,
        ridge=ridge,
    )
    weights = [fitted.slope, *(fitted.quality[name] for name in others)]
    names = [Path(path).name for path in inputs.paths]
    return ScoreCalibration(
        systems=tuple(map(System, names, inputs.digests, weights)),
        offset=fitted.offset,
        quality={name: fitted.quality[name] for name in inputs.quality},
        quality_columns=tuple(inputs.quality_columns),
        is_log=inputs.is_log,
        p_target=p_target,
        ridge=ridge,
        trials=len(inputs.trials.enrolment),
        targets=int(np.count_nonzero(np.asarray(inputs.trials.labels))),
        trials_sha256=trials_digest(inputs.trials),
        sources=dict(inputs.sources),
        versions={"voxblink2": __version__, "numpy": np.__version__},
    )


def _system_name(row: int) -> str:
    return f"scores of system {row + 1}"


def trials_digest(trials: TrialList) -> str:
    """Return a digest of a set of trials, whatever their order and the spelling of names."""
    keys = np.array(
        [
            int.from_bytes(hashlib.sha256(utterance_key(name).encode()).digest()[:8], "little")
            for name in trials.names
        ],
        np.uint64,
    )
    pairs = np.sort(keys[trials.enrolment] * _ODD + keys[trials.test])
    once = pairs[np.append(True, pairs[1:] != pairs[:-1])]
    return hashlib.sha256(once.astype("<u8").tobytes()).hexdigest()
