"""Search the videos of a ledger, a page at a time. Only for people who look; reads only.

There may be millions of videos: no query goes through all of them, but for those by an index. What
no index can find is looked for among a number of videos, and the caller goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.ledger_database import LedgerDatabase

# So many videos are looked at by one call: a few hundredths of a second.
_VIDEOS_AT_ONCE = 50_000
# Up to here, the videos of a class are sorted; of more, many are among the next ones anyway.
_FEW_VIDEOS = 100_000
_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"
_BEFORE_ALL = VideoKey("", "")


class VideoFilter(NamedTuple):
    """Which videos are wanted; an empty value allows all.

    Attributes:
        speaker_id: of this speaker.
        video_id: with this id.
        statuses: of one of these classes.
        words: with all of these words, or parts of words, in the reason.
    """

    speaker_id: str = ""
    video_id: str = ""
    statuses: tuple[str, ...] = ()
    words: str = ""

    def allows(self, video: ListedVideo) -> bool:
        """Return whether a video is wanted."""
        return (
            self.speaker_id in {"", video.speaker_id}
            and self.video_id in {"", video.video_id}
            and (not self.statuses or video.status in self.statuses)
            and all(word in video.reason.lower() for word in self.words.lower().split())
        )


ALL_VIDEOS = VideoFilter()


class ListedVideo(NamedTuple):
    """What a ledger has of one video.

    Attributes:
        speaker_id: its speaker.
        video_id: the video.
        status: its class, or ``planned``.
        reason: the words of its last answer.
        attempts: how often it was tried.
        next_at: Unix time of the next retry; ``None`` means never by itself.
        clips: how many it has.
        samples: their length, samples at 16 kHz.
        updated_at: Unix time of the last answer; ``None`` before.
    """

    speaker_id: str
    video_id: str
    status: str
    reason: str
    attempts: int
    next_at: float | None
    clips: int
    samples: int
    updated_at: float | None

    @property
    def key(self) -> VideoKey:
        """Its ids."""
        return VideoKey(self.speaker_id, self.video_id)


class VideoPage(NamedTuple):
    """Some of the wanted videos.

    Attributes:
        videos: sorted by speaker and video.
        reached: the last video that was looked at; ``None`` if there is none after it.
    """

    videos: list[ListedVideo]
    reached: VideoKey | None


class JobPlace(NamedTuple):
    """A job with clips of a video.

    Attributes:
        job: its number.
        shard: name of its file; empty if it has no clip, ``None`` until it is sealed.
    """

    job: int
    shard: str | None


_COLUMNS = ", ".join(ListedVideo._fields)


class LedgerSearch:
    """Finds videos of one configuration.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def page(self, wanted: VideoFilter, *, after: VideoKey | None, most: int) -> VideoPage:
        """Return the next videos that are wanted, of a number that is looked at.

        Args:
            wanted: which.
            after: the last video that was looked at; ``None`` before the first.
            most: how many are returned.
        """
        after = after or _BEFORE_ALL
        if wanted.speaker_id or wanted.words:
            return self._scanned(wanted, after, most)
        if wanted.video_id:
            keys = self._keys("video_id = ?", (wanted.video_id,), after, most)
        elif wanted.statuses and self._are_few(wanted.statuses):
            keys = self._keys(_is_in(wanted.statuses), wanted.statuses, after, most)
        else:
            return self._scanned(wanted, after, most)
        videos = [video for key in keys if (video := self.video(key)) and wanted.allows(video)]
        return VideoPage(videos, keys[-1] if len(keys) == most else None)

    def _are_few(self, statuses: Sequence[str]) -> bool:
        ((count,),) = self._database.query(
            f"select count(*) from (select 1 from videos where config = ? and "  # noqa: S608  # a constant
            f"{_is_in(statuses)} limit ?)",
            *(self._config, *statuses, _FEW_VIDEOS),
        )
        return bool(count < _FEW_VIDEOS)

    def _keys(
        self, condition: str, values: Sequence[str], after: VideoKey, most: int
    ) -> list[VideoKey]:
        # The plus signs keep SQLite from reading the whole table in the order of its keys: an
        # index has these columns of all videos.
        rows = self._database.query(
            f"select speaker_id, video_id from videos where config = ? and {condition} "  # noqa: S608  # constants
            "and (+speaker_id, +video_id) > (?, ?) order by +speaker_id, +video_id limit ?",
            *(self._config, *values, *after, most),
        )
        return list(map(VideoKey._make, rows))

    def _scanned(self, wanted: VideoFilter, after: VideoKey, most: int) -> VideoPage:
        place, values = self._place(wanted, after)
        last = self._database.query(
            f"select speaker_id, video_id from videos not indexed where {place} "  # noqa: S608  # constants
            "order by speaker_id, video_id limit 1 offset ?",
            *(*values, _VIDEOS_AT_ONCE - 1),
        )
        if last:
            place += " and (speaker_id, video_id) <= (?, ?)"
            values += last[0]
        conditions, more = _conditions(wanted)
        rows = self._database.query(
            f"select {_COLUMNS} from videos not indexed where {place}{conditions} "  # noqa: S608  # constants
            "order by speaker_id, video_id limit ?",
            *(*values, *more, most),
        )
        videos = list(map(ListedVideo._make, rows))
        if len(videos) == most:
            return VideoPage(videos, videos[-1].key)
        return VideoPage(videos, VideoKey(*last[0]) if last else None)

    def _place(self, wanted: VideoFilter, after: VideoKey) -> tuple[str, list[Any]]:
        """Return the condition for the videos after one, and its values."""
        if not wanted.speaker_id:
            return "config = ? and (speaker_id, video_id) > (?, ?)", [self._config, *after]
        # Compared with pairs, SQLite would go through all speakers before this one.
        video_id = after.video_id if after.speaker_id == wanted.speaker_id else ""
        values = [self._config, wanted.speaker_id, video_id]
        return "config = ? and speaker_id = ? and video_id > ?", values

    # -- One video ---------------------------------------------------------------------------------

    def video(self, key: VideoKey) -> ListedVideo | None:
        """Return what is known of a video; ``None`` if nothing is."""
        rows = self._database.query(
            f"select {_COLUMNS} from videos where {_IS_VIDEO}",  # noqa: S608  # constants
            *(self._config, *key),
        )
        return ListedVideo(*rows[0]) if rows else None

    def missing(self, key: VideoKey) -> dict[str, str]:
        """Return the utterances of a video that could not be cropped, with the reasons."""
        rows = self._database.query(
            f"select utterance_id, reason from missing where {_IS_VIDEO}",  # noqa: S608  # constants
            *(self._config, *key),
        )
        return dict(rows)

    def places(self, key: VideoKey) -> list[JobPlace]:
        """Return the jobs that may have clips of a video, in order."""
        jobs = f"select job from videos where {_IS_VIDEO}"  # noqa: S608  # a constant
        values: list[Any] = [self._config, *key]
        if self._database.has_table("split_videos"):
            jobs += f" union select job from split_videos where {_IS_VIDEO}"  # noqa: S608  # a constant
            values += [self._config, *key]
        rows = self._database.query(
            f"select job, shard from jobs where job in ({jobs}) and config = ? order by job",  # noqa: S608  # constants
            *(*values, self._config),
        )
        return list(map(JobPlace._make, rows))


def _is_in(statuses: Sequence[str]) -> str:
    return f"status in ({', '.join('?' * len(statuses))})"


def _conditions(wanted: VideoFilter) -> tuple[str, list[str]]:
    """Return the conditions of a filter but for the speaker, and their values."""
    conditions, values = "", []
    if wanted.video_id:
        conditions, values = " and video_id = ?", [wanted.video_id]
    if wanted.statuses:
        conditions += f" and {_is_in(wanted.statuses)}"
        values += wanted.statuses
    for word in wanted.words.split():
        conditions += r" and reason like ? escape '\'"
        values.append(f"%{_literal(word)}%")
    return conditions, values


def _literal(word: str) -> str:
    r"""Return a word in which no character stands for others.

    >>> print(_literal("50%_off"))
    50\%\_off
    """
    return word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
