"""One annotation file: every form it has, every way it can be broken."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.release_builder import (
    SPEAKER,
    VIDEO,
    Row,
    make_rows,
    member_name,
    render_rows,
    voxblink1,
    voxblink2,
    voxceleb2,
)

from voxblink2_lib.media.windows import crop_windows, scale_to
from voxblink2_lib.records import FaceTrack, Utterance
from voxblink2_lib.release.annotation import NOMINAL_FRAME, Annotation, read_annotation

NAME = member_name()


def read(data: bytes) -> Annotation:
    return read_annotation(NAME, data)


def read_rows(text: str) -> Annotation:
    return read(b"FRAME\tX\tY\tW\tH\n" + text.encode())


def contents(annotation: Annotation) -> list[list[int]]:
    rows: list[list[int]] = np.column_stack([annotation.frames, annotation.boxes]).tolist()
    return rows


def test_voxblink2() -> None:
    rows = [(3, 512, 143, 201, 220), (4, 513, 143, 201, 220), (5, 514, 143, 201, 220)]
    data = voxblink2(rows, start="0.120", duration="0.120")
    assert data.count(b"\n") == 7 + len(rows)
    got = read(data)
    assert got.utterance == Utterance(SPEAKER, VIDEO, "00001", 3, 5)
    assert (got.start_seconds, got.duration_seconds) == (0.12, 0.12)
    assert contents(got) == [list(row) for row in rows]
    assert got.frames.dtype == np.int32
    assert got.boxes.dtype == np.int16


def test_voxblink1() -> None:
    rows = make_rows(7, 9)
    data = voxblink1(rows)
    assert data.count(b"\n") == 5 + len(rows)
    got = read_annotation(member_name("id00012"), data)
    assert got.utterance == Utterance("id00012", VIDEO, "00001", 7, 9)
    assert (got.start_seconds, got.duration_seconds) == (None, None)
    assert contents(got) == [list(row) for row in rows]


@pytest.mark.parametrize("make", [voxblink1, voxblink2])
def test_line_ends_do_not_matter(make: object) -> None:
    render = {voxblink1: voxblink1, voxblink2: voxblink2}[make]  # type: ignore[index]
    name = member_name("id00012" if render is voxblink1 else SPEAKER)
    unix, windows = (read_annotation(name, render(newline=end)) for end in ("\n", "\r\n"))
    assert contents(unix) == contents(windows)
    assert unix.digest() == windows.digest()
    without_last = read_annotation(name, render().rstrip())
    assert without_last.digest() == unix.digest()


def test_no_header_at_all() -> None:
    assert contents(read(b"0 1 2 3 4\n1 1 2 3 4")) == [[0, 1, 2, 3, 4], [1, 1, 2, 3, 4]]


def test_a_byte_order_mark() -> None:
    assert contents(read(b"\xef\xbb\xbf" + voxblink2())) == contents(read(voxblink2()))
    with pytest.raises(ValueError, match="the header has speaker 'id000009'"):
        read(b"\xef\xbb\xbf" + voxblink2(speaker="id000009"))


def test_gaps_in_rows_are_kept() -> None:
    rows = [(0, 1, 1, 1, 1), (4, 1, 1, 1, 1), (900, 1, 1, 1, 1)]
    got = read(voxblink2(rows))
    assert (got.utterance.first_frame, got.utterance.last_frame) == (0, 900)
    assert got.frames.tolist() == [0, 4, 900]


def test_boxes_may_reach_outside_the_picture() -> None:
    rows = [(0, -30, -1, 4000, 3000), (1, -32768, 32767, 0, -5)]
    assert contents(read(voxblink2(rows))) == [list(row) for row in rows]


def test_whole_numbers_written_as_floats() -> None:
    got = read_rows("0.0 512.0 1.43e2 201.000 +220\n1.0 512 143 201 220\n")
    assert contents(got) == [[0, 512, 143, 201, 220], [1, 512, 143, 201, 220]]


def test_blank_lines_do_not_count() -> None:
    assert contents(read(b"\n \n" + voxblink2(make_rows(0, 1)) + b"\n\t\n")) == [
        list(row) for row in make_rows(0, 1)
    ]


@pytest.mark.parametrize("text", ["", "0", "1 2 3", "a b", "0.000 x", "-- 1"])
def test_odd_times_in_the_header_are_no_times(text: str) -> None:
    got = read(f"Start and Duration: {text}\n0 1 2 3 4".encode())
    assert (got.start_seconds, got.duration_seconds) == (None, None)


def sized(line: str) -> bytes:
    """Return an annotation with one more header line."""
    return line.encode() + b"\n" + voxblink2()


@pytest.mark.parametrize(
    "line",
    [
        "Resolution: 1280x720",
        "resolution:1280X720",
        "RESOLUTION  : \t1280 x 720 ",
        "Resolution: 1280 720",
        "Resolution: 1280\t720",
        "Resolution: 1280 * 720",
        "Resolution: 1280, 720",
        "Resolution: 1280\u00d7720",
        "Size: 1280x720",
        "Picture Size: 1280x720",
        "Video size: 1280x720",
        "Frame size: 1280x720",
    ],
)
def test_a_header_may_say_the_size_of_the_picture(line: str) -> None:
    got = read(sized(line))
    assert got.frame_size == (1280, 720)
    assert contents(got) == [list(row) for row in make_rows()]


@pytest.mark.parametrize(
    "line",
    [
        "Conf: 1",
        "Resolution:",
        "Resolution: HD",
        "Resolution: 720p",
        "Resolution: 1280",
        "Resolution: 1280x",
        "Resolution: x720",
        "Resolution: 1280x720x3",
        "Resolution: 1280x720 pixels",
        "Resolution: 1280.0x720.0",
        "Resolution: -1280x720",
        "Resolution: +1280x720",
        "Resolution: 0x720",
        "Resolution: 1280x0",
        "Resolution: 1280x32768",
        "Resolution: 1e3x720",
        "Resolution: 1_280x720",
        "Resolution: \u00b9\u00b2x720",
        "Box size: 1280x720",
        pytest.param(f"Resolution: {'9' * 5000}x720", id="more digits than Python reads"),
    ],
)
def test_anything_else_is_no_size(line: str) -> None:
    got = read(sized(line))
    assert got.frame_size is None
    assert got.digest() == read(voxblink2()).digest()


def test_the_first_line_that_gives_a_size_counts() -> None:
    assert read(sized("Size: 9x9\nResolution: 640x360")).frame_size == (640, 360)
    assert read(sized("Size: 640x360\nResolution: HD")).frame_size == (640, 360)
    assert read(sized("Size: 32767x1")).frame_size == (32767, 1)


@given(
    st.lists(
        st.tuples(*[st.integers(-1000, 1000)] * 2, *[st.integers(1, 1000)] * 2).filter(
            lambda box: any(part % 1000 for part in box)
        ),
        min_size=1,
        max_size=30,
    )
)
@example([(363, 57, 329, 587)])
def test_voxceleb2_has_boxes_as_fractions(boxes: list[tuple[int, ...]]) -> None:
    """They become pixels of a nominal frame, exactly; its size is the frame size."""
    rows = [(377 + n, *(part / 1000 for part in box)) for n, box in enumerate(boxes)]
    got = read_annotation(f"txt/id00012/{VIDEO}/00001.txt", voxceleb2(rows))
    assert got.utterance == Utterance("id00012", VIDEO, "00001", 377, 376 + len(boxes))
    assert got.frame_size == NOMINAL_FRAME == (10_000, 10_000)
    assert got.boxes.tolist() == [[10 * part for part in box] for box in boxes]
    assert got.frames.tolist() == [row[0] for row in rows]


def test_a_face_in_fractions_is_cropped_where_it_is() -> None:
    """Of any rendition: the windows are those of the same box in its pixels."""
    data = voxceleb2([(0, 0.25, 0.1, 0.5, 0.4)])
    got = read_annotation(f"txt/id00012/{VIDEO}/00001.txt", data)
    track = FaceTrack(got.utterance, got.frames, got.boxes, got.frame_size)
    for width, height in ((1280, 720), (640, 480), (202, 360)):
        scale = scale_to(track, (width, height), reference_height=1080)
        (window,) = crop_windows(track.boxes, scale=scale[:2])
        left, top, right, bottom = 0.25 * width, 0.1 * height, 0.75 * width, 0.5 * height
        assert window.tolist() == pytest.approx([left, top, right, bottom])
        assert scale.evidence == "header"


@pytest.mark.parametrize(
    "row", ["0 0.5 0.5 0.5 1.2", "0 0.5 0.5 0.5 -1.5", "0.5 0.1 0.1 0.1 0.1", "0 7 7 0.5 0.5"]
)
def test_what_is_neither_pixels_nor_fractions_is_rejected(row: str) -> None:
    with pytest.raises(ValueError, match="frames and boxes must be whole numbers"):
        read_rows(row + "\n")


def test_a_box_of_one_pixel_stays_one() -> None:
    assert read_rows("0 0 0 1 1\n").frame_size is None


BROKEN = {
    "empty": (b"", "^the file is empty$"),
    "white space only": (b" \r\n\t\n", "^the file is empty$"),
    "other white space only": ("\u2003\n\u00a0".encode(), "^the file has no frames$"),
    "binary": (voxblink2() + b"\0\0", "^the file is binary, not text$"),
    "not UTF-8": (b"Identity: \xff\n0 1 2 3 4\n", r"^the file is not UTF-8 text \(byte 10\)$"),
    "UTF-16": (voxblink2().decode().encode("utf-16"), "^the file is binary, not text$"),
    "header only": (voxblink2([]), "^the file has no frames$"),
    "cut in a row": (voxblink2([(0, 1, 2, 3, 4)]) + b"1\t512\t14", "line 9: expected five .* 3 f"),
    "six columns": (
        voxblink2([(0, 1, 2, 3, 4, 5)]),
        "^line 8: expected five numbers, got 6 fields$",
    ),
    "a page instead": (
        b"<html>\n<body> Not found\n",
        "^line 1: expected five numbers, got 1 fields$",
    ),
    "five words": (
        voxblink2([(0, 1, 2, 3, 4)]) + b"one two three four five\n",
        "^line 9: expected five numbers, got text$",
    ),
    "one word": (voxblink2() + b"25 1 2 x 4\n", "^line 33: expected five numbers, got text$"),
    "titles twice": (
        voxblink2() + b"FRAME X Y W H\n",
        "^line 33: expected five numbers, got text$",
    ),
    "colon in the first row": (
        b"FRAME X Y W H\n0 1 2 3:4 5\n1 1 2 3 4\n",
        "^line 2: expected five numbers, got text$",
    ),
    "backwards": (
        voxblink2([(5, 1, 1, 1, 1), (4, 1, 1, 1, 1)]),
        "^frames do not increase from line",
    ),
    "repeated": (
        voxblink2([(5, 1, 1, 1, 1), (5, 1, 1, 1, 1)]),
        "^frames do not increase from line",
    ),
    "negative": (voxblink2([(-1, 1, 1, 1, 1)]), "^frames do not increase from line"),
    "speaker": (
        voxblink2(speaker="id000009"),
        "header has speaker 'id000009'.* path has 'id00000",
    ),
    "video": (
        voxblink2(video="ABCDEFGHIJK"),
        "header has video 'ABCDEFGHIJK'.* path has 'abcdef",
    ),
    "huge frame": (voxblink2([(2**31, 1, 1, 1, 1)]), "^frame 2147483648 is out of range$"),
    "huge frame later": (voxblink2([(0, 1, 1, 1, 1), (10**300, 1, 1, 1, 1)]), "^frame 10.* is out"),
    "beyond float": (
        voxblink2([(0, 10**400, 1, 1, 1)]),
        "^frames and boxes must be whole numbers$",
    ),
    "huge box": (voxblink2([(0, 32768, 1, 1, 1)]), "^a box is out of range: pixels must fit 16"),
    "huge negative box": (voxblink2([(0, 1, 1, 1, -32769)]), "^a box is out of range: pixels must"),
    "NaN": (b"0 nan 1 1 1\n", "^frames and boxes must be whole numbers$"),
    "NaN frame": (b"NaN 1 1 1 1\n", "^frames and boxes must be whole numbers$"),
    "infinity": (b"0 1 -inf 1 1\n", "^frames and boxes must be whole numbers$"),
    "half a pixel": (b"0 1 1.5 1 1\n", "^frames and boxes must be whole numbers$"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(data)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("00001.txt", "not named <speaker>/<video>/<utterance>.txt"),
        (f"{VIDEO}/00001.txt", "not named <speaker>/<video>/<utterance>.txt"),
        (f"meta/{SPEAKER}/{VIDEO}/00001", "not named <speaker>/<video>/<utterance>.txt"),
        (f"meta/{SPEAKER}/{VIDEO}/00001.TXT", "not named <speaker>/<video>/<utterance>.txt"),
        (f"meta/{SPEAKER}/{VIDEO}/.txt", "'' is not an utterance id"),
        (f"meta/{SPEAKER}/{VIDEO}/._00001.txt", r"'\._00001' is not an utterance id"),
        (f"meta/{SPEAKER}/../00001.txt", r"'\.\.' is not a video id"),
        (f"meta/{VIDEO}/{SPEAKER}/00001.txt", f"'{VIDEO}' is not a speaker id"),
        (f"meta/{SPEAKER}/{VIDEO}/more/00001.txt", f"'{VIDEO}' is not a speaker id"),
    ],
)
def test_the_path_must_have_the_ids(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_annotation(path, voxblink2())


@pytest.mark.parametrize("prefix", ["", "./", "meta/", "vb2_meta/meta/"])
def test_the_ids_are_the_last_three_names(prefix: str) -> None:
    got = read_annotation(f"{prefix}{SPEAKER}/{VIDEO}/-x_1.txt", voxblink2())
    assert got.utterance.name == f"{SPEAKER}/{VIDEO}/-x_1"


def test_the_digest_covers_all_that_is_said() -> None:
    annotations = [
        read(voxblink2()),
        read(voxblink2(make_rows(0, 23))),
        read(voxblink2(make_rows(1, 25))),
        read(voxblink2([(row[0], row[1] + 1, *row[2:]) for row in make_rows()])),
        read(voxblink2(start="0.001")),
        read(voxblink2(duration="2.000")),
        read_annotation(member_name(utterance="00002"), voxblink2()),
        read_annotation(member_name("id000002"), voxblink2(speaker="id000002")),
    ]
    assert len({annotation.digest() for annotation in annotations}) == len(annotations)
    assert read(voxblink2()).digest() == annotations[0].digest()


def test_a_digest_stays_what_it_was_before_headers_gave_sizes() -> None:
    """Stores know what they were cut by from digests: without a size they must not change."""
    text = (
        "Utterance(speaker_id='id000001', video_id='abcdefghijk', utterance_id='00001', "
        "first_frame=3, last_frame=4) 0.12 0.08"
    )
    frames = np.array([3, 4], "<i4").tobytes()
    boxes = np.array([[512, 143, 201, 220], [513, 143, 201, 220]], "<i2").tobytes()
    digests = {}
    for size in ("", "(1280, 720)"):
        digest = hashlib.blake2b(text.encode() + size.encode() + frames + boxes, digest_size=8)
        digests[size] = int.from_bytes(digest.digest(), "little", signed=True)
    rows = [(3, 512, 143, 201, 220), (4, 513, 143, 201, 220)]
    plain = voxblink2(rows, start="0.120", duration="0.080")
    assert read(plain).digest() == digests[""] == -8878812814761592964
    assert read(b"Resolution: 1280x720\n" + plain).digest() == digests["(1280, 720)"]
    assert read(b"Size: 1280 720\n" + plain).digest() == digests["(1280, 720)"]


def test_the_digest_covers_the_size() -> None:
    lines = ("Conf: 1", "Resolution: 1280x720", "Resolution: 720x1280", "Resolution: 1280x721")
    assert len({read(sized(line)).digest() for line in lines}) == len(lines)


INT16 = st.integers(-(2**15), 2**15 - 1)


@st.composite
def annotated_rows(draw: st.DrawFn) -> list[Row]:
    frames = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20, unique=True))
    return [(frame, draw(INT16), draw(INT16), draw(INT16), draw(INT16)) for frame in sorted(frames)]


@given(
    rows=annotated_rows(),
    newline=st.sampled_from(["\n", "\r\n"]),
    times=st.tuples(*[st.floats(0, 1e6, allow_nan=False)] * 2),
)
def test_what_is_rendered_reads_back(
    rows: list[Row], newline: str, times: tuple[float, float]
) -> None:
    data = voxblink2(rows, newline=newline, start=repr(times[0]), duration=repr(times[1]))
    got = read(data)
    assert contents(got) == [list(row) for row in rows]
    assert (got.utterance.first_frame, got.utterance.last_frame) == (rows[0][0], rows[-1][0])
    assert (got.start_seconds, got.duration_seconds) == times
    older = read_annotation(member_name("id00012"), voxblink1(rows, newline=newline))
    assert contents(older) == contents(got)


def check_garbage(data: bytes) -> None:
    try:
        got = read(data)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017  # no error is fine as well
        assert str(error).strip()  # noqa: PT017
    else:
        assert len(got.frames) == len(got.boxes) > 0
        assert np.all(np.diff(got.frames.astype(np.int64)) > 0)


@given(data=st.binary(max_size=300))
def test_bytes_are_read_or_refused_in_words(data: bytes) -> None:
    check_garbage(data)


TOKEN = st.sampled_from(
    ["0", "1", "2.0", "-3", "nan", "inf", "1e400", "9" * 400, "1_0", "٣", "0x1", "x", ":", "FRAME"]
)


@given(lines=st.lists(st.lists(TOKEN, min_size=4, max_size=6).map(" ".join), max_size=6))
@example(lines=["1_0 1 1 1 1"])
@example(lines=["1 1 1 1 1", "2 1 1 1 x"])
def test_rows_of_odd_words_are_read_or_refused_in_words(lines: list[str]) -> None:
    check_garbage("\n".join(lines).encode())


@given(cut=st.integers(0, len(voxblink2())), at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damage_to_a_good_file_is_read_or_refused_in_words(cut: int, at: int, byte: int) -> None:
    data = bytearray(voxblink2()[:cut])
    if data:
        data[at % len(data)] = byte
    check_garbage(bytes(data))


def test_a_long_file_is_read() -> None:
    rows = make_rows(0, 60 * 25 - 1)
    assert len(read(b"FRAME X Y W H\n" + render_rows(rows).encode()).frames) == 1500
