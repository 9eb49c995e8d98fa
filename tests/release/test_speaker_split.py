"""Which speakers are for validation: exactly so many of today's, and a side for life."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.release.speaker_split import SpeakerSplit, make_split

_speakers = st.lists(
    st.integers(0, 999_999).map("id{:06}".format), min_size=2, max_size=60, unique=True
)


@given(speakers=_speakers, seed=st.integers(-5, 1 << 40), data=st.data())
def test_so_many_of_today_and_the_same_later(
    speakers: list[str], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(speakers) - 1))
    split = make_split(speakers, count=count, seed=seed)
    sides = split.is_validation(speakers)
    assert sides.sum() == count
    later = [f"id{number:06}" for number in range(200)]
    together = dict(zip([*later, *speakers], split.is_validation([*later, *speakers]), strict=True))
    assert [together[speaker] for speaker in speakers] == sides.tolist()


@given(speakers=_speakers, data=st.data())
def test_the_share_is_the_same_within_a_fact(speakers: list[str], data: st.DataObject) -> None:
    facts = data.draw(
        st.lists(st.sampled_from(["m", "f", None]), min_size=len(speakers), max_size=len(speakers))
    )
    count = data.draw(st.integers(1, len(speakers) - 1))
    split = make_split(speakers, count=count, seed=1, within="gender", facts=facts)
    sides = split.is_validation(speakers, facts)
    assert sides.sum() == count
    sizes = Counter(facts)
    chosen = Counter(fact for fact, side in zip(facts, sides, strict=True) if side)
    for value, size in sizes.items():
        assert abs(chosen[value] - count * size / len(speakers)) < 1


def test_a_value_that_came_later_has_the_threshold_of_all() -> None:
    speakers = [f"id{number:06}" for number in range(100)]
    plain = make_split(speakers, count=30, seed=3)
    within = make_split(speakers, count=30, seed=3, within="language", facts=["en"] * 100)
    assert (
        within.is_validation(speakers, ["xx"] * 100).tolist()
        == plain.is_validation(speakers).tolist()
    )


def test_a_file_is_read_back_and_is_a_list_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "validation.txt"
    split = make_split(["id000001", "id000002"], count=1, seed=7, within="gender", facts=["m", "f"])
    split.write(path, ["id000002"])
    assert SpeakerSplit.read(path) == split
    assert Selection.of(speakers=str(path)).speakers == {"id000002"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id000001\n", "does not begin with the rule"),
        ('# voxblink2 split: {"seed": 1}\n', "threshold"),
        ('# voxblink2 split: {"seed": 1, "threshold": "x"}\n', "'x' is no whole number"),
        ('# voxblink2 split: {"seed": 1, "threshold": 1, "within": "age"}\n', "'age' is none of"),
        ("", "does not begin with the rule"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text)
    with pytest.raises(SelectionError, match=words):
        SpeakerSplit.read(path)
    with pytest.raises(SelectionError, match="no file of a split"):
        SpeakerSplit.read(tmp_path / "absent")


@pytest.mark.parametrize("count", [0, -1, 2, 3])
def test_both_sides_must_have_speakers(count: int) -> None:
    with pytest.raises(SelectionError, match="must be 1 to 1"):
        make_split(["id000001", "id000002"], count=count, seed=1)


def test_hashes_do_not_depend_on_the_process() -> None:
    code = (
        "from voxblink2_lib.release.speaker_split import make_split\n"
        "ids = [f'id{n:06}' for n in range(50)]\n"
        "print(make_split(ids, count=5, seed=1).is_validation(ids).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ids = [f"id{number:06}" for number in range(50)]
    assert done.stdout.strip() == str(make_split(ids, count=5, seed=1).is_validation(ids).tolist())
