"""Who is held out: the rule of a split, its file, and never anybody who is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import corpus_builder

from voxblink2_lib.errors import SelectionError, TrainingError
from voxblink2_lib.recipes.holdout import hold_out_speakers
from voxblink2_lib.recipes.validation import held_out_by, held_out_by_file, split_of
from voxblink2_lib.release.speaker_split import make_split

# Thirty speakers, four utterances each, all of other videos.
CORPUS = corpus_builder.corpus(np.arange(120) % 30)


def test_speakers_are_held_out_by_the_file_of_a_split(tmp_path: Path) -> None:
    split = make_split(CORPUS.speakers, count=7, seed=3)
    path = tmp_path / "validation.txt"
    split.write(path, [])
    is_held_out = held_out_by_file(CORPUS, path)
    assert np.count_nonzero(is_held_out) == 7
    assert (is_held_out == split.is_validation(CORPUS.speakers)).all()


def test_of_a_split_within_a_fact_the_listed_ids_count(tmp_path: Path) -> None:
    facts = ["m" if number % 3 else "f" for number in range(30)]
    split = make_split(CORPUS.speakers, count=9, seed=3, within="gender", facts=facts)
    chosen = split.is_validation(CORPUS.speakers, facts)
    listed = [speaker for speaker, side in zip(CORPUS.speakers, chosen, strict=True) if side]
    split.write(tmp_path / "validation.txt", listed)
    assert (held_out_by_file(CORPUS, tmp_path / "validation.txt") == chosen).all()


def test_files_that_hold_out_nobody_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "validation.txt"
    make_split(["id9", "id8"], count=1, seed=0, within="gender", facts=["m", "m"]).write(path, [])
    with pytest.raises(TrainingError, match=r"none of the 30 speakers .*voxblink2 split"):
        held_out_by_file(CORPUS, path)
    path.write_text("id000001\n")
    with pytest.raises(SelectionError, match="is no file of a split"):
        held_out_by_file(CORPUS, path)


@given(count=st.integers(2, 29), utterances=st.integers(1, 5))
def test_nobody_is_trained_on_and_held_out(count: int, utterances: int) -> None:
    is_held_out = held_out_by(CORPUS, split_of(CORPUS, speakers=count))
    if utterances == 1:
        with pytest.raises(TrainingError, match="trials are all of one kind"):
            hold_out_speakers(CORPUS, is_held_out, utterances=1)
        return
    held_out = hold_out_speakers(CORPUS, is_held_out, utterances=utterances)
    assert not set(held_out.train.names()) & set(held_out.corpus.names())
    assert not set(held_out.train.speakers) & set(held_out.corpus.speakers)
    assert len(held_out.corpus.speakers) == count
    assert len(held_out.train) == 4 * (30 - count)
    assert len(held_out.corpus) == count * min(utterances, 4)
    pairs = set(zip(held_out.enrolment.tolist(), held_out.test.tolist(), strict=True))
    rows = len(held_out.corpus)
    assert pairs == {(low, high) for low in range(rows) for high in range(low + 1, rows)}


def test_who_is_held_out_stays_so_when_the_store_grows() -> None:
    split = split_of(CORPUS, speakers=5)
    grown = corpus_builder.corpus(np.arange(160) % 40)
    before = dict(zip(CORPUS.speakers, held_out_by(CORPUS, split).tolist(), strict=True))
    after = dict(zip(grown.speakers, held_out_by(grown, split).tolist(), strict=True))
    assert {speaker: after[speaker] for speaker in before} == before


def test_a_twentieth_is_held_out_unless_a_number_is_named() -> None:
    large = corpus_builder.corpus(np.arange(5000))
    assert np.count_nonzero(held_out_by(large, split_of(large))) == 200
    assert np.count_nonzero(held_out_by(CORPUS, split_of(CORPUS))) == 2
    for wrong in (1, 30):
        with pytest.raises(TrainingError, match=f"{wrong} speakers cannot be held out of 30"):
            split_of(CORPUS, speakers=wrong)
