"""Publish a metric as a Space, from which ``evaluate.load("USER/NAME")`` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from voxblink2_lib import metrics_path
from voxblink2_lib.errors import ExportError
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.hub.present import CARD, OF_THE_HUB
from voxblink2_lib.published.remote_errors import store_errors, tried
from voxblink2_lib.published.repository import Repository

REQUIREMENTS = "requirements.txt"
_PACKAGE = "voxblink2"


@dataclass(frozen=True, slots=True)
class PublishedMetric:
    """A metric on the Hub.

    Attributes:
        metric: its name here.
        files: paths of its files.
        commit: the last one of the Space.
        is_public: everybody sees it.
    """

    metric: str
    files: tuple[str, ...]
    commit: str
    is_public: bool


def publish_metric(name: str, repository: Repository, *, is_public: bool) -> PublishedMetric:
    """Publish a metric; a new Space is private.

    Args:
        name: of the metric.
        repository: the Space.
        is_public: let everybody see it.

    Raises:
        ExportError: the Space has something else.
        StoreError, StoreDiskError: the Hub does not take it.
    """
    files = metric_files(name, repository.name)
    with store_errors(str(repository), "published", noun="Space"):
        before = tried(repository.state)
        if before is not None:
            _check_same_metric(repository, before.commit)
        tried(lambda: repository.create(space_sdk="gradio"))
        state = tried(repository.state)
        parent = state.commit if state else None
        for path, content in files.items():
            repository.upload(path, content)
        commit = repository.commit(f"Publish the metric {name}", parent=parent)
        if is_public:
            tried(repository.make_public)
    is_seen = is_public or (before is not None and not before.is_private)
    return PublishedMetric(name, tuple(files), commit, is_seen)


def metric_files(name: str, space: str) -> dict[str, bytes]:
    """Return the files of a metric by their paths in a Space.

    Args:
        name: of the metric.
        space: as ``USER/NAME``. ``evaluate`` takes the script of that name.
    """
    folder, script = Path(metrics_path(name)), f"{space.rpartition('/')[2]}.py"
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    files[script] = files.pop(f"{name}.py")
    # Others load it from the Space.
    files[CARD] = files[CARD].replace(f'"metrics/{name}"'.encode(), f'"{space}"'.encode())
    return files


def _check_same_metric(repository: Repository, commit: str) -> None:
    """Refuse a Space that has something else."""
    requirements = repository.read(REQUIREMENTS, commit) or b""
    others = sorted(repository.sizes(commit).keys() - OF_THE_HUB)
    if others and _PACKAGE not in requirements.decode(errors="replace"):
        raise ExportError(
            f"{repository} has files of something else, such as {visible(others[0])}. Name a new "
            "Space."
        )
