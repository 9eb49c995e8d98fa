"""Versions of the libraries that decide which samples and pixels a clip has."""

from __future__ import annotations

_LIBRARIES = ("libavcodec", "libavformat", "libswscale")


def decoder_versions() -> str:
    """Return the versions of PyAV's FFmpeg libraries and of the one that converts rates."""
    import av
    import soxr

    numbers = {name: ".".join(map(str, av.library_versions[name])) for name in _LIBRARIES}
    numbers["libsoxr"] = soxr.__libsoxr_version__
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
