"""What axe-core finds in the site, in a report, and in the page of a store: `make browse-test`.

The site (`make docs`) and the report are ours: they have no fault, be it ever so small. Gradio's
components have what faults they have without us, and none that is serious is added to them.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support import bare_gradio, cli_process
from support.accessibility import SERIOUS, Fault, faults_of
from support.chromium import new_context

SITE = Path(__file__).parents[2] / "build" / "site"
WIDE, NARROW = 1400, 400
SPEAKER, NAME = "id990001", "id990001/demoHarbour/00001"
appearances = pytest.mark.parametrize(
    ("scheme", "width"),
    [(scheme, width) for scheme in ("light", "dark") for width in (WIDE, NARROW)],
)
# Of Gradio's page as it is loaded: the kinds of its components.
COMPONENTS = "() => [...new Set(window.gradio_config.components.map((part) => part.type))]"


@contextlib.contextmanager
def opened(chromium: Any, scheme: str, width: int, **more: Any) -> Iterator[Any]:
    context = new_context(chromium, width=width, color_scheme=scheme, **more)
    yield context.new_page()
    context.close()


def lines(faults: list[Fault]) -> str:
    return "\n".join(map(str, faults))


# -- What is found at all --------------------------------------------------------------------------

FAULTY = """<!DOCTYPE html><html><head><title>Faulty</title></head><body><main><h1>Faulty</h1>
<p style="color: #aaa; background: #fff">Hardly to be read</p><input type="text">
<pre style="overflow: auto; width: 9em"><code>There is no key that scrolls this</code></pre>
</main></body></html>"""
MENDED = """<!DOCTYPE html><html lang="en"><head><title>Mended</title></head><body><main>
<h1>Mended</h1><p style="color: #555; background: #fff">Easy to be read</p>
<label>Name <input type="text"></label>
<pre style="overflow: auto; width: 9em" tabindex="0"><code>Arrow keys scroll this</code></pre>
</main></body></html>"""


def test_a_faulty_page_is_caught(chromium: Any) -> None:
    with opened(chromium, "light", WIDE) as window:
        window.set_content(FAULTY)
        found = {fault.rule: fault for fault in faults_of(window, "faulty.html")}
        window.set_content(MENDED)
        assert faults_of(window, "mended.html") == []
    rules = {"html-has-lang", "color-contrast", "label", "scrollable-region-focusable"}
    assert set(found) == rules
    assert {fault.impact for fault in found.values()} <= SERIOUS
    message = str(found["label"])
    assert message.startswith("faulty.html: label (critical), input[type=text] at input: Element")
    assert "https://dequeuniversity.com/rules/axe/" in message


# -- The site --------------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The URL of the built site."""
    assert (SITE / "index.html").exists(), f"There is no site in {SITE}. Run: make docs"
    handler = functools.partial(QuietHandler, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@appearances
def test_no_page_of_the_site_has_a_fault(chromium: Any, site: str, scheme: str, width: int) -> None:
    pages = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    assert {"index.html", "404.html", "usage.html", "reference/scoring.html"} <= {*pages}
    found = []
    with opened(chromium, scheme, width) as window:
        for page in pages:
            window.goto(f"{site}/{page}")
            shown = window.evaluate("document.body.dataset.mdColorScheme")
            assert shown == {"light": "default", "dark": "slate"}[scheme]
            found += faults_of(window, page)
    assert not found, lines(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_opens_on_the_site_has_no_fault(chromium: Any, site: str, scheme: str) -> None:
    with opened(chromium, scheme, WIDE) as window:
        window.goto(f"{site}/index.html")
        words = window.get_by_role("textbox", name="Search")
        words.click()
        window.get_by_text("Type to start searching").wait_for()
        words.press_sequentially("store")
        window.locator(".md-search-result__link").first.wait_for()
        found = faults_of(window, "search")
    with opened(chromium, scheme, NARROW) as window:
        window.goto(f"{site}/tutorials/1_from_the_archive.html")
        window.locator(".md-header label[for=__drawer]").click()
        window.get_by_role("link", name="Changelog").wait_for()
        found += faults_of(window, "navigation")
    assert not found, lines(found)


def test_keys_scroll_a_table_that_is_wider_than_the_page(chromium: Any, site: str) -> None:
    with opened(chromium, "light", NARROW) as window:
        window.goto(f"{site}/comparison.html")
        table = window.get_by_role("group", name="Table that is wider than the page").first
        table.focus()
        window.keyboard.press("ArrowRight")
        window.wait_for_function("document.activeElement.scrollLeft > 0")
        window.set_viewport_size({"width": 3000, "height": 900})
        window.wait_for_function("!document.querySelector('.md-typeset__scrollwrap[tabindex]')")


# -- The report ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a store, some of whose videos are missing."""
    page = tmp_path_factory.mktemp("report") / "report.html"
    cli_process.run_inline("report", "--store", undisturbed, "--out", page)
    return page


@appearances
def test_the_report_has_no_fault(chromium: Any, report: Path, scheme: str, width: int) -> None:
    # The page lets no script run; the one that looks for faults is let in.
    with opened(chromium, scheme, width, bypass_csp=True) as window:
        window.goto(report.as_uri())
        assert window.get_by_role("rowheader", name="transient").count() == 1
        found = faults_of(window, "report.html")
    assert not found, lines(found)


# -- The page of a store ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare() -> Iterator[str]:
    """The URL of Gradio's components alone."""
    command = [sys.executable, bare_gradio.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def bare_views(window: Any) -> Iterator[str]:
    """Show one part of the bare page after another, and yield what each is."""
    window.get_by_role("button", name="First").wait_for()
    yield "inputs"
    window.get_by_label("Some of them").click()
    window.get_by_role("option", name="one").click()
    window.get_by_role("option", name="two").wait_for()
    yield "options"
    window.keyboard.press("Escape")
    open_tab(window, "Lists")
    window.get_by_role("radio", name="two").wait_for()
    yield "lists"


def open_tab(window: Any, name: str) -> None:
    """Open a tab, which is in a menu if the window is narrow."""
    tab = window.get_by_role("tab", name=name)
    if not tab.is_visible():
        window.locator(".overflow-menu > button").click()
        tab = window.locator(".overflow-dropdown").get_by_role("button", name=name)
    tab.click()


def views(window: Any) -> Iterator[str]:
    """Show one view of the page of a store after another, and yield what each is."""
    window.get_by_role("button", name="Search").wait_for()
    yield "begin"
    yield from search_views(window)
    window.get_by_label("Why").fill("noise")
    window.get_by_role("button", name="Mark", exact=True).click()
    window.get_by_text("Marked to leave out").wait_for()
    yield "marked"
    yield from tab_views(window)
    window.get_by_role("button", name="Take its marks away").click()
    window.get_by_text("Marked to leave out").wait_for(state="detached")


def search_views(window: Any) -> Iterator[str]:
    ids = window.get_by_label("Speaker, video or utterance")
    ids.fill("no id")
    window.get_by_role("button", name="Search").click()
    window.get_by_role("alert").wait_for()
    yield "wrong search"
    ids.fill(SPEAKER)
    window.get_by_label("Outcome").click()
    window.get_by_role("option", name="done").click()
    window.get_by_role("option", name="gone").wait_for()
    yield "options"
    window.keyboard.press("Escape")
    window.get_by_role("button", name="Search").click()
    window.get_by_role("radio", name=NAME).check()
    window.get_by_role("heading", name=NAME).wait_for()
    yield "utterance"


def tab_views(window: Any) -> Iterator[str]:
    open_tab(window, "Suspicious")
    window.get_by_label("box assumed").check()
    window.get_by_role("button", name="Look", exact=True).click()
    window.get_by_text("rows were looked at").wait_for()
    yield "suspicious"
    open_tab(window, "Voices")
    window.get_by_role("button", name="Compare utterances").click()
    window.get_by_label("Cosines of the speaker's utterances").wait_for()
    yield "voices"
    open_tab(window, "Coverage")
    window.get_by_text("Videos done").wait_for()
    yield "coverage"
    open_tab(window, "Marks")
    window.get_by_role("cell", name="noise").wait_for()
    yield "marks"


def serious(window: Any, shown: Iterator[str]) -> list[Fault]:
    return [f for view in shown for f in faults_of(window, view) if f.impact in SERIOUS]


@appearances
def test_the_page_of_a_store_has_no_fault_that_gradio_has_not(
    chromium: Any, bare: str, served: dict[str, Any], scheme: str, width: int
) -> None:
    with opened(chromium, scheme, width) as window:
        window.goto(bare)
        theirs = {(fault.rule, fault.kind) for fault in serious(window, bare_views(window))}
        there = {*window.evaluate(COMPONENTS)}
    with opened(chromium, scheme, width) as window:
        window.goto(served["url"])
        assert {*window.evaluate(COMPONENTS)} <= there
        found = serious(window, views(window))
    # Colours are those of our theme, and Gradio's own are no excuse.
    ours = [
        fault
        for fault in found
        if fault.is_ours or fault.rule == "color-contrast" or (fault.rule, fault.kind) not in theirs
    ]
    assert not ours, lines(ours)
