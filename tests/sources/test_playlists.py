"""Playlists of HLS and lists of DASH become segments, or are refused with what is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voxblink2_lib.errors import FetchError
from voxblink2_lib.sources.playlists import (
    Key,
    Part,
    Playlist,
    Segment,
    dash_segments,
    parse_playlist,
)

URL = "https://x/a/list.m3u8?token=1"


def parse(*lines: str, **info: Any) -> Playlist:
    return parse_playlist("\n".join(["#EXTM3U", *lines]), URL, info)


def test_a_plain_playlist() -> None:
    playlist = parse(
        "#EXT-X-TARGETDURATION:6",
        "#EXT-X-MEDIA-SEQUENCE:7",
        "",
        "# a comment",
        "#EXTINF:5.5,Title, with a comma",
        "one.ts",
        "#EXTINF:4",
        "/two.ts?x=1",
        "https://y/three.ts",
        "#EXT-X-ENDLIST",
    )
    assert playlist == Playlist(
        [
            Segment(7, Part("https://x/a/one.ts"), 5.5),
            Segment(8, Part("https://x/two.ts?x=1"), 4.0),
            Segment(9, Part("https://y/three.ts"), None),
        ],
        first_number=7,
        is_ended=True,
        target_seconds=6.0,
    )


def test_windows_lines_and_a_mark_at_the_start_are_accepted() -> None:
    playlist = parse_playlist("\ufeff#EXTM3U\r\n#EXTINF:4,\r\na.ts\r\n", URL, {})
    assert [segment.part.url for segment in playlist.segments] == ["https://x/a/a.ts"]
    assert not playlist.is_ended


def test_byte_ranges_continue_in_their_file() -> None:
    playlist = parse(
        '#EXT-X-MAP:URI="all.mp4",BYTERANGE="600@0"',
        *("#EXT-X-BYTERANGE:100@600", "all.mp4"),
        *("#EXT-X-BYTERANGE:50", "all.mp4"),
        *("#EXT-X-BYTERANGE:10", "other.mp4"),
        *("#EXT-X-BYTERANGE:7", "all.mp4"),
        "whole.mp4",
    )
    ranges = [(segment.part.start, segment.part.end) for segment in playlist.segments]
    assert ranges == [(600, 700), (700, 750), (0, 10), (750, 757), (0, None)]
    assert {segment.init for segment in playlist.segments} == {Part("https://x/a/all.mp4", 0, 600)}


def test_keys_apply_until_the_next() -> None:
    playlist = parse(
        "#EXT-X-MEDIA-SEQUENCE:258",
        "clear.ts",
        '#EXT-X-KEY:METHOD=AES-128,URI="k1"',
        "by-number.ts",
        '#EXT-X-KEY:METHOD=AES-128,URI="k2",IV=0x0F',
        "by-iv.ts",
        "#EXT-X-KEY:METHOD=NONE",
        "clear.ts",
    )
    assert [segment.part.key for segment in playlist.segments] == [
        None,
        Key("https://x/a/k1", b"", bytes(14) + b"\x01\x03"),
        Key("https://x/a/k2", b"", bytes(15) + b"\x0f"),
        None,
    ]


def test_what_the_site_states_comes_first() -> None:
    playlist = parse(
        '#EXT-X-KEY:METHOD=AES-128,URI="k1",IV=0x01',
        "a.ts",
        hls_aes={"key": "0x" + "ab" * 16, "iv": "2"},
        extra_param_to_segment_url="s=1",
    )
    key = Key("", b"\xab" * 16, bytes(15) + b"\x02")
    assert playlist.segments == [Segment(0, Part("https://x/a/a.ts?s=1", key=key))]
    playlist = parse(
        '#EXT-X-KEY:METHOD=AES-128,URI="k1"',
        "a.ts",
        extra_param_to_segment_url="s=1",
        extra_param_to_key_url="k=2",
    )
    (segment,) = playlist.segments
    assert segment.part.url == "https://x/a/a.ts?s=1"
    assert segment.part.key is not None
    assert segment.part.key.url == "https://x/a/k1?k=2"


BROKEN = ("a.ts", "#EXT-X-DISCONTINUITY", "b.ts", "c.ts", "#EXT-X-DISCONTINUITY", "d.ts")


def test_breaks_are_marked_and_runs_chosen() -> None:
    playlist = parse(*BROKEN)
    assert [segment.is_break for segment in playlist.segments] == [False, True, False, True]
    names = [segment.part.url[-4:] for segment in parse(*BROKEN, format_index=1).segments]
    assert names == ["b.ts", "c.ts"]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("#ANVATO-SEGMENT-INFO:type=ad", "#ANVATO-SEGMENT-INFO:type=master"),
        ("#UPLYNK-SEGMENT:1,0,ad", "#UPLYNK-SEGMENT:1,0,segment"),
    ],
)
def test_advertisements_are_left_out(begin: str, end: str) -> None:
    playlist = parse(begin, "ad.ts", end, "a.ts")
    assert [segment.part.url for segment in playlist.segments] == ["https://x/a/a.ts"]


REFUSED = {
    '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="k"': ("media-unusable", "encrypted by 'SAMPLE-AES'"),
    '#EXT-X-KEY:METHOD=AES-128,URI="skd://k"': ("gone", "DRM protected"),
    '#EXT-X-KEY:METHOD=AES-128,URI="k",KEYFORMAT="com.microsoft.playready"': (
        "gone",
        "DRM protected",
    ),
    "#EXT-X-MEDIA-SEQUENCE:many": ("media-unusable", "'many' where a number is needed"),
    "#EXT-X-BYTERANGE:-5@7": ("media-unusable", "'-5' where a number is needed"),
    '#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0xyz': ("media-unusable", "'0xyz' where a number"),
    "file:///etc/passwd": ("media-unusable", "'file:///etc/passwd', which is no address of a web"),
    "#EXT-X-KEY:METHOD=AES-128": ("media-unusable", "'', which is no address of a web server"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_read_is_refused(line: str) -> None:
    status, message = REFUSED[line]
    with pytest.raises(FetchError, match=re.escape(message)) as caught:
        parse(line, "a.ts")
    assert caught.value.status == status


@pytest.mark.parametrize("text", ["", "<html>", "#EXTM3", "\n\nx"])
def test_what_is_no_playlist_is_refused(text: str) -> None:
    with pytest.raises(FetchError, match="the server sent no playlist: it begins with") as caught:
        parse_playlist(text, URL, {})
    assert caught.value.status == "ambiguous"


TAGS = st.sampled_from(
    [
        *("#EXTINF:", "#EXT-X-BYTERANGE:", "#EXT-X-MAP:URI=", "#EXT-X-KEY:METHOD=AES-128,URI="),
        *("#EXT-X-KEY:METHOD=", "#EXT-X-MEDIA-SEQUENCE:", "#EXT-X-TARGETDURATION:", ""),
        *("#EXT-X-DISCONTINUITY", "#UPLYNK-SEGMENT:", "https://"),
    ]
)


@given(st.lists(st.tuples(TAGS, st.text(max_size=20))))
@example([("#EXTINF:", "nan"), ("", "a.ts")])
@example([("#EXT-X-MEDIA-SEQUENCE:", "9" * 19)])
@example([("#EXT-X-MEDIA-SEQUENCE:", "\u00b2")])
@example([("https://", "[")])
def test_any_text_is_a_playlist_or_refused(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(["#EXTM3U", *(tag + value for tag, value in lines)])
    try:
        playlist = parse_playlist(text, URL, {})
    except FetchError:
        return
    for segment in playlist.segments:
        assert segment.part.url.startswith(("http://", "https://"))
        assert segment.seconds is None or 0 <= segment.seconds < float("inf")
        assert segment.part.end is None or segment.part.end >= segment.part.start


# -- DASH ------------------------------------------------------------------------------------------


def test_dash_fragments_without_a_duration_are_initializations() -> None:
    info = {
        "fragment_base_url": "https://x/b/",
        "fragments": [
            {"path": "init1"},
            {"path": "a1", "duration": 4.0},
            {"url": "https://y/a2", "duration": 3.0},
            {"path": "init2"},
            {"path": "a3", "duration": 4.0},
        ],
        "extra_param_to_segment_url": "s=1",
    }
    first, second = Part("https://x/b/init1?s=1"), Part("https://x/b/init2?s=1")
    assert list(dash_segments(info)) == [
        Segment(1, Part("https://x/b/a1?s=1"), 4.0, first),
        Segment(2, Part("https://y/a2?s=1"), 3.0, first),
        Segment(4, Part("https://x/b/a3?s=1"), 4.0, second),
    ]


def test_dash_fragments_of_unknown_duration_are_all_read() -> None:
    info = {"fragments": iter([{"url": "https://x/init"}, {"url": "https://x/a"}])}
    assert [segment.part.url for segment in dash_segments(info)] == [
        "https://x/init",
        "https://x/a",
    ]


def test_a_dash_fragment_without_an_address_is_refused() -> None:
    with pytest.raises(FetchError, match="'', which is no address of a web server"):
        list(dash_segments({"fragments": [{"duration": 4.0}]}))
