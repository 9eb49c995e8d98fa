"""The commands that score embeddings and evaluate scores: ``score sv``, ``ossi`` and ``file``."""

from __future__ import annotations

from typing import Any

from voxblink2_lib.cli.score_file import add_file_command
from voxblink2_lib.cli.score_ossi import add_ossi_command
from voxblink2_lib.cli.score_sv import add_sv_command
from voxblink2_lib.cli.score_verify import add_verify_result_command
from voxblink2_lib.cli.terminal import add_group


def add_score_commands(commands: Any) -> None:
    """Add the group ``score`` with its commands."""
    group = add_group(
        commands,
        "score",
        "score embeddings: verification (sv), open-set identification (ossi); scores (file)",
        "voxblink2 score sv --trials vox1_o.txt --embeddings embeddings.parquet",
    )
    add_sv_command(group)
    add_ossi_command(group)
    add_file_command(group)
    add_verify_result_command(group)
