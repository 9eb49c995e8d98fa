"""What processes that crop run in tests of their deaths."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from support.worker_calls import die
from voxblink2_lib.materialize.pipeline import run_video
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.outcomes import Outcome

# How the calls of `crop_or_die` die: in the folder of this variable a file with the name of the
# video holds a word for each death that is to come.
DEATHS = "VOXBLINK2_TEST_DEATHS"


def crop_or_die(task: VideoTask) -> Outcome:
    """Crop a video, unless this process is to die or hang; write down what happens when."""
    folder = Path(os.environ[DEATHS])
    _note(folder, "begin", task)
    word = _next_word(folder / task.key.video_id)
    if word == "after":
        run_video(task)
    if word:
        _note(folder, "end", task)
    if word == "abort":
        os.abort()
    if word == "hang":
        (folder / f"hangs-{task.key.video_id}-{task.is_alone}").touch()
        threading.Event().wait()
    if word == "memory":
        raise MemoryError
    if word:
        die(signal.SIGKILL)
    outcome = run_video(task)
    _note(folder, "end", task)
    return outcome


def _next_word(path: Path) -> str:
    """Take the first word from a file; empty text if none is left."""
    words = path.read_text().split() if path.exists() else []
    if words:
        path.write_text(" ".join(words[1:]))
    return words[0] if words else ""


def _note(folder: Path, what: str, task: VideoTask) -> None:
    with open(folder / "log", "a", encoding="utf-8") as log:
        log.write(f"{what} {task.key.video_id} {'alone' if task.is_alone else ''}\n")
