"""What several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import runs

from voxblink2_lib.demo import FAULTS, MEDIA
from voxblink2_lib.demo.site import MediaSite


@pytest.fixture(autouse=True)
def _no_stores_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VOXBLINK2_RELEASE", "VOXBLINK2_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))


@pytest.fixture
def site() -> Iterator[MediaSite]:
    with MediaSite(MEDIA, faults=FAULTS) as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run over the demo, through yt-dlp. Not to be changed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    with MediaSite(MEDIA, faults=FAULTS) as running:
        runs.run(
            *("materialize", "--data-dir", "demo", "--store", store),
            *("--source", running.url_template, "--workers", 2),
        )
    return store
