"""What a bug report should say of a machine: versions, libraries, devices, disk, variables.

Nothing is raised: a report is written where something is broken, so whatever cannot be found out is
a fact of its own, named ``problem``. Nothing is secret: variables are chosen by a fixed list, those
that may hold a password are only said to be set, URLs and the user's name are redacted.
"""

from __future__ import annotations

import json
import locale
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from voxblink2_lib import __version__
from voxblink2_lib.cores import usable_cores
from voxblink2_lib.doctor.file_system import existing_folder
from voxblink2_lib.doctor.loaded_libraries import Facts, facts_or_problem, load_libraries
from voxblink2_lib.doctor.machine_checks import declared_requirements
from voxblink2_lib.errors import first_line
from voxblink2_lib.files import HOME_VARIABLE, home_folder
from voxblink2_lib.materialize.request import user_options
from voxblink2_lib.records import option_variable
from voxblink2_lib.redaction import redact, secrets_in, without_user
from voxblink2_lib.release.location import RELEASE_VARIABLE
from voxblink2_lib.sources.javascript import find_javascript

# Variables whose values decide what happens here.
SHOWN_VARIABLES = (
    *(HOME_VARIABLE, RELEASE_VARIABLE, "XDG_CACHE_HOME", "TMPDIR"),
    *("HF_HOME", "HF_DATASETS_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "PYTHONPATH"),
    *("LANG", "LC_ALL", "TQDM_DISABLE"),
)
# Variables of which it matters that they are set, and nobody else's business to what.
HIDDEN_VARIABLES = (
    *("HF_TOKEN", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "AWS_ACCESS_KEY_ID"),
)
_DEVELOPMENT = {"dev", "browse-test"}
_PROGRAM_SECONDS = 20.0
_MISSING = "missing"


def describe_environment() -> dict[str, dict[str, str]]:
    """Return the facts of this machine by section and name, in reading order."""
    sections = {
        "voxblink2": facts_or_problem(_package_facts),
        "system": facts_or_problem(_system_facts),
        "packages": facts_or_problem(_package_versions),
        **load_libraries(),
        "programs": facts_or_problem(_program_facts),
        "disk": facts_or_problem(_disk_facts),
        "variables": facts_or_problem(_variable_facts),
    }
    return {title: _redacted(facts) for title, facts in sections.items()}


def _redacted(facts: Facts) -> dict[str, str]:
    home = str(Path.home())
    return {name: without_user(redact(value), home) for name, value in facts.items()}


# -- Python and the system -------------------------------------------------------------------------


def _package_facts() -> Facts:
    return {
        "version": __version__,
        "installed": _installation(),
        "folder": str(Path(__file__).parents[1]),
    }


def _installation() -> str:
    """Return how this package was installed, by what pip writes down."""
    try:
        origin = metadata.distribution("voxblink2").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return "no, it runs from a checkout"
    if origin is None:
        return "yes, from an index"
    record = json.loads(origin)
    if record.get("dir_info", {}).get("editable"):
        return "yes, editable"
    return f"yes, from {Path(urlsplit(record['url']).path).name}"


def _system_facts() -> Facts:
    kind = "a virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    return {
        "Python": f"{platform.python_version()}, {platform.python_implementation()}, {kind}",
        "executable": sys.executable,
        "system": f"{platform.platform()}{_distribution()}",
        "processor": f"{_processor()}, {usable_cores()} of {os.cpu_count()} cores usable",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "encoding": f"{sys.getfilesystemencoding()} of names, {locale.getpreferredencoding()}",
    }


def _distribution() -> str:
    try:
        return f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return ""  # not a Linux, or one that does not say


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


# -- Packages and programs -------------------------------------------------------------------------


def _package_versions() -> Facts:
    """Return the versions of what is required, and of what extras require if it is there."""
    required = {item.name: _version(item.name) for item in declared_requirements()}
    extras = metadata.metadata("voxblink2").get_all("Provides-Extra") or []
    optional = {
        item.name: version
        for extra in sorted(extras)
        if extra not in _DEVELOPMENT
        for item in declared_requirements(extra)
        if (version := _version(item.name)) != _MISSING
    }
    return {**required, **optional}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _MISSING


def _program_facts() -> Facts:
    return {
        "ffmpeg": _program("ffmpeg", "-version"),
        "nvidia-smi": _program(
            "nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
        ),
        "JavaScript": _javascript(),
    }


def _program(name: str, *words: str) -> str:
    """Return the first line that a program prints, or why there is none."""
    program = shutil.which(name)
    if program is None:
        return _MISSING
    try:
        run = subprocess.run(  # noqa: S603  # a program of this system, with words of our own
            [program, *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PROGRAM_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program}: {first_line(error)}"
    lines = (
        run.stdout.strip() or run.stderr.strip() or f"ended with {run.returncode}"
    ).splitlines()
    return f"{lines[0]} ({program})"


def _javascript() -> str:
    try:
        support = find_javascript()
    except Exception as error:  # yt-dlp is absent, or broken
        return f"{type(error).__name__}: {first_line(error)}"
    return f"{support.seen}. {support.problem}" if support.problem else support.seen


# -- Disk and variables ----------------------------------------------------------------------------


def _disk_facts() -> Facts:
    home = home_folder()
    usage = shutil.disk_usage(existing_folder(home))
    space = f"{usage.free / 1e9:,.1f} GB free of {usage.total / 1e9:,.1f}"
    return {HOME_VARIABLE: f"{home}, {space}{'' if home.exists() else ', not there yet'}"}


def _variable_facts() -> Facts:
    return dict(_variables())


def _variables() -> Iterator[tuple[str, str]]:
    for name in SHOWN_VARIABLES:
        if value := os.environ.get(name):
            yield name, redact(value, secrets_in(value))
    options = user_options().items()
    private = (option_variable(name) for name, option in options if option.may_be_secret)
    for name in (*HIDDEN_VARIABLES, *private):
        if name in os.environ:
            yield name, "is set"
