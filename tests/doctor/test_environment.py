"""The description of a machine: true, complete where libraries are broken, and without secrets."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support import cli_process

from voxblink2_lib import __version__
from voxblink2_lib.doctor import environment, loaded_libraries
from voxblink2_lib.doctor.environment import describe_environment
from voxblink2_lib.doctor.loaded_libraries import facts_or_problem, load_libraries
from voxblink2_lib.redaction import without_user

SECTIONS = [
    *("voxblink2", "system", "packages", "PyAV", "PyTorch", "torchcodec"),
    *("programs", "disk", "variables"),
]
ABSENT = 'raise ModuleNotFoundError("No module named {name!r}")'


@pytest.fixture(scope="module")
def described() -> dict[str, dict[str, str]]:
    """This very machine, where everything is installed."""
    return describe_environment()


def fake(folder: Path, **code: str) -> dict[str, str]:
    """Write modules that hide the real ones; return the variable that makes Python take them."""
    for name, text in code.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text.format(name=name), encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


def described_with(extra: dict[str, str]) -> dict[str, Any]:
    return dict(json.loads(cli_process.run("env", "--json", extra=extra).stdout))


# -- What is there ---------------------------------------------------------------------------------


def test_the_facts_are_those_of_this_machine(described: dict[str, dict[str, str]]) -> None:
    assert [*described] == SECTIONS
    assert described["voxblink2"]["version"] == __version__
    assert described["voxblink2"]["installed"].startswith("yes")
    assert described["system"]["Python"].startswith("3.")
    for name in ("numpy", "pyarrow", "torch", "transformers"):
        assert described["packages"][name] == metadata.version(name)
    assert described["PyAV"]["version"] == metadata.version("av")
    assert described["PyTorch"]["version"].startswith("2.")
    for library in ("PyAV", "torchcodec"):
        major, *_ = described[library]["libavcodec"].split(".")
        assert int(major) >= 58  # FFmpeg 4
    assert described["programs"]["ffmpeg"].startswith("ffmpeg version ")
    assert " GB free of " in described["disk"]["VOXBLINK2_HOME"]


def test_packages_of_extras_are_listed_but_not_those_of_developers(
    described: dict[str, dict[str, str]],
) -> None:
    packages = described["packages"]
    assert packages["s3fs"] == metadata.version("s3fs")
    assert "pytest" not in packages
    assert "missing" not in packages.values()


def test_lines_for_people(tmp_path: Path) -> None:
    modules = fake(tmp_path, torch=ABSENT)  # which takes long
    out = cli_process.run("env", extra=modules).stdout.splitlines()
    assert [line for line in out if not line.startswith("  ")] == SECTIONS
    (version,) = (line.split() for line in out if line.startswith("  numpy "))
    assert version == ["numpy", metadata.version("numpy")]


# -- What is broken or absent ----------------------------------------------------------------------


def test_libraries_that_do_not_load_are_named(tmp_path: Path) -> None:
    broken = "raise ImportError('libcudart.so.13: cannot open shared object file')"
    record = described_with(fake(tmp_path, torch=broken, av=ABSENT))
    problem = "ImportError: libcudart.so.13: cannot open shared object file"
    assert record["PyTorch"] == record["torchcodec"] == {"problem": problem}
    assert record["PyAV"] == {"problem": "ModuleNotFoundError: No module named 'av'"}
    assert record["packages"]["torch"] == metadata.version("torch")
    assert [*record] == SECTIONS


def test_a_library_that_ends_its_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = "import os, sys\nprint('no JSON')\nsys.stdout.flush()\nos.abort()"
    monkeypatch.setenv("PYTHONPATH", fake(tmp_path, torch=dying)["PYTHONPATH"])
    facts = load_libraries()
    assert facts["PyAV"]["version"] == metadata.version("av")
    assert facts["PyTorch"]["problem"].startswith("loading it ended the process with -6.")
    not_tried = "not tried, as the library before it ended the process"
    assert facts["torchcodec"] == {"problem": not_tried}


def test_libraries_that_hang_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_libraries, "_TIME_OUT_SECONDS", 0.001)
    assert load_libraries()["PyAV"] == {"problem": "not loaded after 0.001 s"}


def test_a_probe_that_fails_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", fail)
    monkeypatch.setattr(metadata, "distribution", fail)
    problem = "PackageNotFoundError: No package metadata was found for voxblink2"
    assert facts_or_problem(environment._package_versions) == {"problem": problem}
    assert environment._package_facts()["installed"] == "no, it runs from a checkout"


@pytest.mark.parametrize(
    ("origin", "installed"),
    [
        (None, "yes, from an index"),
        ('{"url": "file:///home/ann/x", "dir_info": {"editable": true}}', "yes, editable"),
        (
            '{"url": "https://a:b@host/voxblink2-1-py3-none-any.whl?token=c", "archive_info": {}}',
            "yes, from voxblink2-1-py3-none-any.whl",
        ),
    ],
)
def test_how_it_was_installed(
    origin: str | None, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr(metadata, "distribution", lambda _: Installed())
    assert environment._package_facts()["installed"] == installed


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder of programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_programs_that_are_missing_or_fail(programs: Path) -> None:
    program = programs / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'the driver is not loaded' >&2\nexit 9\n")
    program.chmod(0o755)
    facts = environment._program_facts()
    assert facts["ffmpeg"] == "missing"
    assert facts["nvidia-smi"] == f"the driver is not loaded ({program})"
    program.write_text("#!/nowhere\n")
    assert "No such file" in environment._program_facts()["nvidia-smi"]


# -- What is nobody's business ---------------------------------------------------------------------


def test_no_secret_and_no_user_is_shown(tmp_path: Path) -> None:
    home = tmp_path / "people" / "ann.secret"
    home.mkdir(parents=True)
    secrets = {
        "VOXBLINK2_PROXY": "http://bob:hunter22@proxy.example:1",
        "VOXBLINK2_RELEASE": "https://bob:hunter33@example.org/meta?token=hunter44",
        "HF_ENDPOINT": "https://bob:hunter55@hub.example",
        "https_proxy": "http://hunter66@proxy.example",
        "HF_TOKEN": "hunter77",
        "SOME_PASSWORD": "hunter88",
    }
    places = {
        "HOME": str(home),
        "VOXBLINK2_HOME": str(home / "state"),
        "TMPDIR": str(tmp_path),
        "LD_LIBRARY_PATH": "/scratch/ann.secret/lib",
    }
    modules = fake(tmp_path / "modules", torch=ABSENT, av=ABSENT)
    run = cli_process.run("env", extra={**secrets, **places, **modules})
    for word in ("hunter", "ann.secret", "proxy.example", "SOME_PASSWORD"):
        assert word not in run.stdout + run.stderr
    facts = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if "  " in line.strip())
    assert facts["VOXBLINK2_RELEASE"] == "https://***@example.org/meta?token=***"
    assert facts["HF_ENDPOINT"] == "https://***@hub.example"
    assert facts["HF_TOKEN"] == facts["VOXBLINK2_PROXY"] == facts["https_proxy"] == "is set"
    assert facts["LD_LIBRARY_PATH"] == "/scratch/***/lib"
    assert "  VOXBLINK2_HOME  " in run.stdout
    assert "~/state" in run.stdout


def test_an_exact_list_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        monkeypatch.setenv(name, f"value-of-{name}")
    facts = environment._variable_facts()
    private = {f"VOXBLINK2_{name}" for name in ("PROXY", "SOURCE", "EXTRACTOR_ARGS", "YT_DLP")}
    assert facts.keys() <= {
        *environment.SHOWN_VARIABLES,
        *environment.HIDDEN_VARIABLES,
        *private,
    }


@pytest.mark.parametrize(
    ("text", "home", "shown"),
    [
        ("/root/x", "/root", "~/x"),
        ("/rootfs /mnt/root", "/root", "/rootfs /mnt/***"),
        ("/home/ann", "/home/ann/", "~"),
        ("/home/ann:/home/ann/lib", "/home/ann", "~:~/lib"),
        ("/data/ann/x, ann", "/home/ann", "/data/***/x, ann"),
        ("/home/ann.b/x", "/home/ann", "/home/ann.b/x"),
        ("/a", "/", "/a"),
        ("/a", "", "/a"),
    ],
)
def test_without_the_user(text: str, home: str, shown: str) -> None:
    assert without_user(text, home) == shown
