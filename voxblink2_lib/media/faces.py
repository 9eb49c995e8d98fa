"""Crop the face of every utterance from a video, decoded once.

Frame k of a clip, at k / 25 s, is the video frame nearest to that time. Which one that is follows
from the packets' timestamps, before anything is decoded; so only the frames that are needed are
decoded at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.media.face_encoder import FaceVideo, cut_window
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.media.orientation import Orientation, OrientationReader
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.video_index import FrameTimes, read_frame_times
from voxblink2_lib.media.windows import (
    Windows,
    boxes_of_all_frames,
    centres_fit,
    crop_windows,
    is_outside,
    scale_to,
)
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    BoxesEvidence,
    FaceClip,
    FaceTrack,
    Utterance,
    frame_start_sample,
)

# A video frame is displayed until the next one; except in slide shows, no longer than this.
MAX_DISTANCE_SECONDS = 0.5

# As with audio, the video may end one frame before the utterance does.
MAX_LATE_SECONDS = 1 / FRAMES_PER_SECOND
_EPSILON_SECONDS = 1e-6


class FaceCut(NamedTuple):
    """The face clips of one video, and the utterances without one."""

    clips: tuple[FaceClip, ...]
    missing: tuple[MissingUtterance, ...]


def crop_faces(
    path: Path, tracks: Iterable[FaceTrack], *, options: ClipOptions, reference_height: int = 0
) -> FaceCut:
    """Crop face tracks from a media file.

    Args:
        path: the file with the video stream.
        tracks: what to crop; utterances may overlap.
        options: size, margin, shape and quality of the clips.
        reference_height: lines of the rendition that boxes refer to where their track does not
            say; 0 if unknown.

    Returns:
        Clips in the order of the tracks, and the utterances that cannot be cropped, with the
        reason.

    Raises:
        MediaError: the file is not a media file, or has no video.
    """
    tracks = tuple(tracks)
    until_seconds = max((track.utterance.seconds[1] for track in tracks), default=0.0)
    times = read_frame_times(path, until_seconds=until_seconds)
    # Skipping packets is exact for well-formed streams. If a frame is damaged, all packets are
    # decoded, which tells real damage from a decoder that needed the skipped packets.
    for skip_unneeded in (True, False):
        job = _Job(path, times, tracks, options, reference_height)
        if job.run(skip_unneeded=skip_unneeded):
            break
    return job.result()


@dataclass(slots=True, eq=False)
class _Clip:
    """A clip being cropped.

    Attributes:
        track: what is cropped.
        boxes: one for each frame, shape (n, 4).
        video_frames: index of the video frame for each frame, shape (n,).
        frame_size: width and height of the video frame that the windows are for.
        windows: in pixels of that video frame, shape (n, 4).
        evidence: what the scale of the windows is taken from.
        encoder: ``None`` until the first video frame is decoded.
        problem: why it cannot be cropped.
    """

    track: FaceTrack
    boxes: npt.NDArray[np.int16]
    video_frames: npt.NDArray[np.intp]
    frame_size: tuple[int, int] = (0, 0)
    windows: Windows = field(default_factory=lambda: np.empty((0, 4)))
    evidence: BoxesEvidence = "assumed"
    encoder: FaceVideo | None = None
    problem: str = ""


class _Job:
    """One pass over the frames of one video."""

    def __init__(
        self,
        path: Path,
        times: FrameTimes,
        tracks: Sequence[FaceTrack],
        options: ClipOptions,
        reference_height: int,
    ) -> None:
        self._path = path
        self._times = times
        self._options = options
        self._reference_height = reference_height
        self._boxes_fit = True
        self._clips = [_planned(track, times) for track in tracks]
        # The frames of clips that a video frame becomes, in the order of the frames.
        self._uses: dict[int, list[tuple[_Clip, int]]] = defaultdict(list)
        for clip in self._clips:
            for frame, index in enumerate(clip.video_frames.tolist()):
                self._uses[index].append((clip, frame))

    def run(self, *, skip_unneeded: bool) -> bool:
        """Decode and crop; return whether every requested video frame was decoded undamaged."""
        decoder = VideoFrameDecoder(
            self._path, self._times, self._uses.keys(), skip_unneeded=skip_unneeded
        )
        orientations = OrientationReader()
        for index, video_frame in decoder:
            orientation = orientations.read(video_frame)
            for clip, frame in self._uses[index]:
                if not clip.problem:
                    self._add(clip, frame, video_frame, orientation)
        is_complete = True
        for clip in self._clips:
            if not clip.problem:
                clip.problem = self._loss(clip, decoder)
                is_complete = is_complete and not clip.problem
        return is_complete

    def _loss(self, clip: _Clip, decoder: VideoFrameDecoder) -> str:
        """Return what is lost of a clip; empty if nothing."""
        indices = clip.video_frames.tolist()
        lost = next((index for index in indices if not decoder.is_intact(index)), None)
        if lost is not None:
            return f"needs the video frame at {self._times.seconds[lost]:.2f} s, which is damaged"
        if clip.encoder is None or clip.encoder.frames != len(clip.boxes):
            return "has video frames that are decoded in another order than that of their times"
        return ""

    def _add(self, clip: _Clip, frame: int, video_frame: Any, orientation: Orientation) -> None:
        size = orientation.display_size(video_frame.width, video_frame.height)
        if size != clip.frame_size:  # at the first one; streams may change it later on
            self._place(clip, size)
        options = self._options
        if clip.encoder is None:
            clip.encoder = FaceVideo(video_frame, size=options.video_size, crf=options.video_crf)
        if not clip.problem and frame == clip.encoder.frames:  # no frame before it is lost
            window = tuple(clip.windows[frame].tolist())
            clip.encoder.add(
                cut_window(video_frame, window, size=options.video_size, orientation=orientation)
            )

    def _place(self, clip: _Clip, size: tuple[int, int]) -> None:
        """Compute a clip's windows for video frames of a size."""
        scale = scale_to(clip.track, size, reference_height=self._reference_height)
        factors, clip.evidence = scale[:2], scale.evidence
        plain = crop_windows(clip.boxes, scale=factors)
        self._boxes_fit = self._boxes_fit and centres_fit(plain, size)
        outside = next((n for n, window in enumerate(plain) if is_outside(window, size)), None)
        if outside is not None:
            x, y, width, height = clip.boxes[outside]
            clip.problem = (
                f"has a box outside the video at frame "
                f"{clip.track.utterance.first_frame + outside} (x {x}, y {y}, {width} x {height}; "
                f"the video has {size[0]} x {size[1]} pixels)"
            )
        options = self._options
        clip.frame_size = size
        clip.windows = crop_windows(
            clip.boxes, scale=factors, margin=options.video_margin, shape=options.video_shape
        )

    def result(self) -> FaceCut:
        clips: list[FaceClip] = []
        missing: list[MissingUtterance] = []
        for clip in self._clips:
            utterance = clip.track.utterance
            if clip.encoder is None or clip.problem:
                missing.append(MissingUtterance(utterance.utterance_id, clip.problem))
            else:
                data = clip.encoder.finish()
                clips.append(FaceClip(utterance, data, clip.boxes, self._boxes_fit, clip.evidence))
        return FaceCut(tuple(clips), tuple(missing))


def _planned(track: FaceTrack, times: FrameTimes) -> _Clip:
    try:
        return _Clip(track, boxes_of_all_frames(track), _video_frames_of(track.utterance, times))
    except ValueError as error:
        no_boxes = np.empty((0, 4), np.int16)
        return _Clip(track, no_boxes, np.empty(0, np.intp), problem=str(error))


def _video_frames_of(utterance: Utterance, times: FrameTimes) -> npt.NDArray[np.intp]:
    """Return the index of the video frame nearest to each frame of an utterance."""
    frames = range(utterance.first_frame, utterance.last_frame + 1)
    seconds = np.array([frame_start_sample(frame) for frame in frames]) / SAMPLE_RATE_HZ
    if utterance.seconds[1] - times.end_seconds > MAX_LATE_SECONDS + _EPSILON_SECONDS:
        raise ValueError(
            f"ends at {utterance.seconds[1]:.2f} s, but the video ends at {times.end_seconds:.2f} s"
        )
    nearest = times.nearest(seconds)
    distances = np.abs(times.seconds[nearest] - seconds)
    farthest = int(np.argmax(distances))
    if distances[farthest] > MAX_DISTANCE_SECONDS:
        raise ValueError(
            f"needs a video frame at {seconds[farthest]:.2f} s, but the nearest is "
            f"{distances[farthest]:.2f} s away"
        )
    return nearest
