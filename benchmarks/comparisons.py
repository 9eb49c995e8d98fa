"""Measure how often 95% intervals of the difference of two systems cover the true difference.

Both systems share the scores of simulated trials and add noise of their own, and effects of
speakers, so that the true rates are known. Printed are the share of repetitions whose interval of
the EER's difference covers the true one, and, of two equally good systems, how often the
probability that the second is better is below 2.5 or above 97.5 %: 5 % of repetitions, if it is a
probability. Coverage does not depend on the machine.

Example:
    python benchmarks/comparisons.py
    python benchmarks/comparisons.py --quick
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from figures import Figure, figure, run_benchmark
from intervals import Design

from voxblink2_lib.scoring.paired import PairedDifference, compare_systems
from voxblink2_lib.scoring.validation import Floats

DESIGNS = (
    Design("40 speakers, 10,000 trials", 10_000, 0.03, 40),
    Design("100 speakers, 3,000 trials", 3_000, 0.08, 100),
    Design("600 independent trials", 600, 0.15),
    Design("20 speakers, 4,000 trials", 4_000, 0.08, 20),
    Design("1,000 speakers, 20,000 trials", 20_000, 0.03, 1000),
)

# Deviation of the effects of speakers that a system has alone.
_OWN_EFFECT = 0.3

# Deviations of the noise that each of two systems has alone.
_UNEQUAL, _EQUAL = (0.6, 0.8), (0.6, 0.6)


def true_eer(design: Design, noise: float) -> float:
    """Return the equal error rate of a system with so much noise of its own."""
    own = _OWN_EFFECT if design.speakers else 0.0
    target, nontarget = design.deviations
    deviations = (
        (target**2 + noise**2 + own**2) ** 0.5,
        (nontarget**2 + noise**2 + 2 * own**2) ** 0.5,
    )
    return NormalDist().cdf(-design.distance / sum(deviations))


def system(design: Design, drawn: tuple[Floats, Any, Any], noise: float, generator: Any) -> Floats:
    """Return drawn scores with what a system adds to them."""
    scores, labels, sides = drawn
    own: Floats = scores + generator.normal(0, noise, len(scores))
    if sides is None:
        return own
    effects = generator.normal(0, _OWN_EFFECT, (2, design.speakers))
    enrolment, test = sides
    own += np.where(labels, effects[0][enrolment], effects[1][enrolment] + effects[1][test])
    return own


def comparisons(
    design: Design, noise: tuple[float, float], *, repetitions: int, resamples: int
) -> list[PairedDifference]:
    """Return the comparison of both systems in each repetition."""
    drawn = []
    for seed in range(repetitions):
        trials = design.draw(seed)
        generator = np.random.default_rng(10_000 + seed)
        first, second = (system(design, trials, each, generator) for each in noise)
        comparison = compare_systems(
            first,
            second,
            trials[1],
            speakers=trials[2],
            p_target=(design.p_target,),
            resamples=resamples,
            seed=seed,
        )
        drawn.append(comparison.eer)
    return drawn


def measure(_: Path, quick: bool) -> Iterator[Figure]:
    """Yield the figures; nothing is written to the folder."""
    amounts = {"repetitions": 10 if quick else 200, "resamples": 60 if quick else 300}
    for design in DESIGNS:
        for noise in (_UNEQUAL, _EQUAL):
            drawn = comparisons(design, noise, **amounts)
            truth = true_eer(design, noise[1]) - true_eer(design, noise[0])
            covered = [each.low <= truth <= each.high for each in drawn]
            unmarked = [each.mark is None for each in drawn]
            title = f"{design.name}: difference of {100 * truth:.2f} % covered"
            yield figure(title, [100 * float(np.mean(covered))], unit="%")
            yield figure("   without a mark", [100 * float(np.mean(unmarked))], unit="%")
        sure = [not 0.025 < each.second_better < 0.975 for each in drawn]
        yield figure("   of equal systems, seems certain", [100 * float(np.mean(sure))], unit="%")


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
