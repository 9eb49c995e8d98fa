"""Plugins of yt-dlp: foreign code that it finds beside itself and runs in every process."""

from __future__ import annotations

import os
from collections.abc import Iterator

from yt_dlp.globals import plugin_dirs, plugin_specs
from yt_dlp.plugins import iter_modules

_DEFAULT_FOLDERS = ["default"]


def allow_plugins(is_allowed: bool) -> None:
    """Let yt-dlp load plugins in this process or not, from its first use on.

    It loads them once, when its first downloader is made; those stay.
    """
    plugin_dirs.value = _DEFAULT_FOLDERS if is_allowed else []


def find_plugins() -> tuple[str, ...]:
    """Return the plugins that yt-dlp loads in this process, each with its folder; none is run.

    They are in the packages ``yt_dlp_plugins.extractor`` and ``yt_dlp_plugins.postprocessor``, of
    any folder of ``sys.path`` or of yt-dlp's configuration.
    """
    if not plugin_dirs.value or os.environ.get("YTDLP_NO_PLUGINS"):
        return ()
    return tuple(sorted(name for kind in plugin_specs.value for name in _plugins_of(kind)))


def _plugins_of(kind: str) -> Iterator[str]:
    for finder, module, _ in iter_modules(kind):
        _, _, name = module.partition(".")
        if not any(part.startswith("_") for part in name.split(".")):
            folder = getattr(finder, "path", None) or getattr(finder, "archive", "?")
            yield f"{name} ({folder})"
