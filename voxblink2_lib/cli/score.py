"""The commands that score embeddings: ``score sv`` and ``score ossi``."""

from __future__ import annotations

from typing import Any

from voxblink2_lib.cli.score_ossi import add_ossi_command
from voxblink2_lib.cli.score_sv import add_sv_command
from voxblink2_lib.cli.terminal import EXIT_CODES


def add_score_commands(commands: Any) -> None:
    """Add the group ``score`` with its commands."""
    does = "score embeddings: verification (sv), open-set identification (ossi)"
    parser = commands.add_parser(
        "score",
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog="example:\n  voxblink2 score sv --trials vox1_o.txt --embeddings embeddings.parquet"
        f"\n\n{EXIT_CODES}",
    )
    group = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_sv_command(group)
    add_ossi_command(group)
