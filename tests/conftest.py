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
from hypothesis import settings
from support import cli_process, hints, session_plan
from support.inline_pool import InlinePool
from support.synthetic_audio import MediaCache

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.materialize.request import user_options
from voxblink2_lib.records import option_variable
from voxblink2_lib.release.builtin import FAULTS, MEDIA
from voxblink2_lib.sources import close_sources

# A shell starts what runs in its background with Ctrl-C ignored, and children inherit that. Some
# tests stop children with it, so the tests must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Properties: the same examples each time. `make test-all` takes ten times as many.
settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=True, database=None, print_blob=False
)
settings.register_profile("slow", settings.get_profile("ci"), max_examples=500)
settings.load_profile("ci")

hints.watch()


def pytest_addoption(parser: pytest.Parser) -> None:
    session_plan.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not in the processes of pytest-xdist
        config.pluginmanager.register(session_plan.Stopwatch(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    session_plan.longest_first(items)


@pytest.fixture(autouse=True)
def _no_stores_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = (name for name, option in user_options().items() if option.may_be_secret)
    for name in ("VOXBLINK2_RELEASE", "VOXBLINK2_STORE", *map(option_variable, secret)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _every_hint_is_a_command() -> Iterator[None]:
    yield
    hints.check()


@pytest.fixture(autouse=True, scope="module")
def _close_connections() -> Iterator[None]:
    """yt-dlp keeps connections for the life of a worker; in tests a source lives for one test."""
    yield
    close_sources()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def media_cache() -> MediaCache:
    """Media that the tests make; sessions share them."""
    folder = os.environ.get("VOXBLINK2_TEST_MEDIA") or Path(__file__).parents[1] / ".test-media"
    return MediaCache(Path(folder).absolute())


@pytest.fixture
def site() -> Iterator[MediaSite]:
    with MediaSite(MEDIA, faults=FAULTS) as running:
        yield running


@pytest.fixture
def inline_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process start no others."""
    for module in ("materialize.scheduler", "cut_audio.blocks"):
        monkeypatch.setattr(f"voxblink2_lib.{module}.WorkerPool", InlinePool)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run over the demo, through yt-dlp. Not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    store = folder / "store"
    with pytest.MonkeyPatch.context() as patched, MediaSite(MEDIA, faults=FAULTS) as running:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        cli_process.run_inline(
            *("materialize", "--data-dir", "demo", "--store", store),
            *("--source", running.url_template, "--workers", 2),
        )
    close_sources()
    return store
