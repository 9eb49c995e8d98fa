"""Find one video after the other among millions, in the order in which something else has them."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa

from voxblink2_lib.records import VideoKey


class VideoLookup:
    """Rows of videos in a table.

    Args:
        videos: columns ``speaker_id`` and ``video_id``, all rows of a speaker in a row.
    """

    def __init__(self, videos: pa.Table) -> None:
        self._videos = videos["video_id"]
        speakers = videos["speaker_id"].combine_chunks().dictionary_encode()
        codes = speakers.indices.to_numpy()
        begins = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
        names = speakers.dictionary.to_pylist()
        self._ranges = {
            names[codes[begin]]: (begin, end)
            for begin, end in itertools.pairwise([*begins, len(codes)])
        }
        # Whoever asks mostly asks for the same speaker again.
        self._speaker = ""
        self._rows: dict[str, int] = {}

    def row(self, key: VideoKey) -> int | None:
        """Return the row of a video; ``None`` if it is not in the table."""
        if key.speaker_id != self._speaker:
            begin, end = self._ranges.get(key.speaker_id, (0, 0))
            videos = self._videos.slice(begin, end - begin).to_pylist()
            self._speaker = key.speaker_id
            self._rows = {video_id: row for row, video_id in enumerate(videos, start=begin)}
        return self._rows.get(key.video_id)
