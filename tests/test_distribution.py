"""The wheel has all that an installed package needs, and works where the checkout is not."""

from __future__ import annotations

import io
import runpy
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "check_distribution.py"))


@pytest.fixture(scope="module")
def built(tool: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built by the setuptools that is here."""
    folder = tmp_path_factory.mktemp("built")
    tool["copy_tree"](ROOT, folder / "tree")
    code = (
        "import sys; from setuptools import build_meta; out = sys.argv[1]; "
        "build_meta.build_sdist(out); build_meta.build_wheel(out)"
    )
    (folder / "dist").mkdir()
    command = [sys.executable, "-c", code, str(folder / "dist")]
    done = subprocess.run(command, cwd=folder / "tree", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, below which lie the packages that it requires."""
    prefix = tmp_path_factory.mktemp("installed")
    venv.create(prefix)
    (site,) = prefix.glob("lib/python*/site-packages")
    # The paths of packages alone, so that no editable installation is followed.
    below = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (site / "below.pth").write_text("\n".join(below) + "\n")
    python = str(prefix / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index"]
    options = ["--no-deps", "--ignore-installed", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    return prefix


def rewritten(wheel: Path, folder: Path, change: dict[str, bytes | None]) -> Path:
    """Return a copy of a wheel with files that are changed, added, or left out."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(copy, "w") as new:
        contents = {name: archive.read(name) for name in archive.namelist()}
        for name, content in (contents | change).items():
            if content is not None:
                new.writestr(name, content)
    return copy


# -- What is in it ---------------------------------------------------------------------------------


def test_the_wheel_is_the_checkout_without_its_tests(tool: dict[str, Any], wheel: Path) -> None:
    assert list(tool["wheel_faults"](wheel, ROOT)) == []
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {
        *("voxblink2.py", "voxblink2_lib", f"voxblink2-{tool['declared_version'](ROOT)}.dist-info"),
    }
    assert names > {
        "voxblink2_lib/py.typed",
        "voxblink2_lib/metrics/eer/README.md",
        "voxblink2_lib/examples/train_speaker.py",
        "voxblink2_lib/sources/reasons.toml",
        "voxblink2_lib/report/page.css",
        "voxblink2_lib/release/builtin_data/release/vb2_meta.tar.gz",
        "voxblink2_lib/release/builtin_data/media/id990003/-demoSailor.mp4",
    }


def test_the_sdist_has_what_is_built_and_read(tool: dict[str, Any], built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    assert list(tool["sdist_faults"](sdist, ROOT)) == []


def test_the_wheel_of_the_sdist_is_the_same(
    tool: dict[str, Any], built: Path, wheel: Path, tmp_path: Path
) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    out = tmp_path / "dist"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tool["differences"](out / wheel.name, wheel)) == []


def test_what_is_wrong_with_a_wheel_is_seen(
    tool: dict[str, Any], wheel: Path, tmp_path: Path
) -> None:
    info = f"voxblink2-{tool['declared_version'](ROOT)}.dist-info"
    metadata = zipfile.ZipFile(wheel).read(f"{info}/METADATA")
    copy = rewritten(
        wheel,
        tmp_path,
        {
            "voxblink2_lib/py.typed": None,
            "tests/test_cores.py": b"",
            "voxblink2.py": f"# {ROOT}".encode(),
            f"{info}/METADATA": metadata.replace(b"Requires-Dist: av", b"Requires-Dist: ave")
            .replace(b"Provides-Extra: youtube\n", b"")
            .replace(b"\nVersion: ", b"\nVersion: 1"),
            f"{info}/entry_points.txt": b"",
        },
    )
    faults = "\n".join(tool["wheel_faults"](copy, ROOT))
    for fault in (
        "voxblink2_lib/py.typed is not in voxblink2-",
        "tests/test_cores.py should not be in voxblink2-",
        "voxblink2.py in voxblink2-",
        "voxblink2_lib/py.typed is in RECORD alone",
        "tests/test_cores.py is not in RECORD",
        "voxblink2.py is not the file that RECORD describes",
        "the wheel's version is 1",
        "the wheel does not require av>=",
        "the wheel has no extra youtube",
        "the wheel has no program voxblink2",
        f"voxblink2.py names {ROOT}",
    ):
        assert fault in faults
    assert list(tool["differences"](copy, wheel))


def test_what_is_wrong_with_an_sdist_is_seen(tool: dict[str, Any], tmp_path: Path) -> None:
    sdist = tmp_path / "voxblink2-1.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("setup.cfg", "tests/test_cores.py"):
            archive.addfile(tarfile.TarInfo(f"voxblink2-1/{name}"), io.BytesIO())
        link = tarfile.TarInfo("voxblink2-1/README.md")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    faults = set(tool["sdist_faults"](sdist, ROOT))
    assert "voxblink2-1/README.md is no file" in faults
    assert "tests/test_cores.py should not be in voxblink2-1.tar.gz" in faults
    assert "voxblink2_lib/py.typed is not in voxblink2-1.tar.gz" in faults


def test_the_version_is_in_one_place(tool: dict[str, Any]) -> None:
    version = tool["declared_version"](ROOT)
    named = [
        name
        for name in tool["tree_files"](ROOT, [*tool["PACKAGE"], *tool["ALSO_IN_SDIST"]])
        if f'"{version}"' in (ROOT / name).read_bytes().decode(errors="ignore")
    ]
    assert named == ["voxblink2_lib/__init__.py"]


# -- What it does ----------------------------------------------------------------------------------


# They load PyTorch; tests of metrics, of the description and of the demo do the same.
SLOW = ("the metrics of evaluate", "a description of the machine", "the demo")
TRIALS = [
    pytest.param(title, marks=pytest.mark.slow if title in SLOW else ())
    for title in runpy.run_path(str(ROOT / "tools" / "check_distribution.py"))["TRIALS"]
]


@pytest.mark.parametrize("title", TRIALS)
def test_it_runs_from_another_folder(
    title: str, tool: dict[str, Any], installed: Path, tmp_path: Path
) -> None:
    assert tool["trial_fault"](title, installed, tmp_path / "elsewhere") == ""


def test_what_does_not_run_is_seen(tool: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("python", "voxblink2"):
        (tmp_path / "bin" / name).symlink_to(shutil.which("false") or "/bin/false")
    for title in tool["TRIALS"] | tool["BROWSE_TRIALS"]:
        fault = tool["trial_fault"](title, tmp_path, tmp_path / "elsewhere")
        assert fault.startswith(f"{title}: ended with 1")


# -- The oldest versions ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oldest() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "oldest_versions.py"))


def test_the_oldest_versions_are_those_that_are_run(oldest: dict[str, Any]) -> None:
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    run = {
        canonicalize_name(name): Version(version)
        for name, version in oldest["pinned"](ROOT / "tests" / "oldest" / "constraints.txt").items()
    }
    for name, version in oldest["oldest"](ROOT).items():
        assert run[canonicalize_name(name)] == Version(version), name


@pytest.mark.parametrize("requirement", ["av", "av==14", "av>=14,<20", "av>14", "av>=14; x"])
def test_a_requirement_without_a_lower_bound_is_refused(
    requirement: str, oldest: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="must be NAME>=VERSION"):
        oldest["lower_bounds"](requirement)
