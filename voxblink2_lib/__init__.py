"""The library behind the ``voxblink2`` dataset: from the VoxBlink2 release to sealed Arrow shards.

Importing it is cheap: neither torch nor yt-dlp is loaded before they are needed.
"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.2.0"

__all__ = ["METRICS", "__version__", "examples_path", "metrics_path"]

METRICS = ("eer", "min_dcf", "ossi")
"""The metrics of ``evaluate`` that come with the library, see :func:`metrics_path`."""


def metrics_path(name: str) -> str:
    """Return where a metric lies, for ``evaluate.load``.

    Args:
        name: ``"eer"``, ``"min_dcf"`` or ``"ossi"``.

    Raises:
        ValueError: no metric has this name.

    Example:
        >>> metrics_path("eer").endswith("metrics/eer")
        True
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}; allowed are {', '.join(METRICS)}.")
    return str(_folder("metrics") / name)


def examples_path() -> str:
    """Return the folder of the example scripts and notebooks.

    Example:
        >>> import os
        >>> "train_speaker.py" in os.listdir(examples_path())
        True
    """
    return str(_folder("examples"))


def _folder(name: str) -> Path:
    """Return a folder that stands beside the package in a checkout, and in it in a wheel."""
    here = Path(__file__).parent
    inside = here / name
    return inside if inside.is_dir() else here.parent / name
