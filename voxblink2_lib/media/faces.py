"""Cut the face of every utterance out of a video's pictures, decoded once.

Picture k of a clip, at k / 25 s, is the source's picture that is nearest to that time. Which one
that is follows from the packets' time stamps, before anything is decoded; so only what is needed
is decoded at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.media.face_encoder import FaceVideo, cut_window, shown_size
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.video_index import FrameTimes, read_frame_times
from voxblink2_lib.media.windows import Windows, centres_fit, crop_windows, is_outside
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    FaceClip,
    FaceTrack,
    Utterance,
    frame_start_sample,
)

# A picture stays until the next one. Slide shows apart, none stays longer than this.
MAX_DISTANCE_SECONDS = 0.5

# As with audio, the pictures may end one frame before the utterance does.
MAX_LATE_SECONDS = 1 / FRAMES_PER_SECOND
_EPSILON_SECONDS = 1e-6


class FaceCut(NamedTuple):
    """All that came of one video's pictures."""

    clips: tuple[FaceClip, ...]
    missing: tuple[MissingUtterance, ...]


def crop_faces(path: Path, tracks: Iterable[FaceTrack], *, options: ClipOptions) -> FaceCut:
    """Cut face tracks out of a media file.

    Args:
        path: the media file.
        tracks: what to cut; utterances may overlap.
        options: size, margin, shape and quality of the clips.

    Returns:
        Clips in the order asked for, and the utterances that cannot be cut, with the reason.

    Raises:
        MediaError: the file is no media file, or has no pictures.
    """
    wanted = tuple(tracks)
    until = max((one.utterance.seconds[1] for one in wanted), default=0.0)
    times = read_frame_times(path, until_seconds=until)
    # Leaving out packets is exact for well-made streams; where something is amiss, all of them
    # are decoded, which tells damage from a decoder that needed what was left out.
    for skip_unneeded in (True, False):
        job = _Job(path, times, wanted, options)
        if job.run(skip_unneeded=skip_unneeded):
            break
    return job.result()


@dataclass(slots=True, eq=False)
class _Clip:
    """A clip being cut.

    Attributes:
        track: what is cut.
        boxes: one a frame, shape (n, 4).
        pictures: number of the source's picture for each frame, shape (n,).
        size: width and height of the picture that the windows are for.
        windows: in pixels of that picture, shape (n, 4).
        video: the encoder, once the first picture is there.
        problem: why it cannot be cut.
    """

    track: FaceTrack
    boxes: npt.NDArray[np.int16]
    pictures: npt.NDArray[np.intp]
    size: tuple[int, int] = (0, 0)
    windows: Windows = field(default_factory=lambda: np.empty((0, 4)))
    video: FaceVideo | None = None
    problem: str = ""


class _Job:
    """One pass over the pictures of one video."""

    def __init__(
        self, path: Path, times: FrameTimes, tracks: Sequence[FaceTrack], options: ClipOptions
    ) -> None:
        self._path = path
        self._times = times
        self._options = options
        self._boxes_fit = True
        self._clips = [_planned(track, times) for track in tracks]
        # Which frames of which clips a picture becomes, in the order of the frames.
        self._uses: dict[int, list[tuple[_Clip, int]]] = defaultdict(list)
        for clip in self._clips:
            for frame, picture in enumerate(clip.pictures.tolist()):
                self._uses[picture].append((clip, frame))

    def run(self, *, skip_unneeded: bool) -> bool:
        """Decode and cut; say whether every picture that was asked for came undamaged."""
        decoder = VideoFrameDecoder(
            self._path, self._times, self._uses.keys(), skip_unneeded=skip_unneeded
        )
        for number, picture in decoder:
            for clip, frame in self._uses[number]:
                if not clip.problem:
                    self._add(clip, frame, picture)
        whole = True
        for clip in self._clips:
            if not clip.problem:
                clip.problem = self._loss(clip, decoder)
                whole = whole and not clip.problem
        return whole

    def _loss(self, clip: _Clip, decoder: VideoFrameDecoder) -> str:
        """Say what of a clip did not come, if anything."""
        lost = next((one for one in clip.pictures.tolist() if not decoder.is_intact(one)), None)
        if lost is not None:
            return f"needs the picture at {self._times.seconds[lost]:.2f} s, which is damaged"
        if clip.video is None or clip.video.frames != len(clip.boxes):
            return "has pictures that the decoder gives in another order than that of their times"
        return ""

    def _add(self, clip: _Clip, frame: int, picture: Any) -> None:
        if shown_size(picture) != clip.size:  # at the first one; streams may change it later on
            self._place(clip, shown_size(picture))
        if clip.video is None:
            options = self._options
            clip.video = FaceVideo(picture, size=options.video_size, crf=options.video_crf)
        if not clip.problem and frame == clip.video.frames:  # none before it is lost
            window = tuple(clip.windows[frame].tolist())
            clip.video.add(cut_window(picture, window, size=self._options.video_size))

    def _place(self, clip: _Clip, size: tuple[int, int]) -> None:
        """Lay a clip's boxes on a picture of some size."""
        scale = clip.track.scale_to(size)
        plain = crop_windows(clip.boxes, scale=scale)
        self._boxes_fit = self._boxes_fit and centres_fit(plain, size)
        outside = next((n for n, window in enumerate(plain) if is_outside(window, size)), None)
        if outside is not None:
            x, y, width, height = clip.boxes[outside]
            clip.problem = (
                f"has a box outside the picture at frame "
                f"{clip.track.utterance.first_frame + outside} (x {x}, y {y}, {width} x {height}; "
                f"the picture has {size[0]} x {size[1]} pixels)"
            )
        options = self._options
        clip.size = size
        clip.windows = crop_windows(
            clip.boxes, scale=scale, margin=options.video_margin, shape=options.video_shape
        )

    def result(self) -> FaceCut:
        clips: list[FaceClip] = []
        missing: list[MissingUtterance] = []
        for clip in self._clips:
            utterance = clip.track.utterance
            if clip.video is None or clip.problem:
                missing.append(MissingUtterance(utterance.utterance_id, clip.problem))
            else:
                data = clip.video.finish()
                clips.append(FaceClip(utterance, data, clip.boxes, self._boxes_fit))
        return FaceCut(tuple(clips), tuple(missing))


def _planned(track: FaceTrack, times: FrameTimes) -> _Clip:
    try:
        boxes = track.boxes_of_all_frames()
        return _Clip(track, boxes, _pictures_of(track.utterance, times))
    except ValueError as error:
        nothing = np.empty((0, 4), np.int16)
        return _Clip(track, nothing, np.empty(0, np.intp), problem=str(error))


def _pictures_of(utterance: Utterance, times: FrameTimes) -> npt.NDArray[np.intp]:
    """Return the number of the picture nearest to each frame of an utterance."""
    frames = range(utterance.first_frame, utterance.last_frame + 1)
    seconds = np.array([frame_start_sample(frame) for frame in frames]) / SAMPLE_RATE_HZ
    if utterance.seconds[1] - times.end_seconds > MAX_LATE_SECONDS + _EPSILON_SECONDS:
        raise ValueError(
            f"ends at {utterance.seconds[1]:.2f} s, the pictures end at {times.end_seconds:.2f} s"
        )
    nearest = times.nearest(seconds)
    distances = np.abs(times.seconds[nearest] - seconds)
    farthest = int(np.argmax(distances))
    if distances[farthest] > MAX_DISTANCE_SECONDS:
        raise ValueError(
            f"needs a picture at {seconds[farthest]:.2f} s, the nearest one is "
            f"{distances[farthest]:.2f} s away"
        )
    return nearest
