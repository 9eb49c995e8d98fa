"""The page under random clicks, keys and texts: `make browse-test`, in an environment with Gradio.

The controls are those that the page has. What is done depends on the seed, and on nothing else but
what the page shows when it is at rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.browsed_store import SPEAKERS, digests, make_mixed_store, write_suspects
from support.chromium import Overheard, new_context
from support.random_user import WATCH, RandomUser
from support.served_page import served_page, write_vectors

# A number of clicks for each configuration of the store.
CLICKS = {"audio-visual": 700, "audio": 300}
SEED = 25
TEXTS = (
    *(
        "",
        "id990001",
        "id990003",
        "id990008/",
        "id990001/demoHarbour/00001",
        "demoWinter7",
        "00002",
    ),
    *("harbour", "HARBOUR 100%", "wörter", "en", "de", "no file", "its lips do not move"),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "id990001/../../x",
        "..\\..\\windows",
        "file:///etc/passwd",
    ),
    *("'; drop table videos; --", '" or 1=1 --', "%", "_", "\\", "*", "[", "(?i)(a+)+$"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</textarea>${6*7}{{6*7}}"),
    *(
        "日本語 🎙️",
        "\u202eabc\u200b",
        "e\u0301\u0301\u0301",
        "\x1b[31mred",
        "a\tb",
        "NaN",
        "-1",
        "1e999",
    ),
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


@pytest.fixture
def user(
    chromium: Any, clicked: Clicked, config: str, tmp_path: Path
) -> Iterator[tuple[RandomUser, Overheard]]:
    before = digests(clicked.store)
    with served_page(clicked.store, tmp_path, "--config", config, *clicked.options) as served:
        context = new_context(chromium)
        context.add_init_script(WATCH)
        window = context.new_page()
        overheard = Overheard(window)
        window.goto(served["url"])
        window.get_by_role("button", name="Search").wait_for()
        yield RandomUser(window, SEED, TEXTS), overheard
        context.close()
        assert overheard.foreign(served["url"]) == []
    assert digests(clicked.store) == before


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("config", CLICKS)
def test_random_clicks(user: tuple[RandomUser, Overheard], config: str, tmp_path: Path) -> None:
    somebody, overheard = user
    try:
        for _ in range(CLICKS[config]):
            somebody.act()
            assert overheard.faults == []
            assert somebody.window.locator(".toast-body, .toast-wrap .error").count() == 0
            assert "Traceback" not in (tmp_path / "log.txt").read_text("utf-8")
        check_uses(somebody, {"audio-visual": {"audio", "video"}, "audio": {"audio"}}[config])
    except BaseException as error:
        done = "\n".join(somebody.history)
        error.add_note(f"With the seed {somebody.seed}, the last of what was done:\n{done}")
        raise


def check_uses(user: RandomUser, players: set[str]) -> None:
    """Check that each control of the page was used and changes it, and most uses do."""
    times = sum(use.times for use in user.uses.values())
    table = {control: (use.times, use.changes) for control, use in user.uses.items()}
    assert user.changes >= 0.9 * times, table
    expected = user.expected()
    assert Counter(control.kind for control in expected)["tab"] > 1
    assert expected - user.uses.keys() == set(), "were never used"
    assert {control.label for control in user.uses if control.kind == "player"} == players
    assert [control for control, use in user.uses.items() if not use.changes] == []
