"""A loopback server that answers as Google Drive does where gdown asks it, pages and all.

Its pages have what gdown looks for in those of Drive: the list of a folder, the page before a large
file, the page that refuses one. `as_drive` sends the requests of this process for Google's hosts
to it, at their outermost edge: the adapter of requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from support.file_server import FileHandler, FileServer

QUOTA = (
    "Too many users have viewed or downloaded this file recently. Please try accessing the file "
    "again later. If the file you are trying to access is particularly large or is shared with "
    "many people, it may take up to 24 hours to be able to view or download the file. If you still "
    "can't access a file after 24 hours, contact your domain administrator."
)
_HOSTS = {"drive.google.com", "docs.google.com", "drive.usercontent.google.com"}
SCANNED_BYTES = 5000  # Drive's are 100 MB: larger files come after a page that warns of them


def file_id(path: str) -> str:
    """Return the id of a file or folder: 33 letters, as Drive's are."""
    return f"1{hashlib.md5(path.encode(), usedforsecurity=False).hexdigest()}"


class DriveServer(FileServer):
    """Serve files as a public folder inside a `with` block.

    Args:
        folder: id of the folder.
        files: contents by path.

    Attributes:
        is_exhausted: the files have been downloaded too often.
        page: sent in place of the list of a folder.
    """

    def __init__(self, folder: str, files: dict[str, bytes]) -> None:
        self.folder = folder
        self.is_exhausted = False
        self.page: bytes | None = None
        super().__init__(files, _Handler)


@contextmanager
def as_drive(server: DriveServer) -> Iterator[None]:
    """Send the requests of this process for Google's hosts to a server."""
    with pytest.MonkeyPatch.context() as patched:
        patch_requests(patched, server.url)
        yield


def patch_requests(patched: pytest.MonkeyPatch, url: str) -> None:
    send = requests.adapters.HTTPAdapter.send

    def sent(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        assert parts.hostname in _HOSTS, request.url
        request.url = f"{url}{parts.path}?{parts.query}"
        options["proxies"] = {}
        return send(adapter, request, **options)

    patched.setattr(requests.adapters.HTTPAdapter, "send", sent)


class _Handler(FileHandler):
    server: DriveServer

    def answer(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        paths = {file_id(path): path for path in self.server.files}
        if parts.path == "/embeddedfolderview":
            self._send_list(query["id"])
        elif query.get("id") not in paths:
            self._send_page(404, "<title>Error 404 (Not Found)!!1</title>")
        elif self.server.is_exhausted:
            caption = "Sorry, you can&#39;t view or download this file at this time."
            self._send_page(
                200,
                "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head>\n"
                f'<body><p class="uc-error-caption">{caption}</p>\n'
                f'<p class="uc-error-subcaption">{QUOTA}</p></body></html>',
            )
        else:
            self._send_or_ask(paths[query["id"]], query)

    def _send_or_ask(self, path: str, query: dict[str, str]) -> None:
        data = self.server.files[path]
        if len(data) > SCANNED_BYTES and query.get("confirm") != "t":
            action = "https://drive.usercontent.google.com/download"
            fields = {"id": query["id"], "export": "download", "confirm": "t", "uuid": "1a2b"}
            inputs = "".join(
                f'<input type="hidden" name="{name}" value="{value}">'
                for name, value in fields.items()
            )
            form = f'<form id="download-form" action="{action}" method="get">{inputs}</form>'
            self._send_page(200, f"<html><title>Virus scan warning</title>\n{form}\n</html>")
            return
        name = path.rpartition("/")[2]
        self.send_file(path, data, {"Content-Disposition": f'attachment; filename="{name}"'})

    def _send_list(self, folder: str) -> None:
        if self.server.page is not None:
            self.reply(200, self.server.page, {"Content-Type": "text/html"})
            return
        folders = {self.server.folder: ""}
        for path in self.server.files:
            names = path.split("/")[:-1]
            inner = ["/".join(names[: depth + 1]) for depth in range(len(names))]
            folders |= {file_id(path): f"{path}/" for path in inner}
        if folder not in folders:
            self._send_page(404, "<title>Error 404 (Not Found)!!1</title>")
            return
        start = folders[folder]
        links = []
        for name in sorted(
            {
                path[len(start) :].partition("/")[0]
                for path in self.server.files
                if path.startswith(start)
            }
        ):
            own = file_id(f"{start}{name}")
            is_file = f"{start}{name}" in self.server.files
            kind = f"file/d/{own}/view?usp=drive_web" if is_file else f"drive/folders/{own}"
            links.append(
                f'<a href="https://drive.google.com/{kind}" target="_blank">'
                f'<div class="flip-entry-title">{name}</div></a>'
            )
        title = start.rstrip("/").rpartition("/")[2] or "VoxBlink2"  # gdown takes it for the name
        self._send_page(200, f"<html><title>{title}</title>{''.join(links)}</html>")

    def _send_page(self, status: int, page: str) -> None:
        self.reply(status, page.encode(), {"Content-Type": "text/html; charset=utf-8"})
