"""Print the lower bounds of setup.cfg as constraints of pip: the oldest versions that are allowed.

    python tools/oldest_versions.py > oldest.txt
    pip install -c oldest.txt .

What was resolved with them is tests/oldest/constraints.txt, in which ``make test-oldest`` runs.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BOUND = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,]+\])?>=(?P<version>[\w.]+)")
# Not run with their lower bounds, but with the versions of constraints.txt: older builds of PyTorch
# bring several gigabytes of CUDA, and each version of torchcodec fits one of PyTorch.
NOT_OLDEST = ("torch", "torchcodec")


def lower_bounds(requirements: str) -> dict[str, str]:
    r"""Return the lowest version of each requirement.

    Args:
        requirements: one a line, as in setup.cfg.

    Raises:
        ValueError: a requirement has no lower bound, or more than that.

    >>> lower_bounds("av>=14\nyt-dlp[default]>=2025.11.12")
    {'av': '14', 'yt-dlp': '2025.11.12'}
    """
    bounds = {}
    for line in requirements.split("\n"):
        if not (requirement := line.strip()):
            continue
        match = _BOUND.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} must be NAME>=VERSION")
        bounds[match["name"]] = match["version"]
    return bounds


def declared(root: Path) -> dict[str, str]:
    """Return the lower bounds of a checkout's requirements."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    return lower_bounds(config["options"]["install_requires"])


def pinned(constraints: Path) -> dict[str, str]:
    """Return the versions of a file of constraints."""
    text = constraints.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def oldest(root: Path) -> dict[str, str]:
    """Return the versions that are to be tried."""
    newest = pinned(root / "constraints.txt")
    return declared(root) | {name: newest[name] for name in NOT_OLDEST}


def main() -> None:
    """Print them."""
    for name, version in oldest(ROOT).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
