"""Which streams of a file are chosen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from av.stream import Disposition as Flag

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.tracks import audio_streams, has_audio, has_video, video_stream

NOTHING = Flag(0)


def stream(
    number: int, flags: Flag = NOTHING, *, codec: str | None = "aac", frames: int = 0
) -> Any:
    context = None if codec is None else SimpleNamespace(name=codec)
    return SimpleNamespace(number=number, disposition=flags, codec_context=context, frames=frames)


def container(*, audio: tuple[Any, ...] = (), video: tuple[Any, ...] = ()) -> Any:
    return SimpleNamespace(streams=SimpleNamespace(audio=list(audio), video=list(video)))


def audio_order(*flags: Flag) -> list[int]:
    streams = tuple(stream(number, flag) for number, flag in enumerate(flags))
    return [each.number for each in audio_streams(container(audio=streams))]


@pytest.mark.parametrize(
    ("flags", "order"),
    [
        ((NOTHING, NOTHING), [0, 1]),
        ((NOTHING, Flag.default), [1, 0]),
        ((Flag.default, Flag.default), [0, 1]),
        ((Flag.default, Flag.original), [1, 0]),
        ((Flag.default | Flag.dub, NOTHING), [1, 0]),
        ((Flag.default | Flag.comment, NOTHING, Flag.default), [2, 1, 0]),
        ((Flag.default | Flag.visual_impaired, NOTHING), [1, 0]),
        ((Flag.default | Flag.descriptions, Flag.dub), [0, 1]),
        ((Flag.dub, Flag.comment), [0, 1]),
    ],
)
def test_the_order_of_audio_streams(flags: tuple[Flag, ...], order: list[int]) -> None:
    assert audio_order(*flags) == order


def test_a_user_may_choose_the_audio_stream() -> None:
    streams = (stream(0, Flag.original), stream(1, Flag.dub))
    (only,) = audio_streams(container(audio=streams), track=1)
    assert only.number == 1
    message = r"has 2 audio tracks, so none has the number 2 \(audio_track counts from 0\)"
    with pytest.raises(MediaError, match=message):
        audio_streams(container(audio=streams), track=2)


def test_streams_of_unknown_codecs_are_left_out() -> None:
    streams = (stream(0, Flag.default, codec=None), stream(1))
    assert [each.number for each in audio_streams(container(audio=streams))] == [1]
    with pytest.raises(MediaError, match="audio stream has an unknown codec"):
        audio_streams(container(audio=streams), track=0)
    with pytest.raises(MediaError, match="has no audio stream"):
        audio_streams(container())
    assert not has_audio(container(audio=streams[:1]))
    assert has_audio(container(audio=streams))


@pytest.mark.parametrize(
    ("streams", "chosen"),
    [
        ((stream(0, codec="h264"), stream(1, codec="h264")), 0),
        ((stream(0, codec="h264"), stream(1, Flag.default, codec="h264")), 1),
        ((stream(0, Flag.default, codec="png"), stream(1, codec="h264")), 1),
        ((stream(0, Flag.default, codec="h264", frames=1), stream(1, codec="h264")), 1),
        ((stream(0, Flag.attached_pic, codec="mjpeg"), stream(1, codec="mjpeg")), 1),
        ((stream(0, codec="mjpeg"), stream(1, Flag.original, codec="h264")), 1),
        ((stream(0, codec="png"),), 0),
    ],
)
def test_the_video_stream_is_no_still_picture(streams: tuple[Any, ...], chosen: int) -> None:
    assert video_stream(container(video=streams)).number == chosen
    assert has_video(container(video=streams))


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ((), "has no video stream"),
        ((stream(0, Flag.attached_pic, codec="png"),), "has no video stream"),
        ((stream(0, codec=None),), "video stream has an unknown codec"),
    ],
)
def test_without_video_the_message_says_so(streams: tuple[Any, ...], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        video_stream(container(video=streams))
    assert not has_video(container(video=streams))
