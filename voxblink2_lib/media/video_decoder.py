"""Decode the pictures of a video that are needed, and no others where that is safe."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxblink2_lib.media.timeline import open_media
from voxblink2_lib.media.video_index import FrameTimes, packets_of, video_stream

# Decoders that can be told, packet by packet, to leave out pictures on which no other depends.
# Others decide later, or decode several at once, and would leave out the wrong ones.
_LEAVES_OUT = {"h264"}


class VideoFrameDecoder:
    """Iterates over the wanted pictures of a file, in the order in which they are shown.

    Packets form groups; each begins with a key picture, which depends on no other. Decoders
    conceal damage, and it spreads until the next group begins; so whatever is decoded between
    the two is held to be damaged.

    Args:
        path: the media file.
        times: its pictures.
        wanted: numbers of the pictures to yield.
        thrifty: leave out groups in which nothing is wanted, the rest of a group after the last
            picture that is, and, where the decoder can, pictures that are not wanted and on which
            no other depends.
    """

    def __init__(
        self, path: Path, times: FrameTimes, wanted: Collection[int], *, skip_unneeded: bool
    ) -> None:
        self._path = path
        self._thrifty = skip_unneeded
        self._groups = np.cumsum(times.packet_is_key).tolist()
        self._key_stamps = times.packet_stamps[times.packet_is_key].tolist()
        # Packets that show nothing may share a stamp with the one after them, which counts.
        self._place_of = {stamp: place for place, stamp in enumerate(times.packet_stamps.tolist())}
        self._stamp_of = {number: int(times.stamps[number]) for number in wanted}
        self._number_of = {stamp: number for number, stamp in self._stamp_of.items()}
        # Up to which packet each group is needed; what is stored later, nothing before depends on.
        self._needed_to: dict[int, int] = {}
        for number, stamp in self._stamp_of.items():
            place = self._place_of[stamp]
            for group in self._groups_for(number):
                self._needed_to[group] = max(place, self._needed_to.get(group, -1))
        self._last_place = max(self._needed_to.values(), default=-1)
        self._damaged_from: dict[int, int] = {}
        self._came: set[int] = set()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield the number of each picture, and the picture, an ``av.VideoFrame``."""
        with open_media(self._path) as container:
            stream = video_stream(container)
            context = stream.codec_context
            # Threads would cost memory, and workers use all cores already.
            context.thread_count = 1
            chooses = self._thrifty and context.name in _LEAVES_OUT
            has_jumped = False
            for place, packet in enumerate(packets_of(container, stream)):
                if place > self._last_place:
                    break
                if self._thrifty and place > self._needed_to.get(self._groups[place], -1):
                    has_jumped = True
                    continue
                if has_jumped:
                    yield from self._decode(context, None, place)
                    context.flush_buffers()
                    has_jumped = False
                if chooses:
                    is_wanted = packet.pts in self._number_of
                    context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
                if packet.is_corrupt:  # the file ends in the middle of it, or lost some of it
                    self._note_damage(place)
                yield from self._decode(context, packet, place)
            yield from self._decode(context, None, self._last_place)

    def is_intact(self, number: int) -> bool:
        """Say, after the iteration, whether a wanted picture came, and undamaged."""
        place = self._place_of[self._stamp_of[number]]
        return number in self._came and all(
            self._damaged_from.get(group, place + 1) > place for group in self._groups_for(number)
        )

    def _groups_for(self, number: int) -> list[int]:
        """Return the groups that a picture needs: its own, and maybe the one before."""
        stamp = self._stamp_of[number]
        group = self._groups[self._place_of[stamp]]
        # Pictures stored after a key picture and shown before it may depend on the group before.
        leads = group > 0 and stamp < self._key_stamps[group - 1]
        return [group - 1, group] if leads else [group]

    def _decode(self, context: Any, packet: Any, place: int) -> Iterator[tuple[int, Any]]:
        import av

        try:
            frames = context.decode(packet)
        except av.error.FFmpegError:
            self._note_damage(place)
            return
        for frame in frames:
            if frame.is_corrupt:
                self._note_damage(self._place_of.get(frame.pts, place))
            number = self._number_of.get(frame.pts)
            if number is not None:
                self._came.add(number)
                yield number, frame

    def _note_damage(self, place: int) -> None:
        if place >= 0:
            group = self._groups[place]
            self._damaged_from[group] = min(place, self._damaged_from.get(group, place))
