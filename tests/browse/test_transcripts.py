"""What is said is found by parts of words, wherever the transcripts are cut into groups."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain_corpus import make_release, video_ids
from support.speaker_files import write_speakers

from voxblink2_lib.browse.annotations import Transcript, Transcripts
from voxblink2_lib.release import speaker_writer
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_index_build import update_speakers

SPEAKERS, UTTERANCES = 12, 5
WORDS = ("harbour", "Harbour-master", "Wörter", "WÖRTER", "100%", "a_b", "x")
VIDEOS = video_ids(2)


def said(number: int) -> str:
    return f"{WORDS[number % len(WORDS)]} {WORDS[number * 3 % len(WORDS)]} of {number}"


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> Transcripts:
    """60 transcripts in groups of 7, of which two are looked at together."""
    folder = tmp_path_factory.mktemp("transcripts")
    release = make_release(folder / "release", VIDEOS, per_speaker=2)
    texts = {
        f"id{speaker:06}": "".join(
            f"{VIDEOS[0]}/{number:05} {said(UTTERANCES * speaker + number)}\n"
            for number in range(UTTERANCES)
        )
        for speaker in range(SPEAKERS)
    }
    write_speakers(release, "asr_res", texts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(speaker_writer, "_TRANSCRIPTS_PER_GROUP", 7)
        index = build_index(open_release(release), folder / "index")
        update_speakers(open_release(release), index)
    return Transcripts(folder / "index")


def all_matches(
    transcripts: Transcripts, text: str, *, speaker_id: str = "", most: int = 1000
) -> list[Transcript]:
    """Follow the matches to their end, a step at a time."""
    rows: list[Transcript] = []
    following: int | None = 0
    while following is not None:
        matches = transcripts.match(
            text=text, language="", speaker_id=speaker_id, first=following, most=most, until=0
        )
        assert len(matches.transcripts) <= most
        assert 0 < matches.share <= 1
        rows += matches.transcripts
        following = matches.following
    return rows


@given(
    words=st.lists(st.sampled_from(["harb", "HARBOUR", "wörter", "%", "_", "1", "of", "x"])),
    speaker=st.none() | st.integers(0, SPEAKERS),
    most=st.integers(1, 70),
    at_once=st.integers(1, 10),
)
def test_each_that_has_all_words_is_found_once(
    transcripts: Transcripts, words: list[str], speaker: int | None, most: int, at_once: int
) -> None:
    speaker_id = "" if speaker is None else f"id{speaker:06}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.browse.annotations._GROUPS_AT_ONCE", at_once)
        found = all_matches(transcripts, " ".join(words), speaker_id=speaker_id, most=most)
    expected = [
        said(number)
        for number in range(SPEAKERS * UTTERANCES)
        if speaker in {None, number // UTTERANCES}
        and all(word.lower() in said(number).lower() for word in words)
    ]
    assert [entry.text for entry in found] == expected


def test_a_number_beyond_the_last_finds_nothing(transcripts: Transcripts) -> None:
    matches = transcripts.match(text="of", language="", first=1000, most=5, until=0)
    assert matches.transcripts == []
    assert matches.following is None


def test_without_an_index_nothing_is_said(tmp_path: Path) -> None:
    assert all_matches(Transcripts(tmp_path), "harbour") == []
