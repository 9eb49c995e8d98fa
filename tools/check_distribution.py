"""Build the sdist and the wheel, compare them with the checkout, and try the wheel without it.

    python tools/check_distribution.py

Makes two environments of its own below a temporary folder: one to build in, and one with nothing
but the wheel and what it requires, in which the commands of a new user run from another folder;
then with the extra for `browse` as well.
Prints what is wrong, and ends with 1 if anything is. Needs the network, a few minutes, and FFmpeg.
"""

from __future__ import annotations

import base64
import configparser
import csv
import email
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Folders of a checkout whose place in a wheel is another one.
MOVED = {"metrics": "voxblink2_lib/metrics", "examples": "voxblink2_lib/examples"}
PACKAGE = ("voxblink2.py", "voxblink2_lib", *MOVED)
# What an sdist has besides: enough to build it, to read about it and to install it again.
ALSO_IN_SDIST = (
    *("pyproject.toml", "setup.cfg", "MANIFEST.in", "constraints.txt", "docs", "README.md"),
    *("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"),
)
# What the build makes of it, and adds.
MADE = ("PKG-INFO", "voxblink2.egg-info/")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


# -- The checkout ----------------------------------------------------------------------------------


def tree_files(root: Path, names: Sequence[str]) -> set[str]:
    """Return the files below some names of a folder, without what Python and editors leave."""
    paths = [root / name for name in names]
    paths += [path for folder in paths for path in folder.rglob("*")]
    relative = (path.relative_to(root) for path in paths if path.is_file())
    return {
        path.as_posix()
        for path in relative
        if "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def place_in_wheel(name: str) -> str:
    """Return where a file of the checkout lies in a wheel.

    >>> place_in_wheel("metrics/eer/eer.py")
    'voxblink2_lib/metrics/eer/eer.py'
    """
    folder, _, rest = name.partition("/")
    return f"{MOVED[folder]}/{rest}" if folder in MOVED else name


def copy_tree(root: Path, to: Path) -> None:
    """Copy what a build needs, since it writes into the folder that it builds."""
    to.mkdir()
    for name in (*PACKAGE, *ALSO_IN_SDIST):
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(root / name, to / name)


# -- What is wrong with a file ---------------------------------------------------------------------


def wheel_faults(wheel: Path, root: Path) -> Iterator[str]:
    """Yield what a wheel lacks, has too much, or says wrongly.

    Args:
        wheel: the file.
        root: the checkout that it was made of.
    """
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    expected = {place_in_wheel(name): name for name in tree_files(root, PACKAGE)}
    present = {name for name in contents if not name.startswith(info)}
    yield from (f"{name} is not in {wheel.name}" for name in sorted(expected.keys() - present))
    yield from (
        f"{name} should not be in {wheel.name}" for name in sorted(present - expected.keys())
    )
    for name in sorted(present & expected.keys()):
        if contents[name] != (root / expected[name]).read_bytes():
            yield f"{name} in {wheel.name} differs from the checkout"
    yield from _record_faults(contents, f"{info}RECORD")
    yield from _metadata_faults(contents, info, root)
    yield from foreign_paths(contents, [str(root), str(wheel.parent)])


def _record_faults(contents: dict[str, bytes], record: str) -> Iterator[str]:
    """Compare the list of files in a wheel with its files."""
    rows = csv.reader(io.StringIO(contents[record].decode()))
    listed = {name: (digest, size) for name, digest, size in rows}
    yield from (f"{name} is not in RECORD" for name in sorted(contents.keys() - listed.keys()))
    yield from (f"{name} is in RECORD alone" for name in sorted(listed.keys() - contents.keys()))
    for name in sorted(contents.keys() & listed.keys() - {record}):
        digest = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).decode()
        if listed[name] != (f"sha256={digest.rstrip('=')}", str(len(contents[name]))):
            yield f"{name} is not the file that RECORD describes"


def _metadata_faults(contents: dict[str, bytes], info: str, root: Path) -> Iterator[str]:
    """Compare what a wheel says of itself with setup.cfg and the version in the package."""
    metadata = email.message_from_bytes(contents[f"{info}METADATA"])
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    if (version := metadata["Version"]) != declared_version(root):
        yield f"the wheel's version is {version}, the package's {declared_version(root)}"
    required = metadata.get_all("Requires-Dist", [])
    plain = {line.replace(" ", "") for line in required if "extra ==" not in line}
    declared = set(config["options"]["install_requires"].split())
    yield from (f"the wheel does not require {line}" for line in sorted(declared - plain))
    extras = set(metadata.get_all("Provides-Extra", []))
    yield from (
        f"the wheel has no extra {name}"
        for name in config["options.extras_require"]
        if name not in extras
    )
    if "voxblink2 = voxblink2_lib.cli:main" not in contents[f"{info}entry_points.txt"].decode():
        yield "the wheel has no program voxblink2"


def declared_version(root: Path) -> str:
    """Return the version that is written in the package, the only place where it is."""
    lines = (root / "voxblink2_lib" / "__init__.py").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("__version__ = "))
    return line.split('"')[1]


def foreign_paths(contents: dict[str, bytes], paths: Sequence[str]) -> Iterator[str]:
    """Yield files that name a folder of the machine on which they were built."""
    for name, content in sorted(contents.items()):
        for path in paths:
            if path.encode() in content:
                yield f"{name} names {path}"


def sdist_faults(sdist: Path, root: Path) -> Iterator[str]:
    """Yield what an sdist lacks, or has too much."""
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        members = [member for member in archive if not member.isdir()]
    yield from (f"{member.name} is no file" for member in members if not member.isfile())
    names = {member.name.removeprefix(f"{top}/") for member in members}
    expected = tree_files(root, [*PACKAGE, *ALSO_IN_SDIST])
    yield from (f"{name} is not in {sdist.name}" for name in sorted(expected - names))
    more = {name for name in names - expected if not name.startswith(MADE)}
    yield from (f"{name} should not be in {sdist.name}" for name in sorted(more))


def differences(first: Path, second: Path) -> Iterator[str]:
    """Yield files that two wheels do not have in common, to the byte."""
    with zipfile.ZipFile(first) as one_archive, zipfile.ZipFile(second) as other_archive:
        for name in sorted({*one_archive.namelist(), *other_archive.namelist()}):
            ours, theirs = (
                archive.read(name) if name in archive.namelist() else None
                for archive in (one_archive, other_archive)
            )
            if ours != theirs:
                yield f"{name} differs between the wheel of the sdist and that of the checkout"


# -- What runs where only the wheel is -------------------------------------------------------------

_PYTHON, _PROGRAM = "python", "voxblink2"
TRIALS: dict[str, Sequence[str]] = {
    "the package is that of the environment": (
        _PYTHON,
        "-c",
        """
import pathlib, sys, voxblink2, voxblink2_lib
for module in (voxblink2, voxblink2_lib):
    assert pathlib.Path(module.__file__).is_relative_to(sys.prefix), module.__file__
""",
    ),
    "doctests of installed modules": (
        _PYTHON,
        "-c",
        """
import doctest, voxblink2_lib, voxblink2_lib.records, voxblink2_lib.redaction
for module in (voxblink2_lib, voxblink2_lib.records, voxblink2_lib.redaction):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed, module
""",
    ),
    "the metrics of evaluate": (
        _PYTHON,
        "-c",
        """
import evaluate, voxblink2_lib
for name in voxblink2_lib.METRICS:
    evaluate.load(voxblink2_lib.metrics_path(name))
metric = evaluate.load(voxblink2_lib.metrics_path("eer"))
result = metric.compute(predictions=[0.1, 0.4, 0.35, 0.8], references=[0, 0, 1, 1])
assert result["eer"] == 0.5, result
""",
    ),
    "the built-in release": (
        _PYTHON,
        "-c",
        """
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.release.location import open_release
assert len([path for path in MEDIA.rglob("*.*") if path.is_file()]) == 16
assert sum(1 for _ in open_release("demo").annotations()) > 0
""",
    ),
    "the version": (_PROGRAM, "--version"),
    "the examples": (_PROGRAM, "examples", "--to", "examples"),
    "completion": (_PROGRAM, "completion", "bash"),
    "a description of the machine": (_PROGRAM, "env", "--json"),
    "the demo": (_PROGRAM, "demo", "--out", "demo"),
}
# With the extra of that name, in the folder in which the demo ran.
BROWSE = "browse"
BROWSE_TRIALS: dict[str, Sequence[str]] = {
    "a page of the demo's store, which is ended": (
        _PYTHON,
        "-c",
        """
import json, pathlib, subprocess, sys, urllib.request
command = [pathlib.Path(sys.prefix) / "bin" / "voxblink2", "browse", "demo/store", "--json"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
        url = json.loads(process.stdout.readline())["url"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=100) as answer:
            assert b"gradio_config" in answer.read(), url
    finally:
        process.terminate()
assert process.returncode == 0, process.returncode
""",
    ),
}


def trial_fault(title: str, prefix: Path, folder: Path) -> str:
    """Run one of the trials; return what it printed if it failed, else nothing.

    Args:
        title: which.
        prefix: an environment that has the wheel.
        folder: where to run it, without the checkout above it.
    """
    print(f"  {title}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    program, *words = (TRIALS | BROWSE_TRIALS)[title]
    home = str(folder / "home")
    ours = {"PYTHONPATH", "VOXBLINK2_RELEASE", "PYTHONHOME"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    extra = {"VOXBLINK2_HOME": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [prefix / "bin" / program, *words],
        cwd=folder,
        env=kept | extra,
        capture_output=True,
        text=True,
        check=False,
    )
    output = f"{title}: ended with {run.returncode}\n{run.stdout}{run.stderr}"
    return output if run.returncode else ""


# -- All of it -------------------------------------------------------------------------------------


def environment(
    prefix: Path, *requirements: str | Path, constraints: str = "constraints.txt"
) -> Path:
    """Make an environment with some packages in it, or add them, and return its Python."""
    print(f"  installing {' '.join(map(str, requirements))}", file=sys.stderr)
    python = prefix / "bin" / "python"
    if not python.exists():
        venv.create(prefix, with_pip=True)
    pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / constraints, *requirements], check=True)
    return python


def build(python: Path, tree: Path, out: Path, *what: str) -> Path:
    """Build a wheel or an sdist, or the one and of it the other; return the last."""
    subprocess.run([python, "-m", "build", *what, "--outdir", out, tree], check=True)
    return max(out.iterdir(), key=lambda path: path.suffix == ".whl")


def faults(folder: Path) -> Iterator[str]:
    """Build all, and yield everything that is wrong."""
    copy_tree(ROOT, folder / "tree")
    python = environment(folder / "build", "build")
    of_sdist = build(python, folder / "tree", folder / "both")
    of_tree = build(python, folder / "tree", folder / "alone", "--wheel")
    (sdist,) = (folder / "both").glob("*.tar.gz")
    yield from sdist_faults(sdist, ROOT)
    yield from wheel_faults(of_sdist, ROOT)
    yield from differences(of_sdist, of_tree)
    empty, elsewhere = folder / "empty", folder / "elsewhere"
    environment(empty, of_sdist)
    yield from filter(None, (trial_fault(title, empty, elsewhere) for title in TRIALS))
    # Gradio wants an older Pillow.
    environment(empty, f"{of_sdist}[{BROWSE}]", constraints="tests/browse/constraints.txt")
    yield from filter(None, (trial_fault(title, empty, elsewhere) for title in BROWSE_TRIALS))


def main() -> int:
    """Check, print what is wrong, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="voxblink2-distribution-") as name:
        problems = list(faults(Path(name).resolve()))
    for problem in problems:
        print(problem)
    print(f"distribution: {len(problems)} faults" if problems else "distribution: all is well")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
