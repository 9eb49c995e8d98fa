"""The page in a real browser, without a display: `make browse-test`, in an environment with Gradio.

Nothing but the page's own server may be asked for anything, and the browser's console stays empty.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browsed_store import digests
from support.chromium import SECONDS, Overheard, new_context

# Pictures of the page, to be looked at.
PICTURES = os.environ.get("VOXBLINK2_BROWSE_PICTURES")
SPEAKER = "id990001"
NAME = "id990001/demoHarbour/00001"


@pytest.fixture
def page(chromium: Any, served: dict[str, Any]) -> Iterator[Any]:
    """The page in a new window; in the end, what it said and asked for is checked."""
    context = new_context(chromium)
    window = context.new_page()
    overheard = Overheard(window)
    window.goto(served["url"])
    window.get_by_role("button", name="Search").wait_for()
    yield window
    context.close()
    assert overheard.foreign(served["url"]) == []
    assert overheard.faults == []


def picture(page: Any, name: str) -> None:
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def choose(page: Any, name: str) -> None:
    """Search for a speaker, and choose an utterance in the list."""
    page.get_by_label("Speaker, video or utterance").fill(SPEAKER)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("radio", name=name).check()
    page.get_by_role("heading", name=name).wait_for()


def test_an_utterance_is_heard_and_seen(page: Any) -> None:
    choose(page, NAME)
    seconds = page.evaluate(
        """() => new Promise(done => {
            const player = document.querySelector('audio');
            if (player.duration) done(player.duration);
            player.addEventListener('loadedmetadata', () => done(player.duration));
            player.addEventListener('error', () => done(-1));
        })"""
    )
    assert seconds > 1
    playing = page.evaluate(
        """async () => {
            const video = document.querySelector('video');
            await video.play();
            await new Promise(done => video.addEventListener('timeupdate', done));
            return [video.videoWidth, video.videoHeight, video.error];
        }"""
    )
    assert playing == [336, 336, None]
    assert page.locator("figure svg").count() == 2
    picture(page, "utterance")


def test_the_keyboard_is_enough(page: Any, served: dict[str, Any]) -> None:
    page.get_by_label("Speaker, video or utterance").focus()
    page.keyboard.type(SPEAKER)
    page.keyboard.press("Enter")
    rows = page.get_by_role("radio", name=f"{SPEAKER}/")
    rows.first.wait_for()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "radio" and page.evaluate(
            "document.activeElement.closest('.utterances') !== null"
        ):
            break
    page.keyboard.press("Space")
    first = page.get_by_role("heading", level=2)
    first.wait_for()
    before = first.inner_text()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(
        "before => document.querySelector('.voxblink2 h2')?.innerText !== before", arg=before
    )
    assert first.inner_text().startswith(SPEAKER)
    picture(page, "keyboard")


def test_marks_are_made_and_saved(page: Any, served: dict[str, Any]) -> None:
    choose(page, NAME)
    page.get_by_label("Why").fill("somebody <b>else</b> ${6 * 7}")
    page.get_by_role("button", name="Mark", exact=True).click()
    page.get_by_text("Marked to leave out: video demoHarbour").wait_for()
    page.get_by_role("tab", name="Marks").click()
    page.get_by_text("does not have them yet").wait_for()
    page.get_by_text("somebody <b>else</b> ${6 * 7}").wait_for()
    picture(page, "marks")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("has all of them").wait_for()
    written = (served["folder"] / "exclude.txt").read_text("utf-8")
    assert written == f"demoHarbour  # {NAME}: somebody <b>else</b> ${{6 * 7}}\n"
    page.get_by_role("button", name="Take its marks away").click()
    page.get_by_text("Marked to leave out").wait_for(state="detached")


def test_every_tab_shows_something(page: Any) -> None:
    choose(page, NAME)
    page.get_by_role("tab", name="Voices").click()
    assert page.get_by_label("Speaker", exact=True).input_value() == SPEAKER
    page.get_by_role("button", name="Compare utterances").click()
    page.get_by_label("Cosines of the speaker's utterances").wait_for()
    picture(page, "voices")
    page.get_by_role("tab", name="Coverage").click()
    page.get_by_text("Videos done").wait_for()
    picture(page, "coverage")
    page.get_by_role("tab", name="Suspicious").click()
    page.get_by_label("box assumed").check()
    page.get_by_role("button", name="Look", exact=True).click()
    page.get_by_text("rows were looked at").wait_for()
    picture(page, "suspicious")


def test_a_wrong_search_is_told_from_an_empty_one(page: Any) -> None:
    ids = page.get_by_label("Speaker, video or utterance")
    ids.fill("../../etc")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("is no id. Write a speaker").wait_for()
    ids.fill("id000001")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("Nothing is found.").wait_for()
    picture(page, "nothing")


def test_a_choice_is_shown_though_a_search_has_replaced_its_list(page: Any) -> None:
    choose(page, NAME)
    held: list[Any] = []

    def hold_the_first(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/queue/join*", hold_the_first)
    with page.expect_request("**/queue/join*"):
        page.get_by_role("radio", name="id990001/demo_Garden/00002").check()
    page.get_by_label("Speaker, video or utterance").fill("id990003")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("radio", name="id990003/").first.wait_for()
    held[0].continue_()
    page.get_by_role("heading", name="id990001/demo_Garden/00002").wait_for()


def test_arrow_keys_walk_through_each_group_of_radio_buttons(page: Any) -> None:
    page.get_by_label("its video").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("its speaker").is_checked()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_label("its video").is_checked()


def test_in_the_dark(chromium: Any, served: dict[str, Any]) -> None:
    context = new_context(chromium, width=800, color_scheme="dark")
    window = context.new_page()
    window.goto(served["url"])
    choose(window, NAME)
    picture(window, "dark")
    context.close()


def answer(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_files_and_other_names_are_refused(served: dict[str, Any]) -> None:
    assert answer(served["url"]) == 200
    assert answer(served["url"], Host="attacker.example") == 400
    ledger = served["store_path"] / "ledger.sqlite"
    for path in ("/etc/passwd", ledger, Path.cwd() / "setup.cfg", served["folder"] / "log.txt"):
        assert answer(f"{served['url']}gradio_api/file={path}") in {403, 404}


def test_no_file_of_the_store_has_changed(served: dict[str, Any], chromium: Any) -> None:
    before = digests(served["store_path"])
    context = new_context(chromium)
    window = context.new_page()
    window.goto(served["url"])
    choose(window, NAME)
    window.get_by_role("tab", name="Coverage").click()
    window.get_by_text("Videos done").wait_for()
    context.close()
    assert digests(served["store_path"]) == before
