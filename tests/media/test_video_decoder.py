"""Decoding only requested frames gives the same frames as decoding all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_audio import MP4, MediaCache
from support.synthetic_video import (
    BUSY,
    CLOSED_GOPS,
    OPEN_GOPS,
    PLAIN,
    VP9,
    Packet,
    VideoSpec,
    corrupt,
    corrupt_noticeably,
    is_noticed,
    packets_of_video,
    render,
    render_with_hidden,
    run_ffmpeg,
    video_spec,
    x264_options,
)

from voxblink2_lib.media import container, tracks, video_decoder
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.video_index import read_frame_times

X265 = "keyint=12:min-keyint=12:bframes=3:open-gop=1:b-pyramid=1:log-level=none:pools=none"
VP9_HIDDEN = (
    *(("deadline", "good"), ("cpu-used", "5"), ("auto-alt-ref", "1"), ("lag-in-frames", "12")),
    *(("b", "99k"), ("g", "24")),
)
MPEG = (("b", "300k"), ("bf", "2"), ("g", "12"))
HEVC = (("preset", "ultrafast"), ("x265-params", X265))
VP9_SHORT_GOPS = video_spec(
    "vp9.webm", 25, codec="libvpx-vp9", options=(*VP9[:-1], ("g", "12")), **BUSY
)
SPECS = (
    OPEN_GOPS,
    CLOSED_GOPS,
    replace(OPEN_GOPS, name="open.ts"),
    replace(OPEN_GOPS, name="open.mkv"),
    video_spec("pyramid.mp4", 25, options=x264_options(24, 7, "b-pyramid=normal"), **BUSY),
    video_spec("short.mp4", 25, options=x264_options(3, 1), **BUSY),
    video_spec("interlaced.mp4", 25, options=x264_options(12, 2, "tff=1"), **BUSY),
    video_spec("keys.mp4", 25, options=x264_options(1, 0), **BUSY),
    VP9_SHORT_GOPS,
    video_spec("hidden.webm", 25, codec="libvpx-vp9", options=VP9_HIDDEN, **BUSY),
    video_spec("hevc.mp4", 25, codec="libx265", options=HEVC, **BUSY),
    video_spec("mpeg4.avi", 25, codec="mpeg4", options=MPEG, **BUSY),
    video_spec("mpeg2.ts", 25, codec="mpeg2video", options=MPEG, **BUSY),
)


def has_encoder(name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except av.error.FFmpegError:
        return False
    return True


# -- Skipping --------------------------------------------------------------------------------------


def decode_all(path: Path) -> list[bytes]:
    """Return all frames of a file, as PyAV decodes them from the first to the last."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return [frame.to_ndarray().tobytes() for frame in container.decode(stream)]


def decode_intact(
    path: Path, requested: set[int], *, skip_unneeded: bool
) -> list[tuple[int, bytes]]:
    """Return the requested frames, all of which must be intact."""
    times = read_frame_times(path)
    decoder = VideoFrameDecoder(path, times, requested, skip_unneeded=skip_unneeded)
    frames = [(index, frame.to_ndarray().tobytes()) for index, frame in decoder]
    assert all(decoder.is_intact(index) for index in requested)
    return frames


def assert_skipping_is_exact(path: Path, *, examples: int = 12) -> None:
    expected = decode_all(path)
    last = len(expected) - 1
    runs = st.tuples(st.integers(0, last), st.integers(1, 9), st.integers(1, 3)).map(
        lambda run: range(run[0], min(last + 1, run[0] + run[1] * run[2]), run[2])
    )

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(st.lists(runs, min_size=1, max_size=3).map(lambda ranges: set().union(*ranges)))
    def check(requested: set[int]) -> None:
        assert decode_intact(path, requested, skip_unneeded=True) == [
            (index, expected[index]) for index in sorted(requested)
        ]

    every_index = set(range(last + 1))
    assert decode_intact(path, every_index, skip_unneeded=False) == list(enumerate(expected))
    check()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_skipping_changes_no_bit(media_cache: MediaCache, spec: VideoSpec) -> None:
    path = render(media_cache, spec)
    assert len(decode_all(path)) == len(spec.times)
    assert_skipping_is_exact(path)


def test_skipping_changes_no_bit_of_vp8_with_hidden_frames(media_cache: MediaCache) -> None:
    path = render_with_hidden(media_cache, PLAIN, clock="1/30")
    assert len(packets_of_video(path)) > len(decode_all(path)) == len(PLAIN.times)
    assert_skipping_is_exact(path)


@pytest.mark.skipif(not has_encoder("libsvtav1"), reason="this PyAV cannot write AV1")
def test_encoding_av1_leaves_the_scheduling_of_this_thread(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    options = (("preset", "10"), ("svtav1-params", "lp=1"))
    spec = video_spec("av1.mp4", 25, 1, codec="libsvtav1", options=options, size=(160, 96))
    render(MediaCache(tmp_path), spec)
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(not has_encoder("libsvtav1"), reason="this PyAV cannot write AV1")
def test_skipping_changes_no_bit_of_av1(media_cache: MediaCache) -> None:
    options = (("preset", "10"), ("g", "12"), ("svtav1-params", "lp=1"))
    spec = video_spec("av1.mp4", 25, codec="libsvtav1", options=options, **BUSY)
    assert_skipping_is_exact(render(media_cache, spec))


@pytest.mark.parametrize("spec", [OPEN_GOPS, CLOSED_GOPS], ids=lambda spec: spec.name)
def test_every_single_frame_can_be_decoded_alone(media_cache: MediaCache, spec: VideoSpec) -> None:
    path = render(media_cache, spec)
    for index, expected in enumerate(decode_all(path)):
        assert decode_intact(path, {index}, skip_unneeded=True) == [(index, expected)]


class LoggingProxy:
    """Wraps an object of PyAV, forwards everything, and logs the calls of ``decode``."""

    def __init__(self, real: Any, log: list[tuple[int | None, str, int]]) -> None:
        self.__dict__.update(real=real, log=log)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        return LoggingProxy(value, self.log) if name == "codec_context" else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def decode(self, packet: Any) -> list[Any]:
        frames: list[Any] = self.real.decode(packet)
        pts = None if packet is None else packet.pts
        self.log.append((pts, str(self.real.skip_frame), len(frames)))
        return frames


class DecoderLog:
    """What a decoder reads and decodes.

    Attributes:
        read: timestamps of the packets read.
        calls: of each call of the decoder: timestamp, what it skips, and the number of frames
            returned.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[int] = []
        self.calls: list[tuple[int | None, str, int]] = []
        stream_of, packets_of = tracks.video_stream, container.packets_of

        def log_packets(container: Any, stream: Any) -> Iterator[Any]:
            for packet in packets_of(container, stream.real):
                self.read.append(packet.pts)
                yield packet

        monkeypatch.setattr(
            video_decoder,
            "video_stream",
            lambda container: LoggingProxy(stream_of(container), self.calls),
        )
        monkeypatch.setattr(video_decoder, "packets_of", log_packets)

    @property
    def decoded(self) -> list[int]:
        return [pts for pts, _, _ in self.calls if pts is not None]


def gops_of(packets: Sequence[Packet], path: Path, indices: set[int]) -> list[int]:
    """Return the timestamps of all packets in the GOPs of some frames."""
    stamps = read_frame_times(path).stamps
    gop, gop_of = 0, {}
    for packet in packets:
        gop += packet.is_key
        gop_of[packet.pts] = gop
    gops = {gop_of[int(stamps[index])] for index in indices}
    return [packet.pts for packet in packets if gop_of[packet.pts] in gops]


VP9_GOPS_OF_TEN = replace(VP9_SHORT_GOPS, options=(*VP9[:-1], ("g", "10")))


@pytest.mark.parametrize("spec", [CLOSED_GOPS, VP9_GOPS_OF_TEN], ids=lambda spec: spec.name)
def test_only_gops_with_a_requested_frame_are_decoded(
    media_cache: MediaCache, spec: VideoSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(media_cache, spec)
    packets, times = packets_of_video(path), read_frame_times(path)
    log = DecoderLog(monkeypatch)
    decoder = VideoFrameDecoder(path, times, {23, 24, 47, 71}, skip_unneeded=True)
    assert [index for index, _ in decoder] == [23, 24, 47, 71]
    # GOPs have ten frames: of the third, fifth and eighth, all up to the last requested frame.
    positions = {packet.pts: position for position, packet in enumerate(packets)}
    needed: list[int] = []
    for indices in ({23, 24}, {47}, {71}):
        last = max(positions[int(times.stamps[index])] for index in indices)
        gop = gops_of(packets, path, indices)
        assert len(gop) == 10
        needed += [pts for pts in gop if positions[pts] <= last]
    assert len(needed) < 30
    assert log.decoded == needed
    # One more is read, to find that it is not needed.
    assert log.read == times.packet_stamps[: last + 2].tolist()


def test_the_gop_before_is_decoded_for_frames_that_may_depend_on_it(
    media_cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(media_cache, OPEN_GOPS)
    packets, times = packets_of_video(path), read_frame_times(path)
    keys = [position for position, packet in enumerate(packets) if packet.is_key]
    leading = packets[keys[4] + 1]
    assert leading.pts < packets[keys[4]].pts, "the video has no leading frames"
    requested = times.stamps.tolist().index(leading.pts)
    log = DecoderLog(monkeypatch)
    decoder = VideoFrameDecoder(path, times, {requested}, skip_unneeded=True)
    assert [index for index, _ in decoder] == [requested]
    assert log.decoded == [packet.pts for packet in packets[keys[3] : keys[4] + 2]]


def test_h264_frames_on_which_no_other_depends_are_skipped(
    media_cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(media_cache, CLOSED_GOPS)
    times = read_frame_times(path)
    log = DecoderLog(monkeypatch)
    decoder = VideoFrameDecoder(path, times, {0, 9}, skip_unneeded=True)
    assert [index for index, _ in decoder] == [0, 9]
    # I P b b P b b P, as they are stored: the first and the last are requested, no b is decoded.
    assert len(log.decoded) == 8
    assert sum(count for _, _, count in log.calls) == 4


@pytest.mark.parametrize("spec", [CLOSED_GOPS, VP9_SHORT_GOPS], ids=lambda spec: spec.name)
def test_without_skipping_everything_is_decoded_up_to_the_last_requested_frame(
    media_cache: MediaCache, spec: VideoSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(media_cache, spec)
    times = read_frame_times(path)
    log = DecoderLog(monkeypatch)
    decoder = VideoFrameDecoder(path, times, {70}, skip_unneeded=False)
    assert [index for index, _ in decoder] == [70]
    last = times.packet_stamps.tolist().index(int(times.stamps[70]))
    assert log.decoded == times.packet_stamps[: last + 1].tolist()
    assert {skipped for _, skipped, _ in log.calls} == {"DEFAULT"}


def test_without_a_requested_frame_nothing_is_decoded(
    media_cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(media_cache, CLOSED_GOPS)
    times = read_frame_times(path)
    log = DecoderLog(monkeypatch)
    assert list(VideoFrameDecoder(path, times, set(), skip_unneeded=True)) == []
    assert log.decoded == []
    assert len(log.read) <= 1


# -- Damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip_unneeded", [True, False])
@pytest.mark.parametrize("skip", [0.0, 0.5], ids=["lost", "concealed"])
@pytest.mark.parametrize("packet", [40, 41, 43, 44, 49])
def test_an_intact_frame_is_that_of_the_undamaged_video(
    media_cache: MediaCache, packet: int, skip: float, skip_unneeded: bool, tmp_path: Path
) -> None:
    source, path = render(media_cache, CLOSED_GOPS), tmp_path / "damaged.mp4"
    expected, times = decode_all(source), read_frame_times(source)
    corrupt_noticeably(source, path, packet=packet, skip=skip)
    requested = set(range(len(expected)))
    decoder = VideoFrameDecoder(
        path, read_frame_times(path), requested, skip_unneeded=skip_unneeded
    )
    frames = {index: frame.to_ndarray().tobytes() for index, frame in decoder}
    intact = {index for index in requested if decoder.is_intact(index)}
    assert {index for index in intact if frames[index] != expected[index]} == set()
    # The rest of the GOP is damaged, and nothing else.
    stamps = times.packet_stamps[packet:50].tolist()
    assert requested - intact == {times.stamps.tolist().index(stamp) for stamp in stamps}


@pytest.mark.parametrize("skip_unneeded", [True, False])
@pytest.mark.parametrize("skip", [0.0, 0.5], ids=["lost", "concealed"])
def test_damage_reaches_the_leading_frames_of_the_next_gop(
    media_cache: MediaCache, skip: float, skip_unneeded: bool, tmp_path: Path
) -> None:
    source, path = render(media_cache, OPEN_GOPS), tmp_path / "damaged.mp4"
    expected, packets = decode_all(source), packets_of_video(source)
    stamps = read_frame_times(source).stamps.tolist()
    keys = [position for position, packet in enumerate(packets) if packet.is_key]
    corrupt_noticeably(source, path, packet=keys[3], skip=skip)
    decoder = VideoFrameDecoder(
        path, read_frame_times(path), range(len(expected)), skip_unneeded=skip_unneeded
    )
    frames = {index: frame.to_ndarray().tobytes() for index, frame in decoder}
    leading = {
        stamps.index(packet.pts)
        for packet in packets[keys[4] + 1 :]
        if packet.pts < packets[keys[4]].pts
    }
    assert leading
    assert not any(decoder.is_intact(index) for index in leading)
    rest = {stamps.index(packet.pts) for packet in packets[keys[4] :]} - leading
    assert all(decoder.is_intact(index) and frames[index] == expected[index] for index in rest)


def test_of_several_damages_in_a_gop_the_first_counts(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    source, path = render(media_cache, CLOSED_GOPS), tmp_path / "damaged.mp4"
    for packet, target in ((47, tmp_path / "once.mp4"), (43, path)):
        corrupt(source, target, packet=packet)
        source = target
    times = read_frame_times(path)
    decoder = VideoFrameDecoder(path, times, range(100), skip_unneeded=True)
    assert len(list(decoder)) < 99
    damaged = {index for index in range(100) if not decoder.is_intact(index)}
    stamps = times.packet_stamps[43:50].tolist()
    assert damaged == {times.stamps.tolist().index(stamp) for stamp in stamps}


def test_a_frame_that_is_silently_dropped_is_not_intact(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    options = (("b", "600k"), ("g", "10"))
    spec = video_spec("mpeg2.mp4", 25, codec="mpeg2video", options=options, **BUSY)
    source, path = render(media_cache, spec), tmp_path / "damaged.mp4"
    corrupt(source, path, packet=45)
    assert not is_noticed(path)
    decoder = VideoFrameDecoder(path, read_frame_times(path), {33, 45}, skip_unneeded=True)
    assert [index for index, _ in decoder] == [33]
    assert decoder.is_intact(33)
    assert not decoder.is_intact(45)


def test_a_frame_that_is_not_decoded_is_not_intact(media_cache: MediaCache, tmp_path: Path) -> None:
    options = (*VP9[:-1], ("g", "10"))
    spec = video_spec("vp9.mp4", 25, codec="libvpx-vp9", options=options, **BUSY)
    source, path = render(media_cache, spec), tmp_path / "damaged.mp4"
    corrupt(source, path, packet=45)
    decoder = VideoFrameDecoder(path, read_frame_times(source), range(100), skip_unneeded=True)
    assert 45 not in {index for index, _ in decoder}
    intact = {index for index in range(100) if decoder.is_intact(index)}
    assert intact == set(range(45)) | set(range(50, 100))


def test_of_several_video_streams_the_first_is_decoded(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    first, path = render(media_cache, CLOSED_GOPS), tmp_path / "two.mp4"
    second = media_cache.make(MP4)
    maps = ("-map", "0:v", "-map", "1")
    run_ffmpeg("-i", str(first), "-i", str(second), *maps, "-c", "copy", str(path))
    expected = decode_all(first)
    frames = decode_intact(path, {3, 55}, skip_unneeded=True)
    assert frames == [(3, expected[3]), (55, expected[55])]
