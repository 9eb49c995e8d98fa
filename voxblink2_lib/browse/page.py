"""The page of a store, made of Gradio's components: tabs on the left, an utterance on the right.

This file, ``page_utterance.py`` and ``page_marks.py`` alone know Gradio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from voxblink2_lib.browse import views
from voxblink2_lib.browse.browser import StoreBrowser
from voxblink2_lib.browse.page_marks import add_marking, add_marks
from voxblink2_lib.browse.page_utterance import ChosenUtterance, add_list
from voxblink2_lib.browse.query import CLASSES, Cursor, ListedUtterance, Query
from voxblink2_lib.browse.search import ROWS_A_PAGE
from voxblink2_lib.browse.suspects import DESCRIPTIONS, LookCursor
from voxblink2_lib.errors import DependencyError, VoxBlink2Error
from voxblink2_lib.progress import counted
from voxblink2_lib.report.markup import Markup, fill


def load_gradio() -> Any:
    """Import Gradio.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise DependencyError(
            "The page of a store is made with Gradio, which cannot be imported "
            f"({error}): pip install 'voxblink2[browse]'."
        ) from error
    return gradio


def build_page(browser: StoreBrowser) -> Any:
    """Return the page as ``gradio.Blocks``, which is not served yet.

    Args:
        browser: the store.

    Raises:
        DependencyError: Gradio is not installed.
    """
    gr = load_gradio()
    title = f"{browser.store.root.name or 'store'} ({browser.config}) - voxblink2"
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(_head(browser), elem_classes="voxblink2")
        with gr.Row():
            with gr.Column(scale=5, min_width=380):
                chosen = ChosenUtterance.of(gr, browser)
                with gr.Tabs():
                    for name, add in _TABS.items():
                        with gr.Tab(name) as tab:
                            add(gr, browser, chosen, tab)
            with gr.Column(scale=6, min_width=380):
                chosen.marking.note.render()
                chosen.details.render()
                add_marking(gr, browser, chosen.marking, chosen.name)
    return page


def _head(browser: StoreBrowser) -> Markup:
    return fill(
        "<h1>Store $store</h1><p>Configuration $config. Nothing is written into the store.</p>",
        store=str(browser.store.root),
        config=browser.config,
    )


# -- Search ----------------------------------------------------------------------------------------


def _add_search(gr: Any, browser: StoreBrowser, chosen: ChosenUtterance, tab: Any) -> None:
    del tab
    ids = gr.Textbox(
        label="Speaker, video or utterance",
        placeholder="id000002 or id000002/VIDEO/00001",
        max_lines=1,
    )
    with gr.Row():
        statuses = gr.Dropdown(list(CLASSES), label="Outcome", multiselect=True)
        reason = gr.Textbox(label="Words of the reason", max_lines=1)
    with gr.Row():
        language = gr.Textbox(label="Language of the transcript", placeholder="en", max_lines=1)
        text = gr.Textbox(label="Words of the transcript", max_lines=1)
    with gr.Row():
        search = gr.Button("Search", variant="primary")
        following = gr.Button("Next page", interactive=False)
    state = gr.HTML("", elem_classes="voxblink2")
    rows = add_list(gr, browser, chosen, "Utterances")
    query, cursor = gr.State(None), gr.State(None)
    outputs = [rows, state, following, query, cursor]

    def first(*values: Any) -> Iterator[list[Any]]:
        yield from _first_page(gr, browser, values)

    def more(query: Query | None, cursor: Cursor | None) -> Iterator[list[Any]]:
        if query is not None and cursor is not None:
            yield from _pages(gr, browser, query, cursor)

    inputs = [ids, statuses, reason, language, text]
    options = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private"}
    for event in (search.click, *(box.submit for box in (ids, reason, language, text))):
        event(first, inputs, **options)
    following.click(more, [query, cursor], **options)


def _first_page(gr: Any, browser: StoreBrowser, values: Sequence[Any]) -> Iterator[list[Any]]:
    ids, statuses, reason, language, text = values
    try:
        query = Query.of(
            ids or "",
            statuses=statuses or (),
            reason=reason or "",
            language=language or "",
            text=text or "",
        )
    except VoxBlink2Error as error:
        yield _rows_update(gr, [], views.problem(str(error)), None, None)
        return
    yield from _pages(gr, browser, query, Cursor())


def _pages(gr: Any, browser: StoreBrowser, query: Query, cursor: Cursor) -> Iterator[list[Any]]:
    """Yield what a search has found by now, until a page is full or all is searched."""
    rows: list[ListedUtterance] = []
    following: Cursor | None = cursor
    while following is not None and len(rows) < ROWS_A_PAGE:
        try:
            page = browser.search.page(query, cursor=following, most=ROWS_A_PAGE - len(rows))
        except VoxBlink2Error as error:
            yield _rows_update(gr, rows, views.problem(str(error)), query, None)
            return
        rows += page.rows
        following = page.cursor
        yield _rows_update(gr, rows, _state(rows, following, page.notes), query, following)


def _state(rows: list[ListedUtterance], cursor: Cursor | None, notes: Sequence[str]) -> Markup:
    if not rows:
        text = "Nothing is found." if cursor is None else "Nothing is found so far."
    else:
        end = "the end of the list" if cursor is None else "there may be more"
        text = f"{counted(len(rows), 'row')}; {end}."
    return views.notes([text, *notes])


def _rows_update(
    gr: Any,
    rows: Sequence[ListedUtterance],
    state: Markup,
    query: Query | None,
    cursor: Cursor | None,
) -> list[Any]:
    choices = [(views.row_label(row), row.key.name) for row in rows]
    following = gr.Button(interactive=cursor is not None)
    return [gr.Radio(choices=choices, value=None), state, following, query, cursor]


# -- Suspicious ------------------------------------------------------------------------------------


def _add_suspects(gr: Any, browser: StoreBrowser, chosen: ChosenUtterance, tab: Any) -> None:
    del tab
    kinds = gr.Radio(
        [(text, kind) for kind, text in DESCRIPTIONS.items()],
        label="What to look for",
        value="silent",
        elem_classes="utterances",
    )
    with gr.Row():
        begin = gr.Button("Look", variant="primary")
        following = gr.Button("Look on", interactive=False)
    state = gr.HTML("", elem_classes="voxblink2")
    rows = add_list(gr, browser, chosen, "Suspicious utterances")
    cursor = gr.State(None)

    def first(kind: Any) -> list[Any]:
        return _look(gr, browser, kind, LookCursor())

    def more(kind: Any, cursor: LookCursor | None) -> list[Any]:
        return _look(gr, browser, kind, cursor or LookCursor())

    options = {
        "outputs": [rows, state, following, cursor],
        "show_progress": "minimal",
        "api_visibility": "private",
    }
    begin.click(first, [kinds], **options)
    following.click(more, [kinds, cursor], **options)
    kinds.input(
        lambda: [gr.Radio(choices=[], value=None), "", gr.Button(interactive=False), None],
        None,
        **{**options, "show_progress": "hidden"},
    )


def _look(gr: Any, browser: StoreBrowser, kind: Any, cursor: LookCursor) -> list[Any]:
    try:
        look = browser.suspects.look(kind, cursor=cursor)
    except VoxBlink2Error as error:
        stop = gr.Button(interactive=False)
        return [gr.Radio(choices=[], value=None), views.problem(str(error)), stop, None]
    end = "all of them" if look.cursor is None else "look on for more"
    text = f"{len(look.suspects):,} found; {look.looked:,} rows were looked at: {end}."
    choices = [
        (f"{suspect.key.name.rstrip('/')} · {suspect.finding}", suspect.key.name)
        for suspect in look.suspects
    ]
    following = gr.Button(interactive=look.cursor is not None)
    state = views.notes([text, *look.notes])
    return [gr.Radio(choices=choices, value=None), state, following, look.cursor]


# -- Voices, coverage ------------------------------------------------------------------------------


def _add_voices(gr: Any, browser: StoreBrowser, chosen: ChosenUtterance, tab: Any) -> None:
    del tab
    chosen.speaker.render()
    compare = gr.Button("Compare utterances", variant="primary")
    pictures = gr.HTML("", elem_classes="voxblink2")
    rows = add_list(gr, browser, chosen, "The farthest from the others first")

    def compared(speaker: str | None) -> list[Any]:
        try:
            view, farthest = browser.voices(speaker or "")
        except VoxBlink2Error as error:
            return [views.problem(str(error)), gr.Radio(choices=[], value=None)]
        choices = [(f"{cosine:.3f} · {key.name}", key.name) for key, cosine in farthest]
        return [view, gr.Radio(choices=choices, value=None)]

    for event in (compare.click, chosen.speaker.submit):
        event(
            compared,
            chosen.speaker,
            [pictures, rows],
            show_progress="minimal",
            api_visibility="private",
        )


def _add_coverage(gr: Any, browser: StoreBrowser, chosen: ChosenUtterance, tab: Any) -> None:
    del chosen
    again = gr.Button("Count again")
    view = gr.HTML("", elem_classes="voxblink2")

    def coverage() -> str:
        try:
            return browser.coverage()
        except VoxBlink2Error as error:
            return views.problem(str(error))

    for event in (tab.select, again.click):
        event(coverage, None, view, show_progress="minimal", api_visibility="private")


# -- Marks -----------------------------------------------------------------------------------------


def _add_marks(gr: Any, browser: StoreBrowser, chosen: ChosenUtterance, tab: Any) -> None:
    add_marks(gr, browser, chosen.marking, chosen.name, tab)


_TABS = {
    "Search": _add_search,
    "Suspicious": _add_suspects,
    "Voices": _add_voices,
    "Coverage": _add_coverage,
    "Marks": _add_marks,
}
