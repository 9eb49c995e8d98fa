"""A newcomer's hour: what it runs, what it finds, and that nothing of this machine is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from newcomer import reader
from newcomer.__main__ import commands, pages
from newcomer.machine import ROOT, activated, linked, shell_environment
from newcomer.steps import Fault, Step, summary
from support.page_blocks import blocks_of

_README = """\
# A project

<!-- not run: installs packages -->
```sh
make demo     # makes an environment
make test
```

<!-- output -->
```text
2 videos
```
"""
_FIRST = """\
# First

```python
numbers = [1, 2]
print(sum(numbers))
```

<!-- output -->
```text
3
```

```sh
echo "rate 1.04" > rate.txt
cat rate.txt
```

<!-- output: numbers within 5 % -->
```text
rate 1.00
```
"""
_SECOND = """\
# Second

```python
print(numbers)
```

<!-- output -->
```text
[1, 2]
```

```sh
cat rate.txt
```

<!-- output -->
```text
rate 2.04
```

```sh
echo $HOME && exit 7
```

```sh
touch never
```
"""
# Makes an environment that has Python and nothing else.
_MAKEFILE = """\
demo:
\tmkdir -p .venv/bin
\tln -s {python} .venv/bin/python
\t@echo 2 videos

test:
\t@echo {test}
\t{test}
"""
_GIT = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "A"), ("EMAIL", "a@example.org"))
}


def write_pages(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [folder / name for name in texts]


# -- Reading pages ---------------------------------------------------------------------------------


def read_all(folder: Path, texts: Mapping[str, str]) -> list[Step]:
    paths = write_pages(folder, texts)
    with reader.ReaderSession(folder) as session:
        return [reader.read(page, session) for page in paths]


def test_pages_share_a_folder_and_names(tmp_path: Path) -> None:
    first, second = read_all(tmp_path, {"1.md": _FIRST, "2.md": _SECOND})
    assert (first.title, first.compared, first.faults) == ("First (1.md)", 2, ())
    differing, failing = second.faults
    assert differing.place.endswith("2.md:18")
    assert (differing.command, differing.shown) == ("cat rate.txt\n", "rate 2.04\n")
    assert "rate 2.04" in differing.seen
    assert "rate 1.04" in differing.seen
    assert failing.place.endswith("2.md:22")
    assert "exit code 7" in failing.seen
    assert not (tmp_path / "never").exists()


def test_an_exception_is_shown_with_the_line_of_the_page(tmp_path: Path) -> None:
    (step,) = read_all(tmp_path, {"1.md": "# A\n\n```python\na = 1\nb = a / 0\n```\n"})
    (fault,) = step.faults
    assert '1.md", line 5' in fault.seen
    assert "ZeroDivisionError" in fault.seen


def test_a_page_must_make_what_it_needs(tmp_path: Path) -> None:
    (step,) = read_all(tmp_path, {"1.md": "# A\n\n<!-- with: archive -->\n```sh\npwd\n```\n"})
    (fault,) = step.faults
    assert "A reader of this page has no 'archive'" in fault.seen


def test_an_output_of_what_is_not_run_is_not_compared(tmp_path: Path) -> None:
    assert read_all(tmp_path, {"1.md": f"{_FIRST}\n{_README[13:]}"})[0].faults == ()


def test_the_tutorials_need_nothing_that_a_reader_has_not() -> None:
    needed = {
        name
        for page in pages([])
        if page != "README.md"
        for block in blocks_of(ROOT / page)
        for name in block.preparations
    }
    assert needed <= {"hub"}


# -- The machine -----------------------------------------------------------------------------------


def test_nothing_that_is_set_here_is_in_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.setenv("PIP_CERT", "cert.pem")
    monkeypatch.setenv("https_proxy", "http://192.0.2.1:8080")
    shell = shell_environment(tmp_path)
    assert not shell.keys() & {"HF_TOKEN", "PYTHONPATH", "VOXBLINK2_HOME"}
    assert (shell["HOME"], shell["PIP_CERT"]) == (str(tmp_path), "cert.pem")
    assert shell["https_proxy"] == "http://192.0.2.1:8080"
    read = activated(shell, tmp_path / "clone")
    assert read["PATH"].split(os.pathsep)[0] == str(tmp_path / "clone" / ".venv" / "bin")
    assert read["https_proxy"] == "http://127.0.0.1:9"


def test_what_is_made_beside_the_links_is_not_in_the_checkout(tmp_path: Path) -> None:
    here = linked(tmp_path)
    assert (here / "tools" / "newcomer").samefile(ROOT / "tools" / "newcomer")
    assert (here / "README.md").samefile(ROOT / "README.md")
    (here / "corpus").mkdir()
    assert not (ROOT / "corpus").exists()


# -- The command -----------------------------------------------------------------------------------


def test_the_commands_of_this_readme_are_two() -> None:
    lines = commands(ROOT / "README.md")
    assert list(lines) == ["make demo", "make test"]
    (output,) = lines["make demo"]
    assert "16 videos downloaded, 2 unavailable" in output.text


def test_a_table_has_the_faults_above_it() -> None:
    fault = Fault("1.md:3", "cat a", "1", "2\n")
    lines = list(summary([Step("make demo", 61.4, 1), Step("First", 2.4, 3, (fault,))]))
    assert lines == [
        "",
        "1.md:3\nThe command:\n  cat a\nThe page shows:\n  1\nSeen:\n  2",
        "",
        "           seconds  outputs  faults",
        "make demo       61        1       0",
        "First            2        3       1",
        "together        64        4       1",
    ]


def project(folder: Path, *, test: str = "true", readme: str = _README) -> Path:
    """Commit a small project whose pages are read, with the programs that read them."""
    texts = {
        "README.md": readme,
        "docs/tutorials/1_first.md": _FIRST,
        "docs/tutorials/2_second.md": _SECOND,
        "Makefile": _MAKEFILE.format(python=sys.executable, test=test),
    }
    write_pages(folder, texts)
    kept_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tools" / "newcomer", folder / "tools" / "newcomer", ignore=kept_out)
    (folder / "tests" / "support").mkdir(parents=True)
    for name in ("__init__", "block_session", "page_blocks", "page_output"):
        shutil.copy(ROOT / "tests" / "support" / f"{name}.py", folder / "tests" / "support")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run(["git", *words], cwd=folder, env=os.environ | _GIT, check=True)
    return folder


def hour(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "newcomer", *words],
        cwd=here,
        env=os.environ | {"PYTHONPATH": "tools:tests", "TMPDIR": str(here.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_hour_in_a_clone(tmp_path: Path) -> None:
    here = project(tmp_path / "project")
    (here / "docs" / "tutorials" / "1_first.md").write_text("# Not committed\n")
    done = hour(here, "1")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert shown == [
        "make demo",
        "make test",
        "1/2 A project (README.md)",
        "2/2 First (1_first.md)",
    ]
    titles = ["make demo", "make test", "A project (README.md)", "First (1_first.md)", "together"]
    rows = [line for line in done.stdout.splitlines() if line.endswith("0")]
    assert [row.rsplit(maxsplit=3)[0] for row in rows] == titles
    assert sorted(os.listdir(tmp_path)) == ["project"]  # nothing is left


def test_an_hour_says_what_differs(tmp_path: Path) -> None:
    here = project(tmp_path / "project", test="false")
    done = hour(here, "--skip-tests")
    assert done.returncode == 1
    assert "docs/tutorials/2_second.md:18\nThe command:\n  cat rate.txt\n" in done.stdout
    assert "voxblink2-newcomer-" in done.stdout  # the second page prints the home folder
    assert done.stdout.splitlines()[-1].split()[-1] == "2"


def test_a_command_that_fails_ends_the_hour(tmp_path: Path) -> None:
    here = project(tmp_path / "project", test="false", readme=_README.replace("2 vi", "3 vi"))
    done = hour(here)
    assert done.returncode == 1
    assert "README.md:11\nThe command:\n  make demo\nThe page shows:\n  3 videos" in done.stdout
    assert done.stderr.splitlines()[0] == "make demo"
    assert done.stderr.splitlines()[-1] == "  2 videos"
    done = hour(project(tmp_path / "other", test="false"))
    assert "make test\nSeen:\n  exit code 2" in done.stdout


def test_a_number_that_no_tutorial_has(tmp_path: Path) -> None:
    done = hour(ROOT, "9")
    assert done.returncode == 2
    assert "no tutorial has the number '9'; allowed are 1, 2, 3, 4, 5, 6, 7" in done.stderr
