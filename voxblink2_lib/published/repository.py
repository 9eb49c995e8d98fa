"""A repository of the Hugging Face Hub, of which each change is one commit.

Files are uploaded as they come, and are part of the repository with the commit, which also has what
is removed. It names the commit before, so that two processes cannot both be right.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

_DATA_SET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:/(.+))?")
RepositoryKind = Literal["dataset", "space"]
# The Hub has larger files elsewhere; they are uploaded at once, and read where they are.
SMALL_BYTES = 10 << 20


class DataSetFolder(NamedTuple):
    """A data set of the Hub, or a folder in one: ``prefix`` is empty, or ends with a slash."""

    name: str
    prefix: str


def data_set_of(url: str) -> DataSetFolder | None:
    """Return the data set that a URL names, ``None`` if it names something else.

    >>> data_set_of("hf://datasets/me/clips/store")
    DataSetFolder(name='me/clips', prefix='store/')
    """
    match = _DATA_SET.fullmatch(url)
    return DataSetFolder(match[1], f"{match[2]}/" if match[2] else "") if match else None


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Show no progress of the client's own."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


class RepositoryState(NamedTuple):
    """A repository as it is now.

    Attributes:
        commit: the last one.
        is_private: nobody else sees it.
    """

    commit: str
    is_private: bool


class Repository:
    """A data set or a Space of the Hub.

    Args:
        name: as ``USER/NAME``.
        kind: what it is.
    """

    def __init__(self, name: str, kind: RepositoryKind = "dataset") -> None:
        from huggingface_hub import HfApi

        self.api = HfApi()
        self.name = name
        self.kind: RepositoryKind = kind
        self._added: dict[str, Any] = {}
        self._removed: set[str] = set()

    def __str__(self) -> str:
        return f"hf://{self.kind}s/{self.name}"

    def state(self) -> RepositoryState | None:
        """Return its state; ``None`` if there is no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self.api.repo_info(self.name, repo_type=self.kind)
        except RepositoryNotFoundError:
            return None
        return RepositoryState(str(info.sha), bool(info.private))

    def create(self, **options: Any) -> None:
        """Make it, unless it is there; a new one is private."""
        self.api.create_repo(self.name, repo_type=self.kind, private=True, exist_ok=True, **options)

    def make_public(self) -> None:
        """Let everybody see it."""
        self.api.update_repo_settings(self.name, repo_type=self.kind, private=False)

    def sizes(self, commit: str = "main") -> dict[str, int]:
        """Return the sizes of all files of a commit by their paths."""
        tree = self.api.list_repo_tree(
            self.name, recursive=True, revision=commit, repo_type=self.kind
        )
        return {entry.path: entry.size for entry in tree if hasattr(entry, "size")}

    def read(self, path: str, commit: str) -> bytes | None:
        """Return a small file of a commit; ``None`` if there is none."""
        from huggingface_hub import HfFileSystem

        try:
            content = HfFileSystem().cat_file(f"{self.kind}s/{self.name}@{commit}/{path}")
        except FileNotFoundError:
            return None
        return bytes(content)

    def upload(self, path: str, content: BinaryIO | Path | bytes) -> str:
        """Upload a file, which the next commit will have; return its SHA-256.

        What the repository has already, at whatever path, is not sent again.

        Args:
            path: in the repository.
            content: bytes, if it has at most :data:`SMALL_BYTES`: the commit itself may have them.
                A file may go afterwards.
        """
        from huggingface_hub import CommitOperationAdd

        addition = CommitOperationAdd(path, content)
        try:
            with no_bars():  # a bar for each file would stand beside that of the whole
                self.api.preupload_lfs_files(self.name, [addition], repo_type=self.kind)
        except RuntimeError as error:
            # The client hides what the Hub answered.
            raise error.__cause__ or error from None
        self._added[path] = addition
        return str(addition.upload_info.sha256.hex())

    def withdraw(self, path: str) -> None:
        """Leave a file that was uploaded out of the next commit."""
        self._added.pop(path, None)

    def remove(self, paths: Collection[str]) -> None:
        """Remove files with the next commit."""
        self._removed.update(paths)

    def commit(self, message: str, *, parent: str | None) -> str:
        """Make a commit of what was uploaded and removed since the last one; return its id.

        Args:
            message: its message.
            parent: the commit that it must follow.

        Raises:
            HfHubHTTPError: another commit was before it, with status 412; nothing was changed.
        """
        from huggingface_hub import CommitOperationDelete

        present = self.sizes() if self._removed else {}
        removed = sorted(self._removed & present.keys() - self._added.keys())
        answer = self.api.create_commit(
            self.name,
            [*self._added.values(), *map(CommitOperationDelete, removed)],
            commit_message=message,
            repo_type=self.kind,
            parent_commit=parent,
        )
        self._added.clear()
        self._removed.clear()
        return str(answer.oid)

    def erase_former(self, folder: str) -> int:
        """Take what no file has any more out of the history, for good; return how many files.

        Args:
            folder: only what was in it.
        """
        tree = self.api.list_repo_tree(self.name, recursive=True, repo_type=self.kind)
        large = (getattr(entry, "lfs", None) for entry in tree)
        present = {file.sha256 for file in large if file}
        former = [
            file
            for file in self.api.list_lfs_files(self.name, repo_type=self.kind)
            if (file.filename or "").startswith(folder) and file.file_oid not in present
        ]
        self.api.permanently_delete_lfs_files(self.name, former, repo_type=self.kind)
        return len(former)
