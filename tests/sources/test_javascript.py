"""JavaScript runtimes that yt-dlp can use: real programs, tiny ones, on a real PATH."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from yt_dlp import YoutubeDL

from voxblink2_lib.sources.javascript import JS_RUNTIMES, find_javascript, javascript_problem

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Empty PATH, and return a function that installs programs there that print a version."""
    path, scripts = tmp_path / "path", tmp_path / "scripts"
    path.mkdir()
    scripts.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr("sysconfig.get_path", lambda *_, **__: str(scripts))

    def put(name: str, output: str, *, folder: Path = path, code: int = 0) -> Path:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{output}'\nexit {code}\n")
        program.chmod(0o755)
        return program

    return put


def set_solver(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    package = None if version is None else SimpleNamespace(version=version)
    monkeypatch.setattr("yt_dlp.dependencies.yt_dlp_ejs", package)


@pytest.fixture
def solver_version() -> str:
    """The version of the solver that the installed yt-dlp was made for."""
    vendor = pytest.importorskip("yt_dlp.extractor.youtube.jsc._builtin.vendor")
    return str(vendor.VERSION)


def test_nothing_is_installed(
    install: Install, monkeypatch: pytest.MonkeyPatch, solver_version: str
) -> None:
    set_solver(monkeypatch, None)
    assert javascript_problem() == (
        "yt-dlp finds no JavaScript runtime that it can use (deno is not found or does not start; "
        "node is not found or does not start; quickjs is not found or does not start). "
        f"The package yt-dlp-ejs {solver_version} with the solver is missing. "
        'Run pip install -U "voxblink2[youtube]", which brings yt-dlp-ejs and deno, or install '
        "deno 2.3.0 or later or node 22.0.0 or later or quickjs 2023.12.9 or later."
    )


@pytest.mark.parametrize(
    ("prints", "seen"),
    [
        (("deno", "deno 2.3.0 (stable, release)"), "deno 2.3.0"),
        (("node", "v22.1.0"), "node 22.1.0"),
        (("qjs", "QuickJS version 2025-04-26"), "quickjs 2025-04-26"),
        (("qjs", "QuickJS-ng version 0.10.1"), "quickjs-ng 0.10.1"),
    ],
)
def test_each_runtime_is_usable(
    prints: tuple[str, str],
    seen: str,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    solver_version: str,
) -> None:
    set_solver(monkeypatch, solver_version)
    program = install(*prints)
    assert javascript_problem() is None
    assert find_javascript().seen == f"{seen} ({program}), yt-dlp-ejs {solver_version}"


@pytest.mark.parametrize(
    ("prints", "problem"),
    [
        (("deno", "deno 1.46.3 (stable)"), "deno 1.46.3 ({}) is older than 2.3.0"),
        (("node", "v20.20.2"), "node 20.20.2 ({}) is older than 22.0.0"),
        (("qjs", "QuickJS version 2021-03-27"), "quickjs 2021-03-27 ({}) is older than 2023.12.9"),
        (("node", "Hello"), "node ({}) prints no version"),
    ],
)
def test_an_old_runtime_is_reported_with_both_versions(
    prints: tuple[str, str],
    problem: str,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    solver_version: str,
) -> None:
    set_solver(monkeypatch, solver_version)
    program = install(*prints)
    message = javascript_problem() or ""
    assert problem.format(program) in message
    assert "or install deno 2.3.0 or later or node 22.0.0 or later" in message


def test_a_program_that_fails_is_no_runtime(
    install: Install, monkeypatch: pytest.MonkeyPatch, solver_version: str
) -> None:
    set_solver(monkeypatch, solver_version)
    install("deno", "Segmentation fault", code=139)
    assert "deno is not found or does not start" in (javascript_problem() or "")


def test_one_good_runtime_is_enough(
    install: Install, monkeypatch: pytest.MonkeyPatch, solver_version: str
) -> None:
    set_solver(monkeypatch, solver_version)
    install("node", "v20.20.2")
    install("deno", "deno 2.9.8 (stable)")
    assert javascript_problem() is None


def test_deno_beside_this_python_is_found_without_path(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, solver_version: str
) -> None:
    set_solver(monkeypatch, solver_version)
    program = install("deno", "deno 2.9.8 (stable)", folder=tmp_path / "scripts")
    assert javascript_problem() is None
    assert str(program) in find_javascript().seen


def test_missing_solver(
    install: Install, monkeypatch: pytest.MonkeyPatch, solver_version: str
) -> None:
    set_solver(monkeypatch, None)
    install("deno", "deno 2.9.8 (stable)")
    assert javascript_problem() == (
        f"The package yt-dlp-ejs {solver_version} with the solver is missing. "
        'Run pip install -U "voxblink2[youtube]", which brings yt-dlp-ejs and deno.'
    )


def test_solver_of_another_version(
    install: Install, monkeypatch: pytest.MonkeyPatch, solver_version: str
) -> None:
    install("deno", "deno 2.9.8 (stable)")
    set_solver(monkeypatch, f"{solver_version}.1")  # any patch will do
    assert javascript_problem() is None
    set_solver(monkeypatch, "0.0.1")
    message = javascript_problem() or ""
    assert "yt-dlp-ejs 0.0.1 does not match yt-dlp" in message
    assert f"which requires {solver_version}. Run pip install -U" in message


def test_yt_dlp_takes_our_runtimes(
    install: Install, monkeypatch: pytest.MonkeyPatch, solver_version: str
) -> None:
    """yt-dlp's own object finds what we find, and supports every name."""
    set_solver(monkeypatch, solver_version)
    install("node", "v22.1.0")
    runtimes = copy.deepcopy(JS_RUNTIMES)
    with YoutubeDL({"js_runtimes": runtimes, "quiet": True}) as downloader:
        infos = {name: runtime.info for name, runtime in downloader._js_runtimes.items()}
        assert {name for name, info in infos.items() if info and info.supported} == {"node"}
    assert runtimes == JS_RUNTIMES


def test_loads_neither_torch_nor_yt_dlp() -> None:
    code = (
        "import sys, voxblink2_lib.doctor.cookies;"
        "import voxblink2_lib.sources.javascript, voxblink2_lib.sources.probe;"
        "print(*({'torch', 'yt_dlp', 'datasets'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
