"""The slice of a task in an array job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.materialize.slurm import slice_of_array
from voxblink2_lib.store.job_slices import JobSlice


def variables(task: int, ids: range, *names: str) -> dict[str, str]:
    """What Slurm sets for a task of an array, or some of it."""
    values = {"ID": task, "MIN": ids[0], "MAX": ids[-1], "STEP": ids.step, "COUNT": len(ids)}
    return {f"SLURM_ARRAY_TASK_{name}": str(values[name]) for name in names or values}


@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 64))
def test_the_tasks_of_an_array_make_all_slices_once(first: int, step: int, count: int) -> None:
    ids = range(first, first + step * count, step)
    slices = [slice_of_array(variables(task, ids)) for task in ids]
    assert slices == [JobSlice(number, count) for number in range(1, count + 1)]


def test_step_and_greatest_id_need_not_be_set() -> None:
    ids = range(64)
    assert slice_of_array(variables(2, ids, "ID", "MIN", "COUNT")) == JobSlice(3, 64)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "SLURM_ARRAY_TASK_ID is not set"),
        (variables(3, range(1, 65), "ID", "MIN"), "SLURM_ARRAY_TASK_COUNT is not set"),
        (variables(3, range(1, 65), "ID", "COUNT"), "SLURM_ARRAY_TASK_MIN is not set"),
        (variables(3, range(1, 65)) | {"SLURM_ARRAY_TASK_ID": "x"}, "is 'x', which is no number"),
        # --array=3,17 and --array=1,3,4, as for tasks that are submitted again
        (
            variables(17, range(3, 18)) | {"SLURM_ARRAY_TASK_COUNT": "2"},
            "are no range: task 17, from 3 to 17 in steps of 1, 2 tasks",
        ),
        (variables(3, range(1, 5)) | {"SLURM_ARRAY_TASK_COUNT": "3"}, "are no range"),
        (variables(4, range(3, 9, 2)), "are no range"),
        (variables(9, range(3, 9, 2)), "are no range"),
        (variables(3, range(1, 65)) | {"SLURM_ARRAY_TASK_STEP": "0"}, "are no range"),
        (variables(3, range(1, 65)) | {"SLURM_ARRAY_TASK_COUNT": "0"}, "are no range"),
    ],
)
def test_what_is_no_task_of_a_range_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SelectionError, match=words) as raised:
        slice_of_array(environment)
    assert "--shard-of-jobs K/N" in str(raised.value)
