"""The processes that crop, and what the death of one of them says about its video."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace

from voxblink2_lib.errors import StoppedError, next_command
from voxblink2_lib.materialize.fetched_media import FetchRecord, discard, open_staged
from voxblink2_lib.materialize.pipeline import run_video
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.outcomes import Outcome, Status
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.shards import read_part_outcome
from voxblink2_lib.workers.memory import memory_text
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool

# Videos that are tried again wait until so many calls have been handed out after the first of them,
# or until nothing else is at hand: what the machine was short of may be back by then.
_CALLS_BETWEEN = 50

# After so many that were given up before the first was cropped, the machine is at fault.
_MOST_GIVEN_UP = 8


class Croppers:
    """Hands videos and jobs to the processes that crop and seal.

    A video of which a process died is tried again while nothing else is cropped or sealed, so that
    a second death cannot be the fault of a neighbour.

    Args:
        pool: the processes.

    Attributes:
        pool: the processes.
        ready: videos at hand that wait to be cropped.
        seals: calls that seal a job; they go first.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.ready: deque[VideoTask] = deque()
        self.seals: deque[Call] = deque()
        # To be tried alone, one after the other, once so many calls have been handed out.
        self._suspects: deque[VideoTask] = deque()
        self._due_at = 0
        self._deaths: defaultdict[VideoKey, list[WorkerDiedError]] = defaultdict(list)
        self._calls = 0
        self._is_alone = False
        self._memory = ""
        # Whether any video was cropped, and how many were given up before the first.
        self._has_cropped = False
        self._given_up = 0

    def hand_out(self) -> None:
        """Keep the processes busy; all but one of them idle while a video is tried alone."""
        if self._is_suspect_due():
            if not self.pool.busy:
                self._try_alone(self._suspects.popleft())
            return
        while self.pool.free and (self.seals or self.ready) and not self._is_suspect_due():
            self._submit(self.seals.popleft() if self.seals else (run_video, self.ready.popleft()))

    def outcome(self, task: VideoTask, result: Outcome | WorkerDiedError) -> Outcome | None:
        """Return the outcome of a video; ``None`` if it is tried again, alone.

        Args:
            task: the video.
            result: what its call returned, or of what its process died.

        Raises:
            StoppedError: the process of every video dies, whichever it is.
        """
        if task.is_alone:
            self._is_alone = False
        if isinstance(result, WorkerDiedError):
            # It may have died just after the last of its work.
            written = read_part_outcome(task.part)
            if written is None:
                return self._after_death(task, result)
            _discard_media(task)
            result = written
        self._deaths.pop(task.key, None)
        self._has_cropped |= result.status == "done"
        return result

    def _is_suspect_due(self) -> bool:
        """Return whether nothing is to be handed out but a video that is tried alone."""
        if self._is_alone:
            return True
        if not self._suspects:
            return False
        return self._calls >= self._due_at or not (self.seals or self.ready)

    def _try_alone(self, task: VideoTask) -> None:
        self._is_alone = True
        self._memory = memory_text()
        self._submit((run_video, replace(task, is_alone=True)))

    def _submit(self, call: Call) -> None:
        self._calls += 1
        self.pool.submit(call)

    def _after_death(self, task: VideoTask, death: WorkerDiedError) -> Outcome | None:
        deaths = self._deaths[task.key]
        deaths.append(death)
        is_fault_of_video = [past.is_fault_of_call for past in deaths]
        # After a death of each kind, the next one decides.
        if is_fault_of_video.count(is_fault_of_video[-1]) < 2:
            if not self._suspects and not task.is_alone:
                self._due_at = self._calls + _CALLS_BETWEEN
            self._suspects.append(task)
            return None
        del self._deaths[task.key]
        return self._verdict(task, deaths)

    def _verdict(self, task: VideoTask, deaths: list[WorkerDiedError]) -> Outcome:
        reason = _reason(deaths)
        self._stop_if_nothing_was_cropped(reason)
        if not deaths[-1].is_fault_of_call:
            return _outcome(task, "transient", f"{reason}. {self._memory}".rstrip(". "))
        if not self._has_cropped:
            # Nothing shows that this machine can crop at all.
            return _outcome(task, "transient", reason)
        outcome = _outcome(task, "media-unusable", reason)
        # Another try is for another download.
        _discard_media(task)
        return outcome

    def _stop_if_nothing_was_cropped(self, reason: str) -> None:
        self._given_up += 1
        if not self._has_cropped and self._given_up >= _MOST_GIVEN_UP:
            raise StoppedError(
                f"Of {self._given_up} videos not one was cropped. Of the last one, {reason}. "
                f"{self._memory}. This looks like a fault of this machine, not of the videos. "
                f"Nothing finished is lost. {next_command('doctor')} shows what is missing; with "
                "fewer --workers less memory is needed. Then run the same command again."
            )


def _outcome(task: VideoTask, status: Status, reason: str) -> Outcome:
    """Return the outcome of a video that was given up, with what its download took."""
    staged = None if task.staged is None else open_staged(task.staged)
    record = FetchRecord(0, 0.0, route="") if staged is None else staged[1]
    return replace(record.failure(task.key, status, reason), digest=task.digest)


def _discard_media(task: VideoTask) -> None:
    if task.staged is not None:
        discard(task.staged)


def _reason(deaths: list[WorkerDiedError]) -> str:
    """Return what happened; the last death is that of a video that was tried alone.

    >>> _reason([WorkerDiedError("died of A"), WorkerDiedError("died of A")])
    'died of A twice, the second time while nothing else was cropped'
    """
    texts = list(map(str, deaths))
    if len(set(texts)) == 1:
        return f"{texts[0]} twice, the second time while nothing else was cropped"
    return f"{'; then '.join(texts)}, while nothing else was cropped"
