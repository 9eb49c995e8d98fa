"""The authors' public folder on Google Drive, read with gdown."""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from voxblink2_lib.errors import DependencyError, SourceError, VoxBlink2Error
from voxblink2_lib.files import named_system_errors, short_digest
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.release.places import Digests, Offer
from voxblink2_lib.release.release_parts import part_of

AUTHORS_FOLDER = "1lzumPsnl5yEaMP9g2bFbSKINLZ-QRJVP"
_TIMEOUT_SECONDS = 60
_RETRIES = 5


def drive_folder(named: str) -> str | None:
    """Return the id of the folder that a URL of Google Drive names; ``None`` for another place.

    >>> drive_folder("https://drive.google.com/drive/folders/1lzumPsnl5?usp=sharing")
    '1lzumPsnl5'
    >>> drive_folder("hf://datasets/me/release") is None
    True
    """
    parts = urlsplit(named)
    if parts.hostname != "drive.google.com" or "/folders/" not in parts.path:
        return None
    return parts.path.partition("/folders/")[2].partition("/")[0]


class DrivePlace:
    """A public folder on Google Drive.

    Its lists have neither sizes nor checksums: a size is announced with the first bytes of a file.

    Args:
        folder: its id.

    Raises:
        DependencyError: gdown is not installed.
    """

    def __init__(self, folder: str = AUTHORS_FOLDER) -> None:
        self._folder = folder
        try:
            import gdown
        except ImportError as error:
            raise DependencyError(
                "Google Drive is read with gdown, which is not installed: "
                "pip install 'voxblink2[get]'."
            ) from error
        self._gdown: Any = gdown

    @property
    def name(self) -> str:
        """Its address."""
        return folder_address(self._folder)

    def offers(self, parts: Sequence[str]) -> list[Offer]:
        """Return the files of some parts that it has."""
        with _own_errors(self.name, "be listed"):
            files = self._gdown.download_folder(
                id=self._folder,
                skip_download=True,
                quiet=True,
                use_cookies=False,
                timeout=_TIMEOUT_SECONDS,
            )
        offers = []
        for file in files:
            known = part_of(file.path)
            if known is not None and known[0] in parts:
                offers.append(self._offer(*known, file.id))
        return offers

    def _offer(self, part: str, path: str, file_id: str) -> Offer:
        address = f"https://drive.google.com/file/d/{file_id}/view"
        size_bytes = self._announced_bytes(path, file_id)
        return Offer(part, path, address, file_id, size_bytes, short_digest(file_id.encode()))

    def _announced_bytes(self, path: str, file_id: str) -> int | None:
        """Return the size that is announced with the first bytes of a file."""
        start = io.BytesIO()
        try:
            with _own_errors(path, "be fetched"):
                self._download(id=file_id, output=start, progress=_announce)
        except _AnnouncedError as announced:
            return announced.size_bytes
        return len(start.getvalue())  # it is empty

    def kept_bytes(self, partial: Path) -> int:
        """Return how much an earlier run kept of a file."""
        return sum(path.stat().st_size for path in [partial, *_parts(partial)] if path.exists())

    def save(
        self, offer: Offer, partial: Path, digests: Digests | None, advance: Callable[[int], object]
    ) -> None:
        """Download a file; gdown goes on with what it kept. See :class:`.Place`."""
        if partial.exists():  # killed between its end and what follows
            return
        done = self.kept_bytes(partial)

        def progress(bytes_so_far: int, _: int | None) -> None:
            nonlocal done
            advance(bytes_so_far - done)
            done = bytes_so_far

        with _own_errors(offer.path, "be fetched"), named_system_errors(partial):
            self._download(
                id=offer.key,
                output=str(partial),
                resume=True,
                retries=_RETRIES,
                progress=progress,
                hasher=digests,
            )

    def _download(self, **options: Any) -> None:
        self._gdown.download(quiet=True, use_cookies=False, timeout=_TIMEOUT_SECONDS, **options)


def folder_address(folder: str) -> str:
    """Return the address of a folder for people."""
    return f"https://drive.google.com/drive/folders/{folder}"


class _AnnouncedError(Exception):
    """A download is not wanted further: its size is known."""

    def __init__(self, size_bytes: int | None) -> None:
        super().__init__()
        self.size_bytes = size_bytes


def _announce(_: int, total: int | None) -> NoReturn:
    raise _AnnouncedError(total)


def _parts(partial: Path) -> list[Path]:
    """Return the files that gdown keeps: its name for a download, eight letters, ``.part``."""
    return list(partial.parent.glob(f"{glob.escape(partial.name)}????????.part"))


@contextlib.contextmanager
def _own_errors(what: str, verb: str) -> Iterator[None]:
    """Turn what gdown raises, and what pages of Google make it stumble over, into an error of ours.

    Raises:
        SourceError: with the words of gdown.
    """
    import requests

    try:
        yield
    except (VoxBlink2Error, _AnnouncedError):
        raise
    except OSError as error:
        if not isinstance(error, requests.RequestException):
            raise
        raise SourceError(_refusal(what, verb, error)) from error
    except Exception as error:
        raise SourceError(_refusal(what, verb, error)) from error


def _refusal(what: str, verb: str, error: Exception) -> str:
    # Of a connection that fails, requests gives the address first and the reason last.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    text = " ".join(str(reason or error).split()) or type(error).__name__
    return f"{what} cannot {verb}: {visible(shortened(text, quoted=False)).rstrip('.')}."
