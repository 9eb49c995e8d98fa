"""An export to a data set of the Hub: a commit for each shard, and nobody else sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_process import run_inline
from support.exported import content, export_to, make_store
from support.hub_server import Hub, Repo, writable_hub

from voxblink2_lib.errors import ExportError
from voxblink2_lib.export import run as run_file
from voxblink2_lib.export.units import Receipt, UnitTask, write_unit
from voxblink2_lib.published.hub import DATA_SET_RECORD

# Of the Hub's client, when it sends a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

NAME = "me/exported"
# These have the target in them.
OF_THE_TARGET = {"voxblink2-export.json", "shard.list"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three shards."""
    return make_store(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with writable_hub(monkeypatch) as hub:
        yield hub


@pytest.mark.parametrize("folder", ["", "some/tars/"])
def test_it_has_what_a_folder_would_have(
    hub: Hub, store: Path, tmp_path: Path, folder: str
) -> None:
    target = f"hf://datasets/{NAME}/{folder}".rstrip("/")
    export_to(target, store, "webdataset", workers=None)
    export_to(tmp_path / "here", store, "webdataset")
    repo = hub.repos[NAME]
    assert repo.is_private
    remote = {path.removeprefix(folder): data for path, data in repo.files.items()}
    local = content(tmp_path / "here")
    assert remote.keys() == local.keys()
    assert all(remote[path] == local[path] for path in local.keys() - OF_THE_TARGET)
    assert remote["shard.list"].decode().splitlines()[0] == f"{target}/audio-00000.tar"
    commits = hub.commits
    assert commits == 3 + 3  # the manifest at the beginning and the end, and the list
    assert export_to(target, store, "webdataset").written == 0
    assert hub.commits == commits


def test_a_killed_export_goes_on(hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units: list[str] = []

    def killed(task: UnitTask) -> Receipt:
        if units:
            raise KeyboardInterrupt
        units.append(task.unit)
        return write_unit(task)

    with monkeypatch.context() as patched:
        patched.setattr(run_file, "write_unit", killed)
        with pytest.raises(KeyboardInterrupt):
            export_to(f"hf://datasets/{NAME}", store, "webdataset")
    assert export_to(f"hf://datasets/{NAME}", store, "webdataset").written == 2
    assert len(hub.uploads) == len(set(hub.uploads)) == 3


def test_a_format_of_many_files(
    hub: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is large is uploaded from a file."""
    monkeypatch.setattr("voxblink2_lib.export.hub_target.SMALL_BYTES", 0)
    export_to(f"hf://datasets/{NAME}/nemo", store, "nemo")
    export_to(tmp_path / "here", store, "nemo")
    clips = {
        path: data for path, data in content(tmp_path / "here").items() if path.endswith(".flac")
    }
    assert clips
    assert {f"nemo/{path}": data for path, data in clips.items()}.items() <= (
        hub.repos[NAME].files.items()
    )


def test_a_public_data_set_is_refused(hub: Hub, store: Path) -> None:
    hub.repos[NAME] = Repo({".gitattributes": b""}, "1" * 40)
    words = ("export", "nemo", "--store", store, "--to", f"hf://datasets/{NAME}")
    done = run_inline(*words, code=2)
    assert "is in a public data set: everybody would see the clips" in done.stderr
    hub.repos[NAME] = hub.repos[NAME]._replace(is_private=True)
    run_inline(*words)


def test_a_data_set_for_others_is_refused(hub: Hub, store: Path) -> None:
    hub.repos[NAME] = Repo({DATA_SET_RECORD: b"{}"}, "1" * 40, is_private=True)
    with pytest.raises(ExportError, match="in a data set that was published for others"):
        export_to(f"hf://datasets/{NAME}/more", store, "webdataset")
    assert hub.commits == 0
