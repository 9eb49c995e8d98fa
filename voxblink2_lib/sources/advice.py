"""The advice in yt-dlp's messages, in options that exist here.

yt-dlp advises in options of its own command line. Those that ``--yt-dlp`` passes on are written so;
a clause that names any other is left out, as nobody can follow it.
"""

from __future__ import annotations

import functools
import re

from voxblink2_lib.errors import next_command
from voxblink2_lib.records import option_string
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.sources.ytdlp_options import ALLOWED

# Advice for which something here is the same, as a pattern and what replaces it.
_SAME = (
    (r"`?-t sleep`?", "--sleep SECONDS"),
    (
        r"(?<=Use )(--cookies, --cookies-from-browser, )?--username and --password, --netrc-cmd, "
        r"or --netrc \([^)]*\)",
        r"\1--yt-dlp='--username NAME --password PASSWORD'",
    ),
    (
        r"to use another runtime add\s+--js-runtimes RUNTIME\[:PATH\]\s+to your command/config",
        f"{next_command('doctor')} says which to install",
    ),
    (r"--no-check-certificate\b", "--no-check-certificates"),
)
_CLAUSE = re.compile(r"(?<=[.;,])\s+")
_OPTION = re.compile(r"(?<![\w='-])--[a-z][a-z0-9-]*(?![\w-])")
_SPELLED_OR_OPTION = re.compile(rf"--yt-dlp='[^']*'|{_OPTION.pattern}")


def own_advice(message: str) -> str:
    """Return a message of yt-dlp whose advice names options of voxblink2.

    Example:
        >>> own_advice("Handshake failure: Try using --legacy-server-connect")
        "Handshake failure: Try using --yt-dlp='--legacy-server-connect'"
        >>> own_advice("Format is not available. Use --list-formats for a list of all formats")
        'Format is not available.'
    """
    if "-" not in message:
        return message
    for pattern, replacement in _SAME:
        message = re.sub(pattern, replacement, message)
    if not _foreign_options(message):
        return _SPELLED_OR_OPTION.sub(_spelled, message)
    clauses = [clause for clause in _CLAUSE.split(message) if not _foreign_options(clause)]
    # An option of the message itself, rather than of advice, is left as it is.
    kept = " ".join(clauses).rstrip(",; ") or message
    return _SPELLED_OR_OPTION.sub(_spelled, kept)


def _spelled(match: re.Match[str]) -> str:
    """Return an option as users of voxblink2 write it."""
    option = match[0]
    return f"--yt-dlp='{option}'" if option in ALLOWED and option not in _own() else option


def _foreign_options(text: str) -> set[str]:
    """Return the options of yt-dlp in a text that voxblink2 does not have."""
    return (set(_OPTION.findall(text)) & _of_ytdlp()) - _own() - ALLOWED.keys()


@functools.cache
def _own() -> frozenset[str]:
    return frozenset(map(option_string, FetchOptions.names()))


@functools.cache
def _of_ytdlp() -> frozenset[str]:
    from yt_dlp.options import create_parser

    parser = create_parser()
    groups = (parser, *parser.option_groups)
    return frozenset(
        text for group in groups for option in group.option_list for text in option._long_opts
    )
