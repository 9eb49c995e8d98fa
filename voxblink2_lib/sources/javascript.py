"""Check whether yt-dlp can run YouTube's JavaScript, once before the first video.

YouTube protects its URLs with small programs. yt-dlp runs them in a JavaScript runtime of the
machine, with the solver of the package ``yt-dlp-ejs``. Without either, every single video fails.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import Any, NamedTuple

# To be passed to YoutubeDL as a copy, because it removes the names that it does not support:
# ``YoutubeDL({"js_runtimes": dict(JS_RUNTIMES)})``. Its default is deno only. Bun is left out: it
# would run untrusted code with all rights of the user. yt-dlp searches first the folder of this
# Python's programs, where the package ``deno`` puts its own, and then PATH.
JS_RUNTIMES: dict[str, dict[str, str]] = {"deno": {}, "node": {}, "quickjs": {}}

REMEDY = 'Run pip install -U "voxblink2[youtube]", which brings yt-dlp-ejs and deno'


class JavaScriptSupport(NamedTuple):
    """The JavaScript support that yt-dlp finds on this machine.

    Attributes:
        seen: runtimes and solver, with versions, as text.
        problem: what is missing or too old; empty if nothing is.
        remedy: what to do about it.
    """

    seen: str
    problem: str = ""
    remedy: str = ""


class _Runtime(NamedTuple):
    is_usable: bool
    description: str
    requirement: str  # name and least version


def javascript_problem() -> str | None:
    """Return what prevents yt-dlp from running YouTube's JavaScript, or ``None``.

    The message states what was found, what is needed, and what to do. Every runtime is started
    once for its version, which takes about 0.1 s.
    """
    support = find_javascript()
    return f"{support.problem} {support.remedy}" if support.problem else None


def find_javascript() -> JavaScriptSupport:
    """Find the runtimes of :data:`JS_RUNTIMES` and the solver, with yt-dlp's own code."""
    try:
        from yt_dlp.globals import supported_js_runtimes
    except ImportError:  # before November 2025
        seen = f"yt-dlp {metadata.version('yt-dlp')}"
        problem = f"{seen} is too old to use a JavaScript runtime, which YouTube requires."
        return JavaScriptSupport(seen, problem, f"{REMEDY}.")
    classes = {
        name: supported_js_runtimes.value[name]
        for name in JS_RUNTIMES
        if name in supported_js_runtimes.value
    }
    runtimes = [_find_runtime(name, runtime) for name, runtime in classes.items()]
    solver, solver_problem = _find_solver()
    usable = [runtime.description for runtime in runtimes if runtime.is_usable]
    seen = ", ".join([*usable, solver])
    if not usable:
        choices = " or ".join(runtime.requirement for runtime in runtimes)
        details = "; ".join(runtime.description for runtime in runtimes)
        problem = f"yt-dlp finds no JavaScript runtime that it can use ({details})."
        remedy = f"{REMEDY}, or install {choices}."
        return JavaScriptSupport(seen, f"{problem} {solver_problem}".strip(), remedy)
    if solver_problem:
        return JavaScriptSupport(seen, solver_problem, f"{REMEDY}.")
    return JavaScriptSupport(seen)


def _find_runtime(name: str, runtime: Any) -> _Runtime:
    """Let yt-dlp start a runtime and read its version."""
    least = ".".join(map(str, runtime.MIN_SUPPORTED_VERSION))
    requirement = f"{name} {least} or later"
    info = runtime(path=JS_RUNTIMES[name].get("path")).info
    if info is None:
        return _Runtime(False, f"{name} is not found or does not start", requirement)
    path = shutil.which(info.path) or info.path
    description = f"{info.name} {info.version} ({path})"
    if info.supported:
        return _Runtime(True, description, requirement)
    if info.version == "unknown":
        return _Runtime(False, f"{info.name} ({path}) prints no version", requirement)
    return _Runtime(False, f"{description} is older than {least}", requirement)


def _find_solver() -> tuple[str, str]:
    """Return name and version of the installed ``yt-dlp-ejs``, and the problem with it."""
    from yt_dlp.dependencies import yt_dlp_ejs

    required = _required_solver()
    if yt_dlp_ejs is None:
        version = f" {required}" if required else ""
        return "no yt-dlp-ejs", f"The package yt-dlp-ejs{version} with the solver is missing."
    seen = f"yt-dlp-ejs {yt_dlp_ejs.version}"
    # yt-dlp accepts any patch of the version that it was made for.
    if required and _minor(yt_dlp_ejs.version) != _minor(required):
        ydl_version = metadata.version("yt-dlp")
        return seen, f"{seen} does not match yt-dlp {ydl_version}, which requires {required}."
    return seen, ""


def _required_solver() -> str | None:
    """Return the version of ``yt-dlp-ejs`` that yt-dlp requires; ``None`` if it states none."""
    try:
        from yt_dlp.extractor.youtube.jsc._builtin.vendor import VERSION
    except ImportError:
        return None
    return str(VERSION)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
