"""Trials of held-out videos are bounded, of both kinds, and never of one video."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
from support import corpus_builder

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.recipes.holdout import hold_out_videos


def test_all_pairs_of_a_small_corpus_are_trials() -> None:
    corpus = corpus_builder.corpus([0, 0, 0, 1, 1, 2])  # each utterance is a video
    held_out = hold_out_videos(corpus)
    trials = set(zip(held_out.enrolment.tolist(), held_out.test.tolist(), strict=True))
    # Speaker 2 has one video only: it is trained on, and in no trial.
    assert trials == {(row, last) for row in (0, 1, 3) for last in (2, 4)}
    assert len(held_out.target) == len(trials)
    assert held_out.train.names() == corpus.names([0, 1, 3, 5])
    same = corpus.speaker[held_out.enrolment] == corpus.speaker[held_out.test]
    assert held_out.target.tolist() == same.tolist()


def test_trials_of_a_large_corpus_grow_with_its_speakers() -> None:
    corpus = corpus_builder.corpus(np.repeat(np.arange(5_000), 6))
    tracemalloc.start()
    held_out = hold_out_videos(corpus, 5_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    tests, counts = np.unique(held_out.test, return_counts=True)
    assert tests.tolist() == list(range(5, 30_000, 6))  # the last of each speaker
    assert 50 <= counts.min() <= counts.max() <= 5 + 50
    assert np.bincount(held_out.test, held_out.target)[tests].tolist() == [5.0] * 5_000
    assert not set(held_out.enrolment.tolist()) & set(tests.tolist())
    # All others are used, none much more often.
    uses = np.unique(held_out.enrolment[~held_out.target], return_counts=True)[1]
    assert len(uses) == 25_000
    assert uses.max() <= 20
    assert len(held_out.train) == 25_000


def test_speakers_and_utterances_are_limited_and_always_the_same() -> None:
    speakers = np.repeat(np.arange(40), [1] * 20 + [30] * 20)
    corpus = corpus_builder.corpus(speakers)
    held_out, again = (hold_out_videos(corpus, 12, utterances=4) for _ in range(2))
    assert len(np.unique(held_out.test)) == 12  # though every other one asked has one video
    assert np.bincount(held_out.test, held_out.target).max() == 4
    assert held_out.enrolment.tolist() == again.enrolment.tolist()
    assert held_out.test.tolist() == again.test.tolist()


@pytest.mark.parametrize(
    ("speakers", "words"),
    [
        ([0, 1, 2], "No speaker of the corpus has two videos; none can be held out."),
        ([0, 0, 1], "The 1 held-out trials are all of one kind; expected are trials of one"),
    ],
)
def test_a_corpus_without_trials(speakers: list[int], words: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(words)):
        hold_out_videos(corpus_builder.corpus(speakers))
