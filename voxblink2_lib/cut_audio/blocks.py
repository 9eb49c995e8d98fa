"""Blocks of files that workers turn into rows, handed out ahead and taken back in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from voxblink2_lib.cut_audio.cutting import cut_files
from voxblink2_lib.cut_audio.members import MemberStream
from voxblink2_lib.cut_audio.tasks import Content, CutBlock, CutFile, CutTask, CutVideo, VideoFiles
from voxblink2_lib.errors import StoppedError
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import AudioFormat, VideoKey
from voxblink2_lib.workers.pool import KEPT_MEMORY, WorkerDiedError, WorkerPool, collect
from voxblink2_lib.workers.shared_memory import SharedRange, SharedSlots, has_shared_memory

_BLOCK_FILES, _BLOCK_BYTES = 32, 8 << 20
# While a shard is written, workers have something to do; that takes as long as some blocks.
_WAITING_CALLS = 3
_CALL_SECONDS = 1800.0
_WAIT_SECONDS = 1.0
_MOST_DEATHS = 3  # with others of its block, and alone twice


class CutRows(NamedTuple):
    """The rows of some files of one video; ``None`` if none of them has a clip."""

    video: CutVideo
    rows: pa.RecordBatch | None


@dataclass(slots=True)
class _Block:
    """Files that are handed out together, and what has come back of them.

    Attributes:
        number: their place among all blocks.
        slot: shared memory: the first half for the files, the second for the rows.
        filled_bytes: how much of the first half is in use.
        cut: what has come back, by the place of the video.
        actions: what is to be done when its rows were taken.
    """

    number: int
    slot: SharedRange | None
    videos: list[VideoFiles] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0
    filled_bytes: int = 0
    cut: dict[int, CutRows] = field(default_factory=dict)
    actions: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.files >= _BLOCK_FILES or self.size_bytes >= _BLOCK_BYTES

    @property
    def is_done(self) -> bool:
        return len(self.cut) == len(self.videos)

    def room(self, size_bytes: int) -> SharedRange | None:
        """Return shared memory for a file, if there is any left."""
        if self.slot is None:
            return None
        start = self.slot.start + self.filled_bytes
        stop = start + size_bytes
        if stop > self.target_start:
            return None
        self.filled_bytes += size_bytes
        return SharedRange(self.slot.path, start, stop)

    @property
    def target_start(self) -> int:
        assert self.slot is not None
        return (self.slot.start + self.slot.stop) // 2

    @property
    def target(self) -> SharedRange | None:
        slot = self.slot
        return slot and SharedRange(slot.path, self.target_start, slot.stop)


class Blocks:
    """Hands files to workers, and takes the rows back in the order of the files.

    A context manager, which ends the workers.

    Args:
        workers: number of processes.
        schema: columns of the rows.
        audio_format: how clips are encoded.
    """

    def __init__(self, workers: int, schema: pa.Schema, audio_format: AudioFormat) -> None:
        self._workers = workers
        self._schema = schema
        self._audio_format: AudioFormat = audio_format
        self._stack = ExitStack()
        self._slots: SharedSlots | None = None
        # Blocks that are handed out, in order, and the one that is being filled.
        self._blocks: dict[int, _Block] = {}
        self._number = 0
        self._block: _Block | None = None
        self._files: list[CutFile] = []
        self._deaths: Counter[tuple[int, int]] = Counter()

    def __enter__(self) -> Blocks:
        pool = WorkerPool(self._workers, waiting=_WAITING_CALLS, environment=KEPT_MEMORY)
        self._pool = self._stack.enter_context(pool)
        if has_shared_memory():
            # All that workers have, what waits for one before it, and the one that is filled.
            count = self._most_blocks + 1
            self._slots = self._stack.enter_context(SharedSlots(count, 4 * _BLOCK_BYTES))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _most_blocks(self) -> int:
        return (2 + _WAITING_CALLS) * self._workers

    # -- Handing out -------------------------------------------------------------------------------

    def read(self, members: MemberStream, size_bytes: int) -> Content:
        """Return the content of the member that was yielded last, which is added next.

        Args:
            members: the members.
            size_bytes: of the content.
        """
        if not size_bytes:
            return b""
        if (file_range := members.file_range()) is not None:
            return file_range
        if (room := self._present().room(size_bytes)) is None:
            return members.read()
        members.read_into(room.view())
        return room

    def add(self, file: CutFile, size_bytes: int) -> None:
        """Add a file of the video that is to be ended by :meth:`end_video`.

        Args:
            file: the file.
            size_bytes: of its content.
        """
        block = self._present()
        self._files.append(file)
        block.files += 1
        block.size_bytes += size_bytes

    def _present(self) -> _Block:
        """Return the block that is being filled."""
        if self._block is None:
            slot = self._slots.take() if self._slots else None
            self._block = _Block(self._number, slot)
            self._number += 1
        return self._block

    @property
    def is_overfull(self) -> bool:
        """Whether even within a video a new block must begin."""
        return self._block is not None and self._block.size_bytes >= 2 * _BLOCK_BYTES

    def end_video(self, key: VideoKey) -> Iterator[CutRows]:
        """End a video; a block that is full is handed out. Yield what has come meanwhile."""
        if self._block is not None and self._files:
            self._block.videos.append(VideoFiles(key, tuple(self._files)))
            self._files = []
            if self._block.is_full:
                yield from self._hand_out()

    def afterwards(self, action: Callable[[], None]) -> Iterator[CutRows]:
        """Do something when the rows of all videos so far were taken. Yield what has come."""
        yield from self._hand_out()
        if self._blocks:
            self._blocks[max(self._blocks)].actions.append(action)
        else:
            action()

    def finish(self) -> Iterator[CutRows]:
        """Hand out what is left, and yield all that comes, in order."""
        yield from self._hand_out()
        while self._blocks:
            self._collect()
            yield from self._ready()

    def _hand_out(self) -> Iterator[CutRows]:
        block, self._block = self._block, None
        if block is None:
            return
        self._blocks[block.number] = block
        self._submit(block.number, block.videos, target=block.target)
        yield from self._ready()
        while len(self._blocks) > self._most_blocks:
            self._collect()
            yield from self._ready()

    def _submit(
        self,
        number: int,
        videos: list[VideoFiles],
        *,
        first: int = 0,
        target: SharedRange | None = None,
    ) -> None:
        while not self._pool.free:
            self._collect()
        task = CutTask(number, first, tuple(videos), self._schema, self._audio_format, target)
        self._pool.submit((cut_files, task))

    # -- Taking back -------------------------------------------------------------------------------

    def _ready(self) -> Iterator[CutRows]:
        """Yield the rows of the first blocks, as far as they are done.

        They are valid until the next are wanted: their memory is used again.
        """
        while self._blocks and (block := next(iter(self._blocks.values()))).is_done:
            del self._blocks[block.number]
            yield from (block.cut[place] for place in range(len(block.videos)))
            if block.slot is not None and self._slots is not None:
                self._slots.give_back(block.slot)
            for action in block.actions:
                action()

    def _collect(self) -> None:
        """Wait for results, and take them."""
        for (_, task), result in collect([self._pool], timeout_seconds=_WAIT_SECONDS):
            if isinstance(result, WorkerDiedError):
                self._after_death(task, result)
            else:
                self._take(task, result)
        for running in self._pool.running():
            if running.seconds > _CALL_SECONDS:
                self._pool.end(running)

    def _take(self, task: CutTask, result: CutBlock) -> None:
        block = self._blocks[task.block]
        start = 0
        pairs = zip(result.videos, result.messages, strict=True)
        for place, (video, message) in enumerate(pairs, start=task.first):
            data: bytes | memoryview | int | None = message
            if isinstance(message, int) and task.target is not None:
                data = task.target.view()[start : start + message]
                start += message
            rows = None if data is None else pa.ipc.read_record_batch(data, self._schema)
            block.cut[place] = CutRows(video, rows)

    def _after_death(self, task: CutTask, death: WorkerDiedError) -> None:
        """Try the videos of a call again, one by one; twice is the fault of the files."""
        for place, video in enumerate(task.videos, start=task.first):
            self._deaths[task.block, place] += 1
            if len(task.videos) > 1 or self._deaths[task.block, place] < _MOST_DEATHS:
                self._submit(task.block, [video], first=place)
            elif death.is_fault_of_call:
                given_up = CutBlock((_given_up(video, death),), (None,))
                self._take(task, given_up)
            else:
                raise StoppedError(
                    f"A worker process died of the files of {'/'.join(video.key)}: {death}. "
                    "Everything before is kept; with fewer --workers less memory is needed. Run "
                    "the same command again."
                )


def _given_up(video: VideoFiles, death: WorkerDiedError) -> CutVideo:
    missing = tuple(MissingUtterance(file.utterance_id, str(death)) for file in video.files)
    return CutVideo(video.key, missing=missing)
