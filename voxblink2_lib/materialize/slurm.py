"""The slice of a task in an array job of Slurm.

::

    --array=1-64         K = SLURM_ARRAY_TASK_ID                    N = 64
    --array=0-63         K = SLURM_ARRAY_TASK_ID + 1                N = 64
    --array=10-136:2     K = (SLURM_ARRAY_TASK_ID - 10) / 2 + 1     N = 64

That is K = (ID - MIN) / STEP + 1 of N = COUNT, where a step that is not set is 1. A part of an
array that is submitted again has other numbers than the whole; it names its slices itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.store.job_slices import JobSlice

SLURM = "slurm"
_ADVICE = (
    "Submit the array as one range, such as 'sbatch --array=1-64', or name the slice with "
    "--shard-of-jobs K/N, such as --shard-of-jobs $SLURM_ARRAY_TASK_ID/64."
)


def slice_of_array(environment: Mapping[str, str]) -> JobSlice:
    """Return the slice of the task that this process is of.

    Args:
        environment: the variables that Slurm sets.

    Raises:
        SelectionError: it is of no array, or the ids of the array are no range.
    """
    task = _number(environment, "ID")
    least, count = _number(environment, "MIN"), _number(environment, "COUNT")
    step = _number(environment, "STEP", default=1)
    greatest = _number(environment, "MAX", default=least + (count - 1) * step)
    is_range = step > 0 and count > 0 and greatest == least + (count - 1) * step
    if not is_range or (task - least) % step or not least <= task <= greatest:
        raise SelectionError(
            f"The ids of this array job are no range: task {task}, from {least} to {greatest} in "
            f"steps of {step}, {count} tasks. {_ADVICE}"
        )
    return JobSlice.parse(f"{(task - least) // step + 1}/{count}")


def _number(environment: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    variable = f"SLURM_ARRAY_TASK_{name}"
    text = environment.get(variable)
    if text is None and default is not None:
        return default
    if text is None or not text.isdecimal():
        shown = "is not set" if text is None else f"is {text!r}, which is no number"
        raise SelectionError(
            f"--shard-of-jobs slurm is for tasks of an array job, and {variable} {shown}. {_ADVICE}"
        )
    return int(text)
