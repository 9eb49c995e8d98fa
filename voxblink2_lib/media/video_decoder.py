"""Decode only the requested frames of a video, where skipping the others is safe."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxblink2_lib.media.container import open_media, packets_of, read_only
from voxblink2_lib.media.damage import is_of_the_machine
from voxblink2_lib.media.tracks import video_stream
from voxblink2_lib.media.video_index import FrameTimes

# Decoders that can skip, packet by packet, frames on which no other depends. Others decide later,
# or decode several frames at once, and would skip the wrong ones.
_SKIPPING_CODECS = {"h264"}


class VideoFrameDecoder:
    """Iterates over requested frames of a file, in display order.

    Packets form groups of pictures (GOPs); each begins with a keyframe, which depends on no other
    frame. Decoders conceal damage, and it spreads to the end of its GOP; so whatever is decoded
    from there to the next keyframe counts as damaged.

    Args:
        path: the media file.
        times: its frames.
        requested: indices of the frames to yield.
        skip_unneeded: skip GOPs without a requested frame, the rest of a GOP after its last
            requested frame, and, if the decoder can, frames that are not requested and on which
            no other depends.
    """

    def __init__(
        self, path: Path, times: FrameTimes, requested: Collection[int], *, skip_unneeded: bool
    ) -> None:
        self._path = path
        self._skip_unneeded = skip_unneeded
        self._gops = np.cumsum(times.packet_is_key).tolist()
        self._key_stamps = times.packet_stamps[times.packet_is_key].tolist()
        # A packet that is not displayed may share its timestamp with the next, which then counts.
        self._stamps = times.packet_stamps.tolist()
        self._position_of = {stamp: position for position, stamp in enumerate(self._stamps)}
        self._stamp_of = {index: int(times.stamps[index]) for index in requested}
        self._index_of = {stamp: index for index, stamp in self._stamp_of.items()}
        # The last packet needed of each GOP; no packet depends on one that is stored later.
        self._needed_to: dict[int, int] = {}
        for index, stamp in self._stamp_of.items():
            position = self._position_of[stamp]
            for gop in self._gops_for(index):
                self._needed_to[gop] = max(position, self._needed_to.get(gop, -1))
        self._last_position = max(self._needed_to.values(), default=-1)
        self._damaged_from: dict[int, int] = {}
        self._decoded: set[int] = set()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield the index of each requested frame, and the frame, an ``av.VideoFrame``."""
        with open_media(self._path) as container:
            stream = video_stream(container)
            read_only(container, stream)
            context = stream.codec_context
            # Threads would cost memory, and workers use all cores already.
            context.thread_count = 1
            skips_frames = self._skip_unneeded and context.name in _SKIPPING_CODECS
            has_jumped = False
            for position, packet in enumerate(packets_of(container, stream)):
                if position > self._last_position:
                    break
                if self._skip_unneeded and not self._is_needed(position):
                    has_jumped = True
                    continue
                if has_jumped:
                    yield from self._decode(context, None, position)
                    context.flush_buffers()
                    has_jumped = False
                packet.pts = self._stamps[position]  # which its frame will have
                if skips_frames:
                    is_requested = packet.pts in self._index_of
                    context.skip_frame = "DEFAULT" if is_requested else "NONREF"
                if packet.is_corrupt:  # the file ends inside of it, or lost a part of it
                    self._note_damage(position)
                yield from self._decode(context, packet, position)
            yield from self._decode(context, None, self._last_position)

    def is_intact(self, index: int) -> bool:
        """Return, after the iteration, whether a requested frame was decoded without damage."""
        position = self._position_of[self._stamp_of[index]]
        return index in self._decoded and all(
            self._damaged_from.get(gop, position + 1) > position for gop in self._gops_for(index)
        )

    def _is_needed(self, position: int) -> bool:
        return position <= self._needed_to.get(self._gops[position], -1)

    def _gops_for(self, index: int) -> list[int]:
        """Return the GOPs that a frame needs: its own, and possibly the one before."""
        stamp = self._stamp_of[index]
        gop = self._gops[self._position_of[stamp]]
        # Frames stored after a keyframe but displayed before it may depend on the GOP before.
        is_leading = gop > 0 and stamp < self._key_stamps[gop - 1]
        return [gop - 1, gop] if is_leading else [gop]

    def _decode(self, context: Any, packet: Any, position: int) -> Iterator[tuple[int, Any]]:
        import av

        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            if is_of_the_machine(error):
                raise
            self._note_damage(position)
            return
        for frame in frames:
            if frame.is_corrupt:
                self._note_damage(self._position_of.get(frame.pts, position))
            index = self._index_of.get(frame.pts)
            if index is not None:
                self._decoded.add(index)
                yield index, frame

    def _note_damage(self, position: int) -> None:
        if position >= 0:
            gop = self._gops[position]
            self._damaged_from[gop] = min(position, self._damaged_from.get(gop, position))
