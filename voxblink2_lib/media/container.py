"""Open media files and read their packets; only files of media, and only from this machine."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.damage import is_of_the_machine

# FFmpeg's demuxers of sound and film. Left out is whatever names other files (playlists, lists of
# files, session descriptions), reads devices, guesses its format from a file's name (sequences of
# images, raw samples), or runs programs: media come from strangers.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *("wav", "w64", "aiff", "caf", "au", "flac", "wv", "tta", "ape", "tak", "mpc", "mpc8", "voc"),
    *("mp3", "aac", "loas", "ac3", "eac3", "dts", "dtshd", "truehd", "amr", "amrnb", "amrwb"),
    *("ogg", "avi", "flv", "asf", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "ivf"),
    *("rm", "nut", "mxf", "gxf", "wtv", "dv", "nsv", "nistsphere"),
)
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}


@contextlib.contextmanager
def open_media(media: Path | bytes) -> Iterator[Any]:
    """Open a media file, on disk or in memory.

    Yields:
        An ``av.container.InputContainer``.

    Raises:
        MediaError: the file is not a media file, or is of a kind that may name other files.
    """
    import av

    if not (len(media) if isinstance(media, bytes) else media.stat().st_size):
        raise MediaError("the media file is empty")
    # The protocol is named, since FFmpeg would take one from a name with a colon.
    file = io.BytesIO(media) if isinstance(media, bytes) else f"file:{media}"
    try:
        with av.open(file, metadata_errors="replace", options=_OPTIONS) as container:
            yield container
    except av.error.FFmpegError as error:
        if is_of_the_machine(error):
            raise
        # FFmpeg says no more of a format that is not in the list.
        hint = " (damaged, or no audio or video, as a playlist)" * (error.errno == errno.EINVAL)
        raise MediaError(f"the media file cannot be read: {error.strerror}{hint}") from error


def demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream in decoding order, up to the first damage of the container."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, IndexError) as error:
            if is_of_the_machine(error):
                raise
            return  # Truncated or damaged from here on; the packets before are valid.
        yield packet


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream that have a timestamp, in decoding order."""
    for packet in demuxed(container, stream):
        if packet.pts is not None and packet.size:
            yield packet


def read_only(container: Any, *streams: Any) -> None:
    """Discard the packets of all other streams, so that they are not even read where possible."""
    from av.stream import Discard

    kept = {stream.index for stream in streams}
    for stream in container.streams:
        if stream.index not in kept:
            stream.discard = Discard.all
