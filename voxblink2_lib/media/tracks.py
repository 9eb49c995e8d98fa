"""Which audio and which video stream of a file is the speaker's. Every reader takes its answer."""

from __future__ import annotations

from typing import Any

from voxblink2_lib.errors import MediaError

# Codecs of still images. A stream of one of them is film only where there is no other: a picture
# put into Matroska need not be flagged as one.
_IMAGE_CODECS = frozenset(
    {
        "png",
        "apng",
        "mjpeg",
        "bmp",
        "gif",
        "tiff",
        "webp",
        "jpeg2000",
        "jpegxl",
        "ljpeg",
        "pgm",
        "ppm",
    }
)


def audio_streams(container: Any, *, track: int | None = None) -> list[Any]:
    """Return the audio streams that can be decoded, the one to take first, then the next best.

    The first is one flagged as the original; else the one flagged default that is not a dub, a
    commentary or a description for the visually impaired; else the first such; else the first.

    Args:
        container: an open file.
        track: the user's choice, counted from 0 among the audio streams; then it is the only one.

    Raises:
        MediaError: there is no audio stream, none that can be decoded, or not that many.
    """
    from av.stream import Disposition

    streams = list(container.streams.audio)
    if not streams:
        raise MediaError("the media file has no audio stream")
    if track is not None:
        if track >= len(streams):
            tracks = "1 audio track" if len(streams) == 1 else f"{len(streams)} audio tracks"
            raise MediaError(
                f"the media file has {tracks}, so none has the number {track} "
                "(audio_track counts from 0)"
            )
        streams = [streams[track]]
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise MediaError("the media file's audio stream has an unknown codec")
    other_speech = (
        Disposition.dub
        | Disposition.comment
        | Disposition.visual_impaired
        | Disposition.descriptions
    )

    def rank(stream: Any) -> tuple[bool, bool, bool]:
        flags = stream.disposition
        is_other = bool(flags & other_speech)
        is_default = bool(flags & Disposition.default)
        return not flags & Disposition.original, is_other, not is_default

    return sorted(known, key=rank)


def video_stream(container: Any) -> Any:
    """Return the video stream, chosen as the audio stream is; no cover, no still picture.

    Raises:
        MediaError: there is no video stream, or none that can be decoded.
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not streams:
        raise MediaError("the media file has no video stream")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise MediaError("the media file's video stream has an unknown codec")

    def rank(stream: Any) -> tuple[bool, bool, bool]:
        flags = stream.disposition
        is_still = stream.frames == 1 or stream.codec_context.name in _IMAGE_CODECS
        is_default = bool(flags & Disposition.default)
        return is_still, not flags & Disposition.original, not is_default

    return min(known, key=rank)


def has_video(container: Any) -> bool:
    """Return whether a file has a video stream besides covers."""
    try:
        video_stream(container)
    except MediaError:
        return False
    return True


def has_audio(container: Any) -> bool:
    """Return whether a file has an audio stream that can be decoded."""
    try:
        audio_streams(container)
    except MediaError:
        return False
    return True
