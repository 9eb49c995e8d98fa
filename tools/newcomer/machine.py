"""A clone as a newcomer has it, and an environment in which nothing is set."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a newcomer's shell has, which Python make takes, and how this machine reaches packages.
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHON", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# Not of a shell: beside other work, threads that wait for each other take the cores from it.
_THREADS = "OMP_NUM_THREADS"


def shell_environment(home: Path) -> dict[str, str]:
    """Return the environment of a newcomer's shell.

    Args:
        home: takes the place of the home folder; pip's cache and settings stay where they are.
    """
    names = {*_KEPT, _THREADS, *_PROXIES, *map(str.upper, _PROXIES)}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith("PIP_")
    }
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept.setdefault("PIP_CACHE_DIR", str(Path(cache, "pip")))
    settings = Path.home() / ".config" / "pip" / "pip.conf"
    if settings.exists():
        kept.setdefault("PIP_CONFIG_FILE", str(settings))
    return kept | {"HOME": str(home)}


def activated(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Return an environment after ``. .venv/bin/activate``, with the internet out of reach."""
    venv = folder / ".venv"
    path = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    kept = {name: value for name, value in environment.items() if name.lower() not in _PROXIES}
    return {
        **kept,
        **nowhere,
        "no_proxy": "127.0.0.1,localhost",
        "PATH": path,
        "VIRTUAL_ENV": str(venv),
    }


def clone(folder: Path) -> Path:
    """Clone what is committed in this checkout; return where it is."""
    here = folder / "voxblink2"
    subprocess.run(["git", "clone", "--quiet", ROOT, here], check=True)
    return here


def linked(folder: Path) -> Path:
    """Return a folder of links to what this checkout has, its environment included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    names = {name.partition("/")[0] for name in listed.stdout.split("\0") if name}
    here = folder / "voxblink2"
    here.mkdir()
    for name in sorted({*names, ".venv"}):
        (here / name).symlink_to(ROOT / name)
    return here
