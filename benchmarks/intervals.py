"""Measure how often 95% intervals cover the true rate, on simulated trials of speakers.

Scores are normal, with an effect of each speaker on target trials and one on non-target trials, so
that the true rates are known. The share of repetitions whose interval covers them is printed for
BCa and percentile intervals, with how many of the intervals are marked; and the processor time of
1,000 resamples. Coverage does not depend on the machine.

Example:
    python benchmarks/intervals.py
    python benchmarks/intervals.py --quick
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from figures import Figure, figure, run_benchmark
from scipy.optimize import minimize_scalar

from voxblink2_lib.scoring import bootstrap_intervals
from voxblink2_lib.scoring.intervals import Interval, Method
from voxblink2_lib.scoring.validation import Floats

_NORMAL = NormalDist()


class Design(NamedTuple):
    """Simulated trials, half of them target trials.

    Attributes:
        name: for the table.
        trials: number of trials.
        eer: true equal error rate.
        speakers: number of speakers; 0 for independent trials.
        target_effect: deviation of the speakers' effects on target trials; noise has 1.
        nontarget_effect: the same on either side of non-target trials.
        p_target: prior of minDCF.
    """

    name: str
    trials: int
    eer: float
    speakers: int = 0
    target_effect: float = 0.5
    nontarget_effect: float = 0.4
    p_target: float = 0.01

    @property
    def deviations(self) -> tuple[float, float]:
        """Deviations of the scores of targets and of non-targets."""
        if not self.speakers:
            return 1.0, 1.0
        return (1 + self.target_effect**2) ** 0.5, (1 + 2 * self.nontarget_effect**2) ** 0.5

    @property
    def distance(self) -> float:
        """Mean of the target scores; that of the others is 0."""
        return -_NORMAL.inv_cdf(self.eer) * sum(self.deviations)

    @property
    def min_dcf(self) -> float:
        """The true minimum of the normalized cost."""
        target, nontarget = self.deviations
        prior = self.p_target

        def cost(threshold: float) -> float:
            miss = _NORMAL.cdf((threshold - self.distance) / target)
            accept = 1 - _NORMAL.cdf(threshold / nontarget)
            return (prior * miss + (1 - prior) * accept) / min(prior, 1 - prior)

        grid = np.linspace(-1, self.distance + 4, 500)
        near = float(min(grid, key=cost))
        return float(minimize_scalar(cost, bounds=(near - 0.1, near + 0.1)).fun)

    def draw(self, seed: int) -> tuple[Floats, Any, tuple[Any, Any] | None]:
        """Return scores, labels and the speakers of both sides."""
        generator = np.random.default_rng(seed)
        labels = np.arange(self.trials) % 2
        scores = generator.normal(self.distance * labels)
        if not self.speakers:
            return scores, labels, None
        enrolment = np.arange(self.trials) // 2 % self.speakers
        step = generator.integers(1, self.speakers, self.trials)
        test = np.where(labels, enrolment, (enrolment + step) % self.speakers)
        effects = generator.normal(size=(2, self.speakers))
        of_pairs = self.nontarget_effect * (effects[1, enrolment] + effects[1, test])
        scores += np.where(labels, self.target_effect * effects[0, enrolment], of_pairs)
        return scores, labels, (enrolment, test)


# Those whose intervals must hold, for the EER at least; then those that may be marked.
DESIGNS = (
    Design("40 speakers, 37,720 trials", 37_720, 0.03, 40),
    Design("40 speakers, 37,720 trials, EER 1 %", 37_720, 0.01, 40, 0.3, 0.2),
    Design("1,000 speakers, 20,000 trials", 20_000, 0.03, 1000),
    Design("1,000 speakers, 20,000 trials, EER 1 %", 20_000, 0.01, 1000),
    Design("100 speakers, 3,000 trials", 3_000, 0.08, 100),
    Design("100 speakers, 100,000 trials", 100_000, 0.04, 100, 0.3, 0.2),
    Design("600 independent trials", 600, 0.15),
    Design("300 independent trials", 300, 0.25, p_target=0.5),
    Design("10,000 independent trials", 10_000, 0.02),
    Design("20,000 independent trials, EER 15 %", 20_000, 0.15),
    Design("600 independent trials, EER 0.3 %", 600, 0.003),
    Design("20 speakers, 4,000 trials", 4_000, 0.08, 20),
)


class Coverage(NamedTuple):
    """Percentages of repetitions: intervals that cover, and those without a mark."""

    covered: float
    unmarked: float


def coverage(
    design: Design, *, repetitions: int, resamples: int, method: Method = "bca"
) -> dict[str, Coverage]:
    """Return the coverage of the intervals of EER and minDCF."""
    intervals: dict[str, list[Interval]] = {"EER": [], "minDCF": []}
    for seed in range(repetitions):
        scores, labels, speakers = design.draw(seed)
        drawn = bootstrap_intervals(
            scores,
            labels,
            speakers=speakers,
            p_target=design.p_target,
            resamples=resamples,
            method=method,
            seed=seed,
        )
        intervals["EER"].append(drawn.eer)
        intervals["minDCF"].append(drawn.min_dcf)
    truths = {"EER": design.eer, "minDCF": design.min_dcf}
    return {
        name: Coverage(
            100 * float(np.mean([each.low <= truths[name] <= each.high for each in drawn_of])),
            100 * float(np.mean([each.mark is None for each in drawn_of])),
        )
        for name, drawn_of in intervals.items()
    }


def measure(_: Path, quick: bool) -> Iterator[Figure]:
    """Yield the figures; nothing is written to the folder."""
    for design in DESIGNS:
        for method in ("bca", "percentile"):
            shares = coverage(
                design,
                repetitions=20 if quick else 400,
                resamples=100 if quick else 300,
                method=method,
            )
            for name, share in shares.items():
                title = f"{design.name}: {name}, {method}"
                yield figure(f"{title}, covered", [share.covered], unit="%")
                yield figure("   without a mark", [share.unmarked], unit="%")
    for design in (DESIGNS[0], DESIGNS[2]):
        scores, labels, speakers = design.draw(0)
        start = time.process_time()
        bootstrap_intervals(scores, labels, speakers=speakers, resamples=1000)
        seconds = time.process_time() - start
        title = f"{design.name}: processor time of 1,000 resamples"
        yield figure(title, [seconds], unit="s", at_most=3)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
