"""What nodes need to have in common, so that their clips are the same bytes."""

from __future__ import annotations

from importlib.metadata import version

from voxblink2_lib import __version__
from voxblink2_lib.media.versions import decoder_versions


def versions_here() -> str:
    """Return the versions of this machine: of the library, PyAV with its FFmpeg, and soxr."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("av", "soxr", "soundfile"))
    return f"voxblink2 {__version__}, {packages}, {decoder_versions()}"
