"""Whether yt-dlp can run YouTube's JavaScript, asked once before the first video.

YouTube guards its addresses with small programs. yt-dlp runs them in a JavaScript runtime of the
machine, with the solver of the package ``yt-dlp-ejs``. Without either, every video fails alone.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import Any, NamedTuple

# What to hand to YoutubeDL, as a copy, since it removes the names that it does not know:
# ``YoutubeDL({"js_runtimes": dict(JS_RUNTIMES)})``. By itself it takes deno only. Bun is left out:
# it would run a stranger's code with all rights of the user. yt-dlp looks first in the folder of
# this Python's programs, where the package ``deno`` puts its own, and then on PATH.
JS_RUNTIMES: dict[str, dict[str, str]] = {"deno": {}, "node": {}, "quickjs": {}}
REMEDY = 'Run pip install -U "voxblink2[youtube]", which brings yt-dlp-ejs and deno'


class JavaScriptSupport(NamedTuple):
    """What yt-dlp finds for JavaScript.

    Attributes:
        seen: runtimes and solver, with versions, in plain words.
        problem: what is missing or too old; empty when all is there.
        remedy: what to do about it.
    """

    seen: str
    problem: str = ""
    remedy: str = ""


class _Runtime(NamedTuple):
    usable: bool
    says: str  # what was seen
    wanted: str  # name and version


def javascript_problem() -> str | None:
    """Return what keeps yt-dlp from running YouTube's JavaScript, or ``None``.

    The text says what was seen, what is needed, and what to do. Every runtime is started once to
    ask for its version, which takes about 0.1 s.
    """
    found = find_javascript()
    return f"{found.problem} {found.remedy}" if found.problem else None


def find_javascript() -> JavaScriptSupport:
    """Look for the runtimes of :data:`JS_RUNTIMES` and for the solver, with yt-dlp's own code."""
    try:
        from yt_dlp.globals import supported_js_runtimes
    except ImportError:  # before November 2025
        seen = f"yt-dlp {metadata.version('yt-dlp')}"
        problem = f"{seen} is too old to use a JavaScript runtime, which YouTube asks for."
        return JavaScriptSupport(seen, problem, f"{REMEDY}.")
    classes = {
        name: supported_js_runtimes.value[name]
        for name in JS_RUNTIMES
        if name in supported_js_runtimes.value
    }
    runtimes = [_ask(name, one) for name, one in classes.items()]
    solver, solver_problem = _look_for_solver()
    usable = [one.says for one in runtimes if one.usable]
    seen = ", ".join([*usable, solver])
    if not usable:
        wanted = " or ".join(one.wanted for one in runtimes)
        said = "; ".join(one.says for one in runtimes)
        problem = f"yt-dlp finds no JavaScript runtime that it can use ({said}). {solver_problem}"
        return JavaScriptSupport(seen, problem.strip(), f"{REMEDY}, or install {wanted}.")
    if solver_problem:
        return JavaScriptSupport(seen, solver_problem, f"{REMEDY}.")
    return JavaScriptSupport(seen)


def _ask(name: str, runtime: Any) -> _Runtime:
    """Let yt-dlp start a runtime and read its version."""
    least = ".".join(map(str, runtime.MIN_SUPPORTED_VERSION))
    wanted = f"{name} {least} or later"
    info = runtime(path=JS_RUNTIMES[name].get("path")).info
    if info is None:
        return _Runtime(False, f"{name} is not found or does not start", wanted)
    path = shutil.which(info.path) or info.path
    says = f"{info.name} {info.version} ({path})"
    if info.supported:
        return _Runtime(True, says, wanted)
    if info.version == "unknown":
        return _Runtime(False, f"{info.name} ({path}) does not tell its version", wanted)
    return _Runtime(False, f"{says} is older than {least}", wanted)


def _look_for_solver() -> tuple[str, str]:
    """Return what is seen of ``yt-dlp-ejs``, and the problem with it."""
    from yt_dlp.dependencies import yt_dlp_ejs

    wanted = _solver_wanted()
    if yt_dlp_ejs is None:
        version = f" {wanted}" if wanted else ""
        return "no yt-dlp-ejs", f"The package yt-dlp-ejs{version} with the solver is missing."
    seen = f"yt-dlp-ejs {yt_dlp_ejs.version}"
    # yt-dlp takes any patch of the version that it was made for.
    if wanted and _minor(yt_dlp_ejs.version) != _minor(wanted):
        problem = f"{seen} does not go with yt-dlp {metadata.version('yt-dlp')}, which wants "
        return seen, f"{problem}{wanted}."
    return seen, ""


def _solver_wanted() -> str | None:
    """Return the version of ``yt-dlp-ejs`` that yt-dlp takes; ``None`` if it does not say."""
    try:
        from yt_dlp.extractor.youtube.jsc._builtin.vendor import VERSION
    except ImportError:
        return None
    return str(VERSION)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
