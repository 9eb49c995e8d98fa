"""Where the system starts no more processes and threads, a command ends soon, and in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cli_process
from support.plain_corpus import make_corpus, video_ids

# Of an account that has no other process: root has no limit, and another may have many.
_ACCOUNT = 61_234
_LIMIT_SECONDS = 60
# All that root may do here but for going beyond limits.
_NOBODY = [
    *("setpriv", f"--reuid={_ACCOUNT}", "--clear-groups", "--inh-caps=+dac_override"),
    *("--ambient-caps=+dac_override", "--bounding-set=-sys_resource,-sys_admin"),
]
_LOAD = """
import sys, voxblink2
from datasets import load_dataset
print(len(load_dataset("voxblink2", "audio", split="train", store=sys.argv[1])))
"""


def _can_limit() -> bool:
    if os.geteuid() != 0 or not (shutil.which("setpriv") and shutil.which("prlimit")):
        return False
    words = [*_NOBODY, "prlimit", "--nproc=2", sys.executable, "-c", "pass"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not _can_limit(), reason="needs root, setpriv and prlimit, to limit an account's processes"
)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder of the account's own; those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="few-processes-") as folder:
        os.chown(folder, _ACCOUNT, -1)
        yield Path(folder)


@pytest.fixture(scope="module")
def corpus(open_folder: Path) -> Path:
    return make_corpus(open_folder / "corpus", video_ids(2))


@pytest.fixture(scope="module")
def store(open_folder: Path, corpus: Path) -> Path:
    cli_process.run_inline(*materialize(corpus, open_folder / "store"))
    return open_folder / "store"


def materialize(corpus: Path, store: Path) -> list[object]:
    options = {"--data-dir": corpus, "--source": corpus / "media", "--store": store, "--workers": 1}
    return ["materialize", *(word for option in options.items() for word in option)]


def with_few(limit: int, *words: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with at most so many processes and threads, the first one included."""
    return subprocess.run(
        [*_NOBODY, "prlimit", f"--nproc={limit}", sys.executable, *map(str, words)],
        env=cli_process.environment({"HOME": str(home), "VOXBLINK2_HOME": str(home / "state")}),
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )


# With 3, all of the command's own work is done, and no worker can start a thread.
@pytest.mark.parametrize(
    "limit", [3, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (4, 5, 6, 7, 8, 12))]
)
def test_a_run_ends_in_words(limit: int, corpus: Path, open_folder: Path) -> None:
    store = open_folder / f"store{limit}"
    words = materialize(corpus, store)
    done = with_few(limit, "-m", "voxblink2_lib.cli", *words, home=open_folder)
    assert "Traceback" not in done.stderr
    if limit == 12:
        assert done.returncode == 0, done.stderr
    elif done.returncode or limit == 3:
        assert done.returncode in {2, 3}
        assert "raise the limit ('ulimit -u', or that of the container)" in done.stderr
        cli_process.run_inline(*words)
    assert len(cli_process.rows(store)) == 2


@pytest.mark.parametrize(
    "limit", [3, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (2, 4, 5, 6, 12))]
)
def test_a_load_ends_in_words(limit: int, store: Path, open_folder: Path) -> None:
    done = with_few(limit, "-c", _LOAD, store, home=open_folder / f"home{limit}")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        assert "raise the limit ('ulimit -u'" in last or "can't start new thread" in last
    else:
        assert done.stdout.strip() == "2"
    assert (limit, done.returncode) not in {(3, 0), (12, 1)}
