"""The commands that score embeddings, and that evaluate, calibrate and compare scores."""

from __future__ import annotations

from typing import Any

from voxblink2_lib.cli.score_calibrate import add_calibrate_commands
from voxblink2_lib.cli.score_compare import add_compare_command
from voxblink2_lib.cli.score_file import add_file_command
from voxblink2_lib.cli.score_ossi import add_ossi_command
from voxblink2_lib.cli.score_plots import add_plot_commands
from voxblink2_lib.cli.score_sv import add_sv_command
from voxblink2_lib.cli.score_verify import add_verify_result_command
from voxblink2_lib.cli.terminal import add_group


def add_score_commands(commands: Any) -> None:
    """Add the group ``score`` with its commands."""
    group = add_group(
        commands,
        "score",
        "score embeddings (sv, ossi); evaluate scores (file), calibrate, compare and plot them",
        "voxblink2 score sv --trials vox1_o.txt --embeddings embeddings.parquet",
    )
    add_sv_command(group)
    add_ossi_command(group)
    add_file_command(group)
    add_calibrate_commands(group)
    add_compare_command(group)
    add_plot_commands(group)
    add_verify_result_command(group)
