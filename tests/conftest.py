"""What several test files share."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

# Two tests run at a time. Threads of one that wait for each other while another test has their core
# wait by turning in circles: what takes half a minute then takes ten. Before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from support import cli_process
from support.synthetic_audio import MediaCache

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.release.builtin import FAULTS, MEDIA
from voxblink2_lib.sources import close_sources

# A shell starts what runs in its background with Ctrl-C ignored, and children inherit that. Some
# tests stop children with it, so the tests must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_stores_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VOXBLINK2_RELEASE", "VOXBLINK2_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True, scope="module")
def _close_connections() -> Iterator[None]:
    """yt-dlp keeps connections for the life of a worker; in tests a source lives for one test."""
    yield
    close_sources()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def media_cache(tmp_path_factory: pytest.TempPathFactory) -> MediaCache:
    return MediaCache(tmp_path_factory.getbasetemp() / "truth")


@pytest.fixture
def site() -> Iterator[MediaSite]:
    with MediaSite(MEDIA, faults=FAULTS) as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run over the demo, through yt-dlp. Not to be changed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    with MediaSite(MEDIA, faults=FAULTS) as running:
        cli_process.run(
            *("materialize", "--data-dir", "demo", "--store", store),
            *("--source", running.url_template, "--workers", 2),
        )
    return store
