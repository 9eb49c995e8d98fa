"""A loopback server with the part of the Hugging Face Hub that repositories are read with.

It has repositories with one branch, `main`, whose last commit is in memory: of models, data sets
and Spaces. Everybody may read, private ones as well; writing requires the token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

from support.loopback_server import LoopbackHandler, LoopbackServer
from voxblink2_lib.demo.site import parse_range

NO_COMMIT = "0" * 40
LFS_BYTES = 1000  # files of that size and above are kept apart, with their SHA-256
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Repo(NamedTuple):
    """A repository: files by path, the id of the last commit, and who may see it."""

    files: dict[str, bytes]
    commit: str
    is_private: bool = False


class Hub(LoopbackServer):
    """Serve repositories inside a `with` block.

    Args:
        token: authorizes writing.

    Attributes:
        repos: repositories by `owner/name`.
        bytes_sent: of data sets, by the path in the repository.
        with_large_files: files of 1,000 bytes or more are uploaded by themselves, as to the Hub.
        large_files: their content by SHA-256, of files that no commit has any more as well.
        large_names: the path that each was committed under first.
        commits: how many there were.
        uploads: SHA-256 of the large files that were sent, in order.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.with_large_files = False
        self.large_files: dict[str, bytes] = {}
        self.large_names: dict[str, str] = {}
        self.uploads: list[str] = []
        self.commits = 0
        self.repos: dict[str, Repo] = {}
        self.bytes_sent: dict[str, int] = {}
        self.lock = threading.Lock()
        super().__init__(_Handler)


@contextmanager
def dataset_hub(
    monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]
) -> Iterator[Hub]:
    """Run a hub with a data set, and let this process take it for the Hub."""
    from huggingface_hub import constants

    kind = fsspec.get_filesystem_class("hf")
    with Hub("") as hub:
        hub.repos[name] = Repo(files, hashlib.sha1(repr(sorted(files)).encode()).hexdigest())
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        kind.clear_instance_cache()
        yield hub
        kind.clear_instance_cache()


@contextmanager
def writable_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub on which this process may write, and large files are kept apart."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with dataset_hub(monkeypatch, "else/other", {"data.csv": b"1,2"}) as hub:
        hub.token = "secret"
        hub.with_large_files = True
        yield hub


@contextmanager
def hub_of_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run the same, which processes that this one starts take for the Hub as well."""
    with writable_hub(monkeypatch) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield hub


class _RefusedError(Exception):
    """An error response."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}


class _Handler(LoopbackHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body leave as two writes

    def answer(self) -> None:
        # Read even if the request is refused: the next one is on the same connection.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        try:
            with self.server.lock:
                if self.command in {"POST", "PUT"}:
                    self._write(parts, body)
                else:
                    self._read(parts)
        except _RefusedError as error:
            self._send(error.status, {"error": str(error)}, error.headers)

    do_POST = do_PUT = answer  # noqa: N815  # names that the base class requires

    def _write(self, parts: list[str], body: bytes) -> None:
        if parts[:1] == ["large"]:  # the address itself is secret, as of a bucket
            self.server.large_files[parts[1]] = body
            self.server.uploads.append(parts[1])
            self._send(200, {})
            return
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            raise _RefusedError(401, "Unauthorized", "Invalid username or password.")
        match parts:
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = "{organization}/{name}".format(**asked)
                exists = name in self.server.repos
                is_private = asked.get("visibility") == "private"
                self.server.repos.setdefault(name, Repo({}, NO_COMMIT, is_private))
                # A client that accepts a 409 reads the same body.
                self._send(409 if exists else 200, {"url": f"{self.server.url}/{name}"})
            case ["api", "validate-yaml"]:
                self._send(200, {"errors": [], "warnings": []})  # this hub accepts every card
            case ["api", "models" | "datasets" | "spaces", owner, name, "preupload", revision]:
                files = self._repo(owner, name, revision).files
                is_kept_apart = self.server.with_large_files
                plans = [_plan(file, files, is_kept_apart) for file in json.loads(body)["files"]]
                self._send(200, {"files": plans})
            case [*_, "info", "lfs", "objects", "batch"]:
                objects = [self._upload_plan(file) for file in json.loads(body)["objects"]]
                self._send(200, {"transfer": "basic", "objects": objects})
            case ["api", "datasets", _, _, "lfs-files", "batch"]:
                for oid in json.loads(body)["deletions"]["sha"]:
                    del self.server.large_files[oid], self.server.large_names[oid]
                self._send(200, {})
            case ["api", "datasets" | "spaces", owner, name, "settings"]:
                is_private = json.loads(body)["visibility"] == "private"
                repo = self._repo(owner, name, "main")._replace(is_private=is_private)
                self.server.repos[f"{owner}/{name}"] = repo
                self._send(200, {})
            case ["api", "models" | "datasets" | "spaces", owner, name, "commit", revision]:
                large = self.server.large_files, self.server.large_names
                repo = _committed(self._repo(owner, name, revision), body, *large)
                self.server.repos[f"{owner}/{name}"] = repo
                self.server.commits += 1
                url = f"{self.server.url}/{owner}/{name}/commit/{repo.commit}"
                self._send(200, {"success": True, "commitOid": repo.commit, "commitUrl": url})
            case ["api", "datasets", owner, name, "super-squash", revision]:
                self._repo(owner, name, revision)  # of which it has no history
                self._send(200, {})
            case _:
                raise _RefusedError(404, "NotFound", f"This hub has no {self.path}.")

    def _upload_plan(self, file: dict[str, object]) -> dict[str, object]:
        """Return where to send a large file, or nothing if it is there."""
        oid = str(file["oid"])
        if oid in self.server.large_files:
            return file
        return {**file, "actions": {"upload": {"href": f"{self.server.url}/large/{oid}"}}}

    def _read(self, parts: list[str]) -> None:
        match parts:
            case ["api", "models", owner, name]:
                repo = self._repo(owner, name, "main")
                self._send(200, {"id": f"{owner}/{name}", "sha": repo.commit})
            case ["api", "datasets" | "spaces", owner, name, *revision] if revision[:1] in (
                [],
                ["revision"],
            ):
                repo = self._repo(owner, name, (revision or ["main"])[-1])
                about = {"id": f"{owner}/{name}", "sha": repo.commit, "private": repo.is_private}
                files = [{"rfilename": path} for path in sorted(repo.files)]
                self._send(200, {**about, "siblings": files})
            case ["api", "datasets", owner, name, "lfs-files"]:
                self._send(200, [*map(_large_file, self.server.large_names.items())])
            case ["api", "datasets" | "spaces", owner, name, "tree", revision, *path]:
                is_deep = parse_qs(urlsplit(self.path).query).get("recursive") == ["true"]
                repo = self._repo(owner, name, revision)
                self._send(200, list(_tree(repo, "/".join(path), is_deep=is_deep)))
            case ["datasets" | "spaces", owner, name, "resolve", revision, *path]:
                self._send_file(self._repo(owner, name, revision), "/".join(path))
            case [owner, name, "resolve", revision, *path]:
                repo = self._repo(owner, name, revision)
                commit = {"X-Repo-Commit": repo.commit}
                content = repo.files.get("/".join(path))
                if content is None:
                    raise _RefusedError(404, "EntryNotFound", "Entry not found", commit)
                self._send(200, content, {**commit, "ETag": f'"{_blob_id(content)}"'})
            case _:
                raise _RefusedError(404, "NotFound", f"This hub has no {self.path}.")

    def _send_file(self, repo: Repo, path: str) -> None:
        content = repo.files.get(path)
        about = {"X-Repo-Commit": repo.commit}
        if content is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", about)
        about["ETag"] = f'"{_blob_id(content)}"'
        span = parse_range(self.headers.get("Range", ""), len(content))
        start, stop = span or (0, len(content))
        part = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"} if span else {}
        self.server.bytes_sent[path] = self.server.bytes_sent.get(path, 0) + stop - start
        self.reply(206 if span else 200, content[start:stop], about | part)

    def _repo(self, owner: str, name: str, revision: str) -> Repo:
        repo = self.server.repos.get(f"{owner}/{name}")
        if repo is None:
            raise _RefusedError(404, "RepoNotFound", "Repository not found")
        if revision not in {"main", repo.commit}:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    def _send(self, status: int, answer: object, headers: Mapping[str, str] = NO_HEADERS) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = "application/octet-stream" if answer is body else "application/json"
        self.reply(status, body, {"Content-Type": kind, **headers})


def _tree(repo: Repo, folder: str, *, is_deep: bool) -> Iterator[dict[str, object]]:
    """Yield what a folder has, and perhaps what the folders in it have; large files are in LFS."""
    start = f"{folder}/" if folder else ""
    below = {path: data for path, data in repo.files.items() if path.startswith(start)}
    if not below and folder:
        raise _RefusedError(404, "EntryNotFound", f"{folder} does not exist")
    folders = set()
    for path, data in sorted(below.items()):
        inner = path[len(start) :].split("/")[:-1]
        for depth in range(1, len(inner) + 1 if is_deep else min(len(inner), 1) + 1):
            folders.add(start + "/".join(inner[:depth]))
        if is_deep or not inner:
            entry = {"type": "file", "oid": _blob_id(data), "size": len(data), "path": path}
            if len(data) >= LFS_BYTES:
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
                entry["oid"] = _blob_id(f"pointer {sha256}".encode())
            yield entry
    for path in sorted(folders):
        yield {"type": "directory", "oid": _blob_id(path.encode()), "size": 0, "path": path}


def _large_file(named: tuple[str, str]) -> dict[str, object]:
    oid, path = named
    about = {"pushedAt": "2026-01-01T00:00:00.000Z", "size": 1}
    return {"fileOid": oid, "oid": oid, "filename": path, **about}


def _plan(file: dict[str, str], files: dict[str, bytes], is_kept_apart: bool) -> dict[str, object]:
    """Return how to upload a file: within the commit, or by itself.

    By `oid` the client recognizes files that it need not upload again.
    """
    path = file["path"]
    oid = _blob_id(files[path]) if path in files else None
    mode = "lfs" if is_kept_apart and int(file["size"]) >= LFS_BYTES else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _committed(
    repo: Repo, lines: bytes, large_files: dict[str, bytes], large_names: dict[str, str]
) -> Repo:
    """Return a repository after a commit, which has one operation per line."""
    files = dict(repo.files)
    for line in lines.splitlines():
        match json.loads(line):
            case {"key": "header", "value": {"parentCommit": parent}} if parent != repo.commit:
                message = "A commit has happened since. Please refresh and try again."
                raise _RefusedError(412, "PreconditionFailed", message)
            case {"key": "header"}:
                pass
            case {"key": "deletedFile", "value": {"path": path}}:
                del files[path]
            case {"key": "file", "value": {"path": path, "content": content}}:
                files[path] = base64.b64decode(content, validate=True)
            case {"key": "lfsFile", "value": {"path": path, "oid": oid}}:
                files[path] = large_files[oid]
                large_names.setdefault(oid, path)
            case other:
                raise _RefusedError(400, "BadRequest", f"This hub cannot do {other['key']}.")
    return repo._replace(files=files, commit=hashlib.sha1(repo.commit.encode() + lines).hexdigest())


def _blob_id(body: bytes) -> str:
    """Return git's hash of a file's content, by which the client recognizes unchanged files."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
