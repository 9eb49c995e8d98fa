"""The page under random clicks, keys and texts: `make browse-test`, in an environment with Gradio.

The controls are those that the page has. What is done depends on the seed, and on nothing else but
what the page shows when it is at rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.browsed_store import SPEAKERS, digests, make_mixed_store, write_suspects
from support.chromium import Overheard, new_context
from support.random_user import WATCH, Control, RandomUser
from support.served_page import served_page, write_vectors

# A number of clicks for each configuration of the store.
CLICKS = {"audio-visual": 700, "audio": 300}
SEED = 25
PLAUSIBLE = (
    *("id990001", "id990003", "id990008/", "id990001/demoHarbour/00001", "demoWinter7", "00002"),
    *("harbour", "HARBOUR 100%", "wörter", "en", "de", "no file", "its lips do not move"),
)
HOSTILE = (
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "id990001/../../x",
        "..\\..\\windows",
        "file:///etc/passwd",
    ),
    *("'; drop table videos; --", '" or 1=1 --', "%", "_", "\\", "*", "[", "(?i)(a+)+$"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</textarea>${6*7}{{6*7}}"),
    *("日本語 🎙️", "\u202eabc\u200b", "e\u0301\u0301", "\x1b[31mred", "a\tb", "NaN", "-1", "1e999"),
    *("x" * 20_000, "ü" * 100_000, "word " * 5_000, "/" * 3_000),
)


class Clicked(NamedTuple):
    """A store to click on.

    Attributes:
        store: its folder.
        options: words of the command line that name what belongs to it.
    """

    store: Path
    options: tuple[object, ...]


@pytest.fixture(scope="module")
def clicked(tmp_path_factory: pytest.TempPathFactory) -> Clicked:
    """A store with shards of both kinds and transcripts, embeddings, and lists of purity."""
    folder = tmp_path_factory.mktemp("clicked")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        store = make_mixed_store(folder)
    vectors = write_vectors(folder / "vectors.parquet", store, *SPEAKERS)
    lists = write_suspects(folder / "purity", store)
    return Clicked(store, ("--embeddings", vectors, "--purity", lists))


@contextlib.contextmanager
def page_of(chromium: Any, clicked: Clicked, config: str, folder: Path) -> Iterator[Overheard]:
    """Open the page of a configuration; in the end, look what it has asked for and changed."""
    before = digests(clicked.store)
    with served_page(clicked.store, folder, "--config", config, *clicked.options) as served:
        context = new_context(chromium)
        context.add_init_script(WATCH)
        overheard = Overheard(context.new_page())
        overheard.window.goto(served["url"])
        overheard.window.get_by_role("button", name="Search").wait_for()
        yield overheard
        context.close()
        assert overheard.foreign(served["url"]) == []
    assert digests(clicked.store) == before


def click(user: RandomUser, overheard: Overheard, log: Path) -> None:
    user.act()
    assert overheard.faults == []
    assert user.window.locator(".toast-body").all_inner_texts() == []
    assert "Traceback" not in log.read_text("utf-8")


@pytest.mark.timeout(3600)
def test_random_clicks(chromium: Any, clicked: Clicked, tmp_path: Path) -> None:
    user = RandomUser(SEED, 2 * PLAUSIBLE + HOSTILE)
    try:
        for config, clicks in CLICKS.items():
            (folder := tmp_path / config).mkdir()
            with page_of(chromium, clicked, config, folder) as overheard:
                user.window = overheard.window
                for _ in range(clicks):
                    click(user, overheard, folder / "log.txt")
                expected = user.expected()
    except BaseException as error:
        done = "\n".join(user.history)
        error.add_note(f"With the seed {SEED}, the last of what was done:\n{done}")
        raise
    check_uses(user, expected)


def check_uses(user: RandomUser, expected: set[Control]) -> None:
    """Check that each control of the page was used and changes it, and most uses do."""
    table = "\n".join(f"{control} {use}" for control, use in user.uses.items())
    times = sum(use.times for use in user.uses.values())
    changes = sum(use.changes for use in user.uses.values())
    assert times == sum(CLICKS.values())
    assert changes >= 0.9 * times, table
    kinds = {control.kind for control in expected}
    assert kinds == {"button", "dropdown", "radio", "tab", "text"}
    players = {Control("player", "audio"), Control("player", "video")}
    assert (expected | players) - user.uses.keys() == set(), f"were never used\n{table}"
    assert [control for control, use in user.uses.items() if not use.changes] == [], table
