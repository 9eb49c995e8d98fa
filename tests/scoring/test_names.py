"""Names of utterances: all spellings of one match, two that may be the same are refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.names import NameIndex


def made(*names: str) -> NameIndex:
    return NameIndex(list(names), "here")


SPEAKERS = st.from_regex(r"id[0-9]{5,6}", fullmatch=True)
VIDEOS = st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True)
UTTERANCES = st.from_regex(r"[0-9]{5}", fullmatch=True)
SPELLINGS = st.tuples(
    st.sampled_from(["", "/", "./", "/data/vox1/wav/", "a b/", "id00001/x/"]),
    st.sampled_from("/-"),
    st.sampled_from(["", ".wav", ".flac", ".m4a", ".mp3", ".opus", ".ogg", ".WAV"]),
)


@given(SPEAKERS, VIDEOS, UTTERANCES, SPELLINGS, SPELLINGS)
@example("id00001", "-----------", "00001", ("", "-", ""), ("/x/", "/", ".wav"))
@example("id000001", "-1-00001-id", "00001", ("", "-", ".m4a"), ("", "-", ""))
def test_all_spellings_of_an_utterance_are_one(
    speaker: str,
    video: str,
    utterance: str,
    stored: tuple[str, str, str],
    requested: tuple[str, str, str],
) -> None:
    def spell(spelling: tuple[str, str, str], utterance: str) -> str:
        folders, dash, extension = spelling
        return folders + dash.join([speaker, video, utterance]) + extension

    other = f"{(int(utterance) + 1) % 100_000:05}"
    index = made("noise", spell(stored, utterance))
    assert index.rows_of([spell(requested, utterance)]).tolist() == [1]
    assert index.rows_of([spell(requested, other)]).tolist() == [-1]


@pytest.mark.parametrize(
    "name",
    [
        "id10270/x6uYqmx31kE-00001",
        "id10270-x6uYqmx31kE/00001",
        "xid10270/x6uYqmx31kE/00001",
        "id1027/x6uYqmx31kE/00001",
        "id1027000/x6uYqmx31kE/00001",
        "id10270/x6uYqmx31k/00001",
        "id10270/x6uYqmx31kEE/00001",
        "id10270/x6uYqmx31k$/00001",
        "id10270/x6uYqmx31kE/0001",
        "id10270/x6uYqmx31kE/000001",
        "id10270/x6uYqmx31kE/00001.txt",
        "id10270/x6uYqmx31kE/00001\n",
        "id10270/x6uYqmx31kE/\u0660\u0660\u0660\u0660\u0661",
        "",
    ],
)
def test_what_is_not_that_utterance(name: str) -> None:
    assert made("id10270/x6uYqmx31kE/00001.wav").rows_of([name]).tolist() == [-1]


# -- Folding ---------------------------------------------------------------------------------------

# Names of one side, those of the other, and the row of each.
FOLDS: dict[str, tuple[list[str], list[str], list[int]]] = {
    "extension": (
        ["a/noise.wav", "music", "x.tar"],
        ["a/noise.flac", "music.sph", "x"],
        [0, 1, -1],
    ),
    "CN-Celeb": (
        ["enroll/id00800-enroll.wav", "test/id00800-singing-01-001.wav"],
        ["id00800-enroll", "id00800-singing-01-001", "id00800-singing-01-002"],
        [0, 1, -1],
    ),
    "CN-Celeb, from a root": (
        ["/data/CN-Celeb_flac/eval/test/id00800-singing-01-001.flac", "/data/eval/test/x.flac"],
        ["test/id00800-singing-01-001.wav", "x"],
        [0, 1],
    ),
    "folders of the list": (["x", "y/z"], ["wav/x.wav", "wav/y/z.wav", "wav/w/z.wav"], [0, 1, -1]),
    "NeMo": (
        ["id10270@x6uYqmx31kE@00001.wav", "spk@video@1.wav"],
        ["id10270/x6uYqmx31kE/00001.wav", "data/spk/video/1.wav"],
        [0, 1],
    ),
    "SRE": (
        ["dtadhlw_sre16", "dtadzmv_sre16"],
        ["dtadhlw_sre16.sph", "x/dtadzmv_sre16.sph"],
        [0, 1],
    ),
    "a prefix there": (["eval-a1", "eval-b2", "eval-c"], ["b2", "a1.wav", "d"], [1, 0, -1]),
    "a prefix here": (["b2", "a1"], ["sre16_eval-a1", "sre16_eval-b2", "sre16_eval-x"], [1, 0, -1]),
    "not in a word": (["eva", "evb"], ["a", "b"], [-1, -1]),
    "no prefix of one": (["eval-a"], ["a"], [-1]),
    "another folder": (["a/noise.wav"], ["b/noise.wav", "noise/a", "oise"], [-1, -1, -1]),
    "whole utterances": (["00001", "x6uYqmx31kE/00002"], ["id10270/x6uYqmx31kE/00001"], [-1]),
}


@pytest.mark.parametrize("case", FOLDS)
def test_extension_folders_and_prefix_do_not_matter(case: str) -> None:
    stored, requested, rows = FOLDS[case]
    assert made(*stored).rows_of(requested).tolist() == rows
    # An exact name is always that name.
    assert made(*stored).rows_of(stored).tolist() == [*range(len(stored))]


def test_exact_names_come_first_and_two_that_fit_are_refused() -> None:
    index = made("vox1/id10270/x6uYqmx31kE/00001.wav", "id10270-x6uYqmx31kE-00001", "a", "a.wav")
    assert index.rows_of([*index.names]).tolist() == [0, 1, 2, 3]
    with pytest.raises(
        ScoringError, match=r"here: 'id10270/x6uYqmx31kE/00001' may be 'vox1/.*' or 'id10270-"
    ):
        index.rows_of(["id10270/x6uYqmx31kE/00001"])
    with pytest.raises(ScoringError, match=r"'a.flac' may be 'a' or 'a.wav'"):
        index.rows_of(["a.flac"])
    with pytest.raises(ScoringError, match=r"'1' may be 'x/1' or 'y/1.wav'\. Keep one"):
        made("x/1", "y/1.wav").rows_of(["1"])
    with pytest.raises(ScoringError, match=r"'z/y/1' may be 'y/1' or '1'"):
        made("y/1", "1").rows_of(["z/y/1"])


@pytest.mark.parametrize(
    ("stored", "requested"),
    [
        (["1"], ["x/1", "y/1"]),
        (["a/noise.wav"], ["a/noise", "a/noise.flac"]),
        (["a"], ["a", "b/a"]),
        (["e-1", "e-2"], ["1", "x/e-1"]),
    ],
    ids=str,
)
def test_two_names_of_one_are_refused(stored: list[str], requested: list[str]) -> None:
    first, second = requested
    for names in (requested, requested[::-1], [*requested, first]):
        with pytest.raises(
            ScoringError, match=rf"here: '({first}|{second})' and '({first}|{second})' may both be"
        ):
            made(*stored).rows_of(names)
    # Not so for whole utterances, whatever their folders; nor for a name that occurs twice.
    spellings = ["wav/id10270/x6uYqmx31kE/00001.wav", "id10270-x6uYqmx31kE-00001"]
    assert made("id10270/x6uYqmx31kE/00001").rows_of(spellings).tolist() == [0, 0]
    assert made(*stored).rows_of([first, first]).tolist() == [0, 0]


NAME = st.lists(st.sampled_from(["a", "b", "e-1", "e-2"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(NAME, unique=True, min_size=1), st.lists(NAME, unique=True))
def test_no_two_names_ever_match_one(stored: list[str], requested: list[str]) -> None:
    try:
        rows = made(*stored).rows_of(requested).tolist()
    except ScoringError:
        return
    matched = [row for row in rows if row >= 0]
    assert len(set(matched)) == len(matched)
    for name, row in zip(requested, rows, strict=True):
        assert name not in stored or stored[row] == name


def test_many_exact_names_are_found_fast() -> None:
    names = [f"id{n:06}/x6uYqmx31kE/00001.wav" for n in range(200_000)]
    index = made(*names)
    start = time.process_time()
    rows = index.rows_of(names[::-1])
    assert time.process_time() - start < 1
    assert (rows == np.arange(200_000)[::-1]).all()
    assert "_rows_by_key" not in vars(index)  # the other table waits until it is asked for


# -- Nearest names ---------------------------------------------------------------------------------


def test_the_first_three_without_a_match_have_their_nearest_names() -> None:
    index = made(
        "test/id00800-singing-01-001", "test/id00801-speech-02-009", "enroll/id00800-enroll"
    )
    names = ["id0800-singing-01-001", "ID00801-speech-02-009", "id00800-enrol", "x"]
    assert index.unmatched_text(names) == (
        "'id0800-singing-01-001' (nearest: 'test/id00800-singing-01-001'), "
        "'ID00801-speech-02-009' (nearest: 'test/id00801-speech-02-009'), "
        "'id00800-enrol' (nearest: 'enroll/id00800-enroll')"
    )
    assert index.unmatched_text([]) == ""
    assert made("a").unmatched_text(["\x1b[31m", ""]) == (
        "'\\x1b[31m' (nearest: 'a'), '' (nearest: 'a')"
    )


def test_the_nearest_of_a_million_is_found_fast() -> None:
    names = [f"wav/id{n % 9999:05}/video{n % 77:06}/{n:07}.wav" for n in range(1_000_000)]
    index = made(*names)
    start = time.process_time()
    text = index.unmatched_text(["id00123/video000007/0000777.flac", "y" * 5000, "x_id04567/1"])
    assert time.process_time() - start < 3
    assert "nearest: 'wav/id" in text
    assert len(text) < 1000
