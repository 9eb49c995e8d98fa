"""The box is drawn where the face is, on every frame."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.shard_builder import rows_of

from voxblink2_lib.browse.clips import Clips, StoredClip
from voxblink2_lib.browse.faces import boxed_video, boxes_in_clip
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.errors import ClipDamagedError
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import UtteranceKey
from voxblink2_lib.store.layout import Store


@pytest.fixture(scope="module")
def clip(face_store: Path) -> StoredClip:
    shard = min((face_store / "shards" / "audio-visual").glob("*.arrow"))
    row = rows_of(shard)[0]
    key = UtteranceKey(row["speaker_id"], row["video_id"], row["utterance_id"])
    stored = Clips(QuietLedger(Store(face_store), "audio-visual")).find(key)
    assert stored is not None
    return stored


def frames_of(video: bytes) -> list[Any]:
    with av.open(io.BytesIO(video), "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("margin", [0.0, 0.25, 1.0])
def test_a_box_in_its_window(margin: float) -> None:
    boxes = np.array([[10, 20, 40, 60], [0, 0, 50, 50]], np.int16)
    side = 1 + 2 * margin
    square = boxes_in_clip(boxes, ClipOptions(video_margin=margin))
    (left, top, right, bottom), whole = square.tolist()
    assert (left + right) / 2 == pytest.approx(0.5)
    assert (top + bottom) / 2 == pytest.approx(0.5)
    assert right - left == pytest.approx(40 / 60 / side)
    assert bottom - top == pytest.approx(1 / side)
    assert whole[2] - whole[0] == pytest.approx(1 / side)
    stretched = boxes_in_clip(boxes, ClipOptions(video_margin=margin, video_shape="stretched"))
    assert np.allclose(stretched[:, 2:] - stretched[:, :2], 1 / side)


def test_every_frame_has_the_box(clip: StoredClip) -> None:
    assert clip.video is not None
    assert clip.boxes is not None
    options = ClipOptions(video_margin=0.5)  # so that the box is well inside
    plain, boxed = frames_of(clip.video), frames_of(boxed_video(clip, options))
    assert len(boxed) == len(plain) == len(clip.boxes)
    for frame, (left, top, right, bottom) in zip(
        boxed, boxes_in_clip(clip.boxes, options) * 336, strict=True
    ):
        middle = (int(top + bottom) // 2, int(left + right) // 2)
        for row, column in ((middle[0], round(left)), (round(top), middle[1])):
            red, green, blue = frame[row : row + 2, column : column + 2].reshape(-1, 3).mean(axis=0)
            assert red > 150
            assert green > 110
            assert blue < 120


def test_a_clip_that_is_no_video_or_lacks_boxes(clip: StoredClip) -> None:
    options = ClipOptions()
    assert clip.boxes is not None
    for wrong in (
        replace(clip, video=b"no video"),
        replace(clip, boxes=clip.boxes[:-1]),
        replace(clip, boxes=np.concatenate([clip.boxes, clip.boxes])),
        replace(clip, boxes=None),
        replace(clip, boxes=np.zeros_like(clip.boxes)),
    ):
        with pytest.raises(ClipDamagedError, match="The face clip"):
            boxed_video(wrong, options)
