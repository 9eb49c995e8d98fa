"""Several systems are put side by side by trial, in any order of lines, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.same_trials import systems_of
from voxblink2_lib.scoring.score_files import ScoreFile, read_scores
from voxblink2_lib.scoring.trial_lists import read_trials
from voxblink2_lib.scoring.trials import TrialList

PAIRS = [(a, b) for a in range(6) for b in range(a)]


def scores(
    seed: int, *, source: str = "x", labels: bool = True
) -> tuple[ScoreFile, dict[str, float]]:
    """Return scores of all pairs in an order of their own, and the same by name."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(PAIRS))
    rows = np.array(PAIRS)[order]
    values = generator.normal(size=len(PAIRS))
    flags = rows.sum(axis=1) % 2 == 0 if labels else None
    trials = TrialList([f"u{n}" for n in range(6)], rows[:, 0], rows[:, 1], flags)
    names = [f"u{a} u{b}" for a, b in rows]
    return ScoreFile(trials, values, "x"), dict(zip(names, values.tolist(), strict=True))


@given(seed=st.integers(0, 1000), has_labels=st.booleans())
def test_each_trial_has_its_own_score_of_every_system(seed: int, has_labels: bool) -> None:
    first, a = scores(seed, labels=has_labels)
    second, b = scores(seed + 1)
    systems = systems_of([first, second])
    # The list is that of the first file with labels.
    trials = first.trials if has_labels else second.trials
    assert systems.trials is trials
    names = [
        f"{trials.names[e]} {trials.names[t]}"
        for e, t in zip(trials.enrolment, trials.test, strict=True)
    ]
    assert systems.scores[0].tolist() == [a[name] for name in names]
    assert systems.scores[1].tolist() == [b[name] for name in names]
    assert systems.others == [0, 0]


def files(folder: Path, *texts: str) -> list[ScoreFile]:
    paths = [folder / f"{name}.txt" for name in "ab"]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return [read_scores(path) for path in paths]


ALL = "a b 1\na c 2\nb c 3\nc d 4\n"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            (ALL, "c d 4\na b 1\n"),
            r"2 of 4 trials of .*a\.txt have no score in .*b\.txt; the first: 'a' against 'c'; 'b' "
            r"against 'c'\. Give all systems the same trials, or name a list .*--trials KEY",
        ),
        (
            ("c d 4\na b 1\n", ALL),
            r"2 of 4 trials of .*b\.txt have no score in .*a\.txt; the first: 'a' against 'c'; 'b'",
        ),
        ((ALL, ALL + "a d 1\n"), r"1 of 5 trials of .*b\.txt have no .*a\.txt; the first: 'a' ag"),
        (
            (ALL, "b a 1\n"),
            r"4 of 4 trials have no score in .*b\.txt; the first is .*a\.txt, line 1",
        ),
        (
            (ALL, ALL + "a b 5\n"),
            r"b\.txt, line 1 and .*, line 5 are the same trial, 'a' against 'b', with",
        ),
    ],
)
def test_the_first_trials_that_differ_are_named(
    texts: tuple[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match=message):
        systems_of(files(tmp_path, *texts))


def test_a_list_may_be_a_part_of_what_systems_have(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("1 a c\n0 c d\n")
    both = files(tmp_path, ALL, ALL + "a d 1\nd d 2\n")
    systems = systems_of(both, read_trials(key), source="key")
    assert [each.tolist() for each in systems.scores] == [[2, 4], [2, 4]]
    assert systems.others == [2, 4]
    key.write_text("1 a c\n0 c d\n1 a x\n")
    with pytest.raises(
        ScoringError, match=r"1 of 3 trials of key have no score in .*a\.txt; the f"
    ):
        systems_of(both, read_trials(key), source="key")
