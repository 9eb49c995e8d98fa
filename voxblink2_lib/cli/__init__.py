"""The command line, ``voxblink2``: commands, exit codes, and the only place that prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from voxblink2_lib import __version__
from voxblink2_lib.cli.archive import add_archive_commands
from voxblink2_lib.cli.browse import add_browse_command
from voxblink2_lib.cli.completion import add_completion_command
from voxblink2_lib.cli.demo import add_demo_command
from voxblink2_lib.cli.diff import add_diff_command
from voxblink2_lib.cli.doctor import add_doctor_command
from voxblink2_lib.cli.env import add_env_command
from voxblink2_lib.cli.examples import add_examples_command
from voxblink2_lib.cli.export import add_export_command
from voxblink2_lib.cli.materialize import (
    add_index_command,
    add_materialize_command,
    add_retry_command,
)
from voxblink2_lib.cli.merge import add_merge_command
from voxblink2_lib.cli.models import add_model_commands
from voxblink2_lib.cli.parser import CommandParser
from voxblink2_lib.cli.publish import add_publish_command
from voxblink2_lib.cli.purge import add_purge_command
from voxblink2_lib.cli.purity import add_purity_command
from voxblink2_lib.cli.release import add_release_commands
from voxblink2_lib.cli.repair import add_repair_command
from voxblink2_lib.cli.report import add_report_command
from voxblink2_lib.cli.score import add_score_commands
from voxblink2_lib.cli.split import add_split_command
from voxblink2_lib.cli.status import add_status_command
from voxblink2_lib.cli.terminal import (
    EXIT_CODES,
    own_terminal,
    write_defect,
    write_failure,
    write_message,
)
from voxblink2_lib.cli.verify import add_verify_command
from voxblink2_lib.errors import StoppedError, VoxBlink2Error
from voxblink2_lib.files import system_error

# In the order of the help.
_COMMANDS = (
    add_demo_command,
    add_release_commands,
    add_archive_commands,
    add_index_command,
    add_materialize_command,
    add_retry_command,
    add_status_command,
    add_verify_command,
    add_repair_command,
    add_purge_command,
    add_merge_command,
    add_doctor_command,
    add_env_command,
    add_report_command,
    add_browse_command,
    add_diff_command,
    add_split_command,
    add_purity_command,
    add_export_command,
    add_publish_command,
    add_model_commands,
    add_score_commands,
    add_examples_command,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: arguments after the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in words
    own_terminal(words)
    options = argparse.Namespace()
    try:
        _parser().parse_args(words, options)
        return int(options.command(options))
    except VoxBlink2Error as error:
        return write_failure(error, as_json=as_json)
    except Exception as error:
        if named := system_error(error, Path.cwd()):
            return write_failure(named, as_json=as_json)
        return write_defect(error, as_json=as_json)
    except KeyboardInterrupt:
        write_message("")  # a line of its own, below ^C
        return write_failure(_interruption(options), as_json=as_json)


def _interruption(options: argparse.Namespace) -> StoppedError:
    kept = "Finished work is kept; run the same command to resume."
    nothing = "Nothing was written; run the same command to start again."
    return StoppedError(f"stopped. {kept if getattr(options, 'keeps_work', True) else nothing}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="voxblink2",
        description="Turn the VoxBlink2 release and its media into Arrow shards; score embeddings.",
        epilog=f"example: voxblink2 demo\n\n{EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    add_completion_command(commands, parser)
    return parser
