"""Pictures are known by their times alone, and leaving out what is not needed changes no bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_audio import MP4, MediaCache
from support.synthetic_video import (
    UNSTEADY,
    VP9,
    Film,
    Packet,
    film,
    notices,
    packets_of_film,
    run_ffmpeg,
    shoot,
    shoot_with_hidden,
    spoil,
    spoil_noticeably,
)
from support.synthetic_video import nearest as nearest_picture

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media import video_decoder, video_index
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.video_index import FrameTimes, read_frame_times

NTSC = Fraction(30_000, 1001)
# Nothing but a keen eye tells a picture of these from the one before: each depends on others.
BUSY: dict[str, Any] = {"is_busy": True, "size": (160, 96), "seconds": 4}
LOSSLESS = (("level", "3"),)


def x264(group: int, bframes: int, *more: str) -> tuple[tuple[str, str], ...]:
    """Return options of x264; `more` are of its own kind."""
    own = ":".join((f"keyint={group}", f"min-keyint={group}", f"bframes={bframes}", *more))
    return (("preset", "veryfast"), ("crf", "25"), ("x264-params", f"scenecut=0:b-adapt=0:{own}"))


OPEN = film("open.mp4", 25, options=x264(12, 3, "open-gop=1", "b-pyramid=normal"), **BUSY)
CLOSED = film("closed.mp4", 25, options=x264(10, 2, "b-pyramid=none"), **BUSY)
X265 = "keyint=12:min-keyint=12:bframes=3:open-gop=1:b-pyramid=1:log-level=none:pools=none"
GOOD = (("deadline", "good"), ("cpu-used", "5"), ("auto-alt-ref", "1"), ("lag-in-frames", "12"))
OLD = (("b", "300k"), ("bf", "2"), ("g", "12"))
THRIFT = (
    OPEN,
    CLOSED,
    replace(OPEN, name="open.ts"),
    replace(OPEN, name="open.mkv"),
    film("pyramid.mp4", 25, options=x264(24, 7, "b-pyramid=normal"), **BUSY),
    film("short.mp4", 25, options=x264(3, 1), **BUSY),
    film("interlaced.mp4", 25, options=x264(12, 2, "tff=1"), **BUSY),
    film("keys.mp4", 25, options=x264(1, 0), **BUSY),
    film("vp9.webm", 25, codec="libvpx-vp9", options=(*VP9[:-1], ("g", "12")), **BUSY),
    film("hidden.webm", 25, codec="libvpx-vp9", options=(*GOOD, ("b", "99k"), ("g", "24")), **BUSY),
    film(
        "hevc.mp4",
        25,
        codec="libx265",
        options=(("preset", "ultrafast"), ("x265-params", X265)),
        **BUSY,
    ),
    film("mpeg4.avi", 25, codec="mpeg4", options=OLD, **BUSY),
    film("mpeg2.ts", 25, codec="mpeg2video", options=OLD, **BUSY),
)
HIDDEN = film("plain.avi", 30, 5, codec="ffv1", options=LOSSLESS, is_busy=True, size=(160, 96))


def has_encoder(name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except av.error.FFmpegError:
        return False
    return True


# When pictures are shown


@pytest.mark.parametrize(
    "rate", [25, 30, NTSC, Fraction(24_000, 1001), Fraction(75, 2), 60], ids=str
)
@pytest.mark.parametrize("name", ["rate.mp4", "rate.mkv"])
def test_a_constant_rate_is_exact_whatever_the_clock(
    studio: MediaCache, name: str, rate: Fraction
) -> None:
    one = film(name, rate, 3, size=(64, 48))
    times = read_frame_times(shoot(studio, one))
    expected = [float(time) for time in one.times]
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)
    assert times.end_seconds == pytest.approx(float(one.times[-1] + 1 / rate), abs=1e-3)
    assert np.all(np.diff(times.stamps) > 0)


@pytest.mark.parametrize("name", ["unsteady.mp4", "unsteady.mkv"])
@pytest.mark.parametrize("late", [Fraction(0), Fraction(777, 1000)], ids=str)
def test_a_changing_rate_is_taken_from_the_stamps(
    studio: MediaCache, name: str, late: Fraction
) -> None:
    one = Film(name, UNSTEADY[:120], Fraction(1, 1000), size=(64, 48), late=late)
    times = read_frame_times(shoot(studio, one))
    expected = [float(time) for time in one.times]
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)


def test_a_rate_that_trembles_is_no_constant_rate(studio: MediaCache) -> None:
    # A millisecond from 25 a second is far more than what this clock rounds off.
    times = tuple(Fraction(40 * n + n % 2, 1000) for n in range(75))
    path = shoot(studio, Film("trembling.ts", times, Fraction(1, 1000), size=(64, 48)))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
    found = read_frame_times(path).seconds
    np.testing.assert_allclose(found, [float(time) for time in times], rtol=0, atol=1e-9)


def test_the_packets_are_told_in_the_order_of_decoding(studio: MediaCache) -> None:
    path = shoot(studio, OPEN)
    times, packets = read_frame_times(path), packets_of_film(path)
    assert times.packet_stamps.tolist() == [packet.pts for packet in packets]
    assert times.packet_is_key.tolist() == [packet.is_key for packet in packets]
    assert times.stamps.tolist() == sorted(packet.pts for packet in packets)
    assert times.packet_stamps.tolist() != times.stamps.tolist()


def test_reading_stops_soon_after_what_is_needed(studio: MediaCache) -> None:
    path = shoot(studio, film("long.mp4", 25, 12, options=x264(50, 3), size=(64, 48)))
    whole, part = read_frame_times(path), read_frame_times(path, until_seconds=3)
    assert len(whole.stamps) == 300
    # Everything up to then and a little more, without a hole.
    assert 75 < len(part.packet_stamps) < 150
    count = int(np.sum(part.seconds <= 3))
    np.testing.assert_array_equal(part.seconds[:count], whole.seconds[:count])
    assert count == 76
    assert part.end_seconds > 3


@pytest.mark.parametrize("clock", ["1/30", "1/1000"])
def test_pictures_that_are_never_shown_have_no_time(studio: MediaCache, clock: str) -> None:
    path = shoot_with_hidden(studio, HIDDEN, clock=clock)
    assert len(packets_of_film(path)) > len(HIDDEN.times)
    times = read_frame_times(path)
    expected = [float(time) for time in HIDDEN.times]
    assert len(times.seconds) == len(expected)
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)


# The nearest one

MANY = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def times_at(seconds: Sequence[Fraction | float]) -> FrameTimes:
    """Return pictures that are shown at some times."""
    stamps = np.arange(len(seconds))
    return FrameTimes(
        stamps=stamps,
        seconds=np.array([float(one) for one in seconds]),
        end_seconds=float(seconds[-1]),
        packet_stamps=stamps,
        packet_is_key=stamps == 0,
    )


@MANY
@given(
    gaps=st.lists(st.integers(1, 90), max_size=30),
    # With 20 ms as unit most distances meet in the middle now and then.
    unit=st.sampled_from([Fraction(1, 1000), Fraction(1, 50), Fraction(1001, 60_000)]),
)
def test_the_nearest_picture_is_found_and_of_two_the_earlier(
    gaps: list[int], unit: Fraction
) -> None:
    shown = [unit * sum(gaps[:count]) for count in range(len(gaps) + 1)]
    frames = range(int(shown[-1] * 25) + 3)
    found = times_at(shown).nearest(np.array([float(Fraction(frame, 25)) for frame in frames]))
    assert found.tolist() == [nearest_picture(shown, frame) for frame in frames]


@pytest.mark.parametrize("rate", [Fraction(25, 2), Fraction(75, 2), Fraction(125, 2)], ids=str)
def test_ties_go_to_the_earlier_for_a_whole_minute(rate: Fraction) -> None:
    shown = [number / rate for number in range(int(61 * rate))]
    found = times_at(shown).nearest(np.arange(60 * 25) * 640 / 16_000)
    for frame, number in enumerate(found.tolist()):
        due = Fraction(frame, 25)
        # Exactly: the first that is nearer than the one after it, or as near.
        assert 0 <= due - shown[number] + Fraction(1, 2) / rate <= 1 / rate
        assert shown[number] - due != Fraction(1, 2) / rate


def test_the_only_picture_is_nearest_to_every_time() -> None:
    assert times_at([0.0]).nearest(np.array([0.0, 3.0, 99.0])).tolist() == [0, 0, 0]


# What has no pictures


def test_an_unknown_encoding_is_named_so(studio: MediaCache, tmp_path: Path) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes(shoot(studio, CLOSED).read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(MediaError, match="pictures have an unknown encoding"):
        read_frame_times(path)


def test_a_file_cut_short_has_the_pictures_of_its_beginning(
    studio: MediaCache, tmp_path: Path
) -> None:
    path = tmp_path / "half.mkv"
    data = shoot(studio, replace(CLOSED, name="closed.mkv")).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    times = read_frame_times(path)
    assert 30 < len(times.stamps) < 70
    np.testing.assert_allclose(times.seconds[:30], np.arange(30) / 25, rtol=0, atol=1e-9)
    assert times.end_seconds == pytest.approx(times.seconds[-1] + 0.04, abs=1e-3)


# Thrift


def decoded(path: Path) -> list[bytes]:
    """Return all pictures of a file, as PyAV gives them from the first to the last."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return [frame.to_ndarray().tobytes() for frame in container.decode(stream)]


def drawn(path: Path, wanted: set[int], *, skip_unneeded: bool) -> list[tuple[int, bytes]]:
    """Return what a decoder yields, once it has said that all of it is good."""
    decoder = VideoFrameDecoder(path, read_frame_times(path), wanted, skip_unneeded=skip_unneeded)
    found = [(number, frame.to_ndarray().tobytes()) for number, frame in decoder]
    assert all(decoder.is_intact(number) for number in wanted)
    return found


def assert_thrift_is_exact(path: Path, *, examples: int = 12) -> None:
    every = decoded(path)
    last = len(every) - 1
    runs = st.tuples(st.integers(0, last), st.integers(1, 9), st.integers(1, 3)).map(
        lambda run: range(run[0], min(last + 1, run[0] + run[1] * run[2]), run[2])
    )

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(st.lists(runs, min_size=1, max_size=3).map(lambda some: set().union(*some)))
    def check(wanted: set[int]) -> None:
        assert drawn(path, wanted, skip_unneeded=True) == [
            (one, every[one]) for one in sorted(wanted)
        ]

    assert drawn(path, set(range(last + 1)), skip_unneeded=False) == list(enumerate(every))
    check()


@pytest.mark.parametrize("one", THRIFT, ids=lambda one: one.name)
def test_thrift_changes_no_bit(studio: MediaCache, one: Film) -> None:
    path = shoot(studio, one)
    assert len(decoded(path)) == len(one.times)
    assert_thrift_is_exact(path)


def test_thrift_changes_no_bit_of_vp8_with_hidden_pictures(studio: MediaCache) -> None:
    path = shoot_with_hidden(studio, HIDDEN, clock="1/30")
    assert len(packets_of_film(path)) > len(decoded(path)) == len(HIDDEN.times)
    assert_thrift_is_exact(path)


@pytest.mark.skipif(not has_encoder("libsvtav1"), reason="this PyAV cannot write AV1")
def test_thrift_changes_no_bit_of_av1(studio: MediaCache) -> None:
    options = (("preset", "10"), ("g", "12"), ("svtav1-params", "lp=1"))
    assert_thrift_is_exact(
        shoot(studio, film("av1.mp4", 25, codec="libsvtav1", options=options, **BUSY))
    )


@pytest.mark.parametrize("one", [OPEN, CLOSED], ids=lambda one: one.name)
def test_every_single_picture_can_be_had_alone(studio: MediaCache, one: Film) -> None:
    path = shoot(studio, one)
    every = decoded(path)
    for number, expected in enumerate(every):
        assert drawn(path, {number}, skip_unneeded=True) == [(number, expected)]


class Watched:
    """Stands for an object of PyAV, passes everything on, and lets `decode` be watched."""

    def __init__(self, real: Any, log: list[tuple[int | None, str, int]]) -> None:
        self.__dict__.update(real=real, log=log)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        return Watched(value, self.log) if name == "codec_context" else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def decode(self, packet: Any) -> list[Any]:
        frames: list[Any] = self.real.decode(packet)
        pts = None if packet is None else packet.pts
        self.log.append((pts, str(self.real.skip_frame), len(frames)))
        return frames


class Watch:
    """What a decoder reads and decodes.

    Attributes:
        read: time stamps of the packets read.
        log: of each call of the decoder: time stamp, what it leaves out, how many pictures came.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[int] = []
        self.log: list[tuple[int | None, str, int]] = []
        stream_of, packets_of = video_index.video_stream, video_index.packets_of

        def counted(container: Any, stream: Any) -> Iterator[Any]:
            for packet in packets_of(container, stream.real):
                self.read.append(packet.pts)
                yield packet

        monkeypatch.setattr(
            video_decoder,
            "video_stream",
            lambda container: Watched(stream_of(container), self.log),
        )
        monkeypatch.setattr(video_decoder, "packets_of", counted)

    @property
    def decoded(self) -> list[int]:
        return [pts for pts, _, _ in self.log if pts is not None]


def groups_of(packets: Sequence[Packet], path: Path, numbers: set[int]) -> list[int]:
    """Return the stamps of all packets in the groups of some pictures."""
    stamps = read_frame_times(path).stamps
    group, groups = 0, {}
    for packet in packets:
        group += packet.is_key
        groups[packet.pts] = group
    wanted = {groups[int(stamps[number])] for number in numbers}
    return [packet.pts for packet in packets if groups[packet.pts] in wanted]


@pytest.mark.parametrize(
    "one",
    [CLOSED, film("vp9.webm", 25, codec="libvpx-vp9", options=(*VP9[:-1], ("g", "10")), **BUSY)],
    ids=lambda one: one.name,
)
def test_only_groups_with_something_wanted_are_decoded(
    studio: MediaCache, one: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shoot(studio, one)
    packets, times = packets_of_film(path), read_frame_times(path)
    watch = Watch(monkeypatch)
    decoder = VideoFrameDecoder(path, times, {23, 24, 47, 71}, skip_unneeded=True)
    assert [number for number, _ in decoder] == [23, 24, 47, 71]
    # Groups have ten pictures: of the third, fifth and eighth, all up to the last one wanted.
    places = {packet.pts: place for place, packet in enumerate(packets)}
    allowed: list[int] = []
    for some in ({23, 24}, {47}, {71}):
        last = max(places[int(times.stamps[number])] for number in some)
        group = groups_of(packets, path, some)
        assert len(group) == 10
        allowed += [pts for pts in group if places[pts] <= last]
    assert len(allowed) < 30
    assert watch.decoded == allowed
    # One more is read, to see that it is not needed.
    assert watch.read == times.packet_stamps[: last + 2].tolist()


def test_the_group_before_is_decoded_for_pictures_that_may_depend_on_it(
    studio: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shoot(studio, OPEN)
    packets, times = packets_of_film(path), read_frame_times(path)
    keys = [place for place, packet in enumerate(packets) if packet.is_key]
    leading = packets[keys[4] + 1]
    assert leading.pts < packets[keys[4]].pts, "the film has no pictures that lead"
    number = times.stamps.tolist().index(leading.pts)
    watch = Watch(monkeypatch)
    assert [found for found, _ in VideoFrameDecoder(path, times, {number}, skip_unneeded=True)] == [
        number
    ]
    assert watch.decoded == [packet.pts for packet in packets[keys[3] : keys[4] + 2]]


def test_h264_pictures_on_which_no_other_depends_are_left_out(
    studio: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shoot(studio, CLOSED)
    times = read_frame_times(path)
    watch = Watch(monkeypatch)
    decoder = VideoFrameDecoder(path, times, {0, 9}, skip_unneeded=True)
    assert [number for number, _ in decoder] == [0, 9]
    came = sum(count for _, _, count in watch.log)
    # I P b b P b b P, as they are stored: the first and the last are wanted, no b is decoded.
    assert len(watch.decoded) == 8
    assert came == 4


@pytest.mark.parametrize("one", [CLOSED, THRIFT[8]], ids=lambda one: one.name)
def test_without_thrift_everything_is_decoded_up_to_the_last_wanted(
    studio: MediaCache, one: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shoot(studio, one)
    times = read_frame_times(path)
    watch = Watch(monkeypatch)
    assert [number for number, _ in VideoFrameDecoder(path, times, {70}, skip_unneeded=False)] == [
        70
    ]
    last = times.packet_stamps.tolist().index(int(times.stamps[70]))
    assert watch.decoded == times.packet_stamps[: last + 1].tolist()
    assert {skip for _, skip, _ in watch.log} == {"DEFAULT"}


def test_nothing_wanted_decodes_nothing(
    studio: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shoot(studio, CLOSED)
    times = read_frame_times(path)
    watch = Watch(monkeypatch)
    assert list(VideoFrameDecoder(path, times, set(), skip_unneeded=True)) == []
    assert watch.decoded == []
    assert len(watch.read) <= 1


# Damage


@pytest.mark.parametrize("skip_unneeded", [True, False])
@pytest.mark.parametrize("skip", [0.0, 0.5], ids=["lost", "concealed"])
@pytest.mark.parametrize("packet", [40, 41, 43, 44, 49])
def test_a_good_picture_is_that_of_the_undamaged_film(
    studio: MediaCache, packet: int, skip: float, skip_unneeded: bool, tmp_path: Path
) -> None:
    source, path = shoot(studio, CLOSED), tmp_path / "damaged.mp4"
    every, times = decoded(source), read_frame_times(source)
    spoil_noticeably(source, path, packet=packet, skip=skip)
    wanted = set(range(len(every)))
    decoder = VideoFrameDecoder(path, read_frame_times(path), wanted, skip_unneeded=skip_unneeded)
    found = {number: frame.to_ndarray().tobytes() for number, frame in decoder}
    good = {number for number in wanted if decoder.is_intact(number)}
    assert {number for number in good if found[number] != every[number]} == set()
    # All that the group has from there on is bad, and nothing else.
    stamps = times.packet_stamps[packet:50].tolist()
    assert wanted - good == {times.stamps.tolist().index(stamp) for stamp in stamps}


@pytest.mark.parametrize("skip_unneeded", [True, False])
@pytest.mark.parametrize("skip", [0.0, 0.5], ids=["lost", "concealed"])
def test_damage_reaches_the_pictures_that_lead_the_next_group(
    studio: MediaCache, skip: float, skip_unneeded: bool, tmp_path: Path
) -> None:
    source, path = shoot(studio, OPEN), tmp_path / "damaged.mp4"
    every, packets = decoded(source), packets_of_film(source)
    stamps = read_frame_times(source).stamps.tolist()
    keys = [place for place, packet in enumerate(packets) if packet.is_key]
    spoil_noticeably(source, path, packet=keys[3], skip=skip)
    decoder = VideoFrameDecoder(
        path, read_frame_times(path), range(len(every)), skip_unneeded=skip_unneeded
    )
    found = {number: frame.to_ndarray().tobytes() for number, frame in decoder}
    leading = {
        stamps.index(packet.pts)
        for packet in packets[keys[4] + 1 :]
        if packet.pts < packets[keys[4]].pts
    }
    assert leading
    assert not any(decoder.is_intact(number) for number in leading)
    rest = {stamps.index(packet.pts) for packet in packets[keys[4] :]} - leading
    assert all(decoder.is_intact(number) and found[number] == every[number] for number in rest)


def test_of_several_damages_in_a_group_the_first_counts(studio: MediaCache, tmp_path: Path) -> None:
    source, path = shoot(studio, CLOSED), tmp_path / "damaged.mp4"
    for packet, target in ((47, tmp_path / "once.mp4"), (43, path)):
        spoil(source, target, packet=packet)
        source = target
    times = read_frame_times(path)
    decoder = VideoFrameDecoder(path, times, range(100), skip_unneeded=True)
    assert len(list(decoder)) < 99
    bad = {number for number in range(100) if not decoder.is_intact(number)}
    assert bad == {times.stamps.tolist().index(pts) for pts in times.packet_stamps[43:50].tolist()}


def test_a_picture_that_is_left_out_in_silence_is_not_good(
    studio: MediaCache, tmp_path: Path
) -> None:
    one = film("mpeg2.mp4", 25, codec="mpeg2video", options=(("b", "600k"), ("g", "10")), **BUSY)
    source, path = shoot(studio, one), tmp_path / "damaged.mp4"
    spoil(source, path, packet=45)
    assert not notices(path)
    decoder = VideoFrameDecoder(path, read_frame_times(path), {33, 45}, skip_unneeded=True)
    assert [number for number, _ in decoder] == [33]
    assert decoder.is_intact(33)
    assert not decoder.is_intact(45)


def test_a_picture_that_does_not_come_is_not_good(studio: MediaCache, tmp_path: Path) -> None:
    one = film("vp9.mp4", 25, codec="libvpx-vp9", options=(*VP9[:-1], ("g", "10")), **BUSY)
    source, path = shoot(studio, one), tmp_path / "damaged.mp4"
    spoil(source, path, packet=45)
    decoder = VideoFrameDecoder(path, read_frame_times(source), range(100), skip_unneeded=True)
    came = {number for number, _ in decoder}
    assert 45 not in came
    good = {number for number in range(100) if decoder.is_intact(number)}
    assert good == set(range(45)) | set(range(50, 100))


def test_several_streams_of_pictures_are_told_apart(studio: MediaCache, tmp_path: Path) -> None:
    other, path = studio.make(MP4), tmp_path / "two.mp4"
    two = ("-i", str(shoot(studio, CLOSED)), "-i", str(other), "-map", "0:v", "-map", "1")
    run_ffmpeg(*two, "-c", "copy", str(path))
    every = decoded(shoot(studio, CLOSED))
    assert drawn(path, {3, 55}, skip_unneeded=True) == [(3, every[3]), (55, every[55])]
