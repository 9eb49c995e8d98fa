"""The page of a store, made of Gradio's components. It is the only file that knows Gradio.

Lists are groups of radio buttons: arrow keys walk through them, and each utterance is shown as soon
as it is reached. What is shown of it is HTML of ours, with the browser's own players.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from voxblink2_lib.browse import views
from voxblink2_lib.browse.browser import StoreBrowser, named
from voxblink2_lib.browse.marks import Mark
from voxblink2_lib.browse.query import CLASSES, Cursor, ListedUtterance, Query
from voxblink2_lib.browse.search import ROWS_A_PAGE
from voxblink2_lib.browse.suspects import DESCRIPTIONS, LookCursor
from voxblink2_lib.errors import DependencyError, VoxBlink2Error
from voxblink2_lib.progress import counted
from voxblink2_lib.report.markup import Markup, fill

_SCOPES = {"its video": "video", "its speaker": "speaker", "this utterance alone": "utterance"}
_NOTHING_CHOSEN = Markup("<p>Choose an utterance in a list; it is shown here.</p>")


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


@dataclass(frozen=True, slots=True)
class _Parts:
    """Components that several lists share.

    Attributes:
        chosen: state: the name of the utterance that is shown.
        details: all that is shown of it.
        speaker: the speaker to compare.
    """

    chosen: Any
    details: Any
    speaker: Any


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
                chosen = gr.State("")
                speaker = gr.Textbox(label="Speaker", max_lines=1, render=False)
                details = gr.HTML(_NOTHING_CHOSEN, elem_classes="voxblink2", render=False)
                parts = _Parts(chosen, details, speaker)
                with gr.Tabs():
                    for name, add in _TABS.items():
                        with gr.Tab(name) as tab:
                            add(gr, browser, parts, tab)
            with gr.Column(scale=6, min_width=380):
                details.render()
                _add_marking(gr, browser, parts)
    return page


def _head(browser: StoreBrowser) -> Markup:
    return fill(
        "<h1>Store $store</h1><p>Configuration $config. Nothing is written into the store.</p>",
        store=str(browser.store.root),
        config=browser.config,
    )


def _show(browser: StoreBrowser, name: Any) -> tuple[str, str, str]:
    """Return what is shown of an utterance, its name, and its speaker."""
    if not name or not isinstance(name, str):
        return _NOTHING_CHOSEN, "", ""
    try:
        return browser.utterance(name), name, named(name).speaker_id
    except VoxBlink2Error as error:
        return views.problem(str(error)), "", ""


def _add_list(gr: Any, browser: StoreBrowser, parts: _Parts, label: str) -> Any:
    """Add an empty list of utterances, of which the chosen one is shown."""
    rows = gr.Radio([], label=label, elem_classes="utterances")
    rows.input(
        lambda name: _show(browser, name),
        rows,
        [parts.details, parts.chosen, parts.speaker],
        # Of a list that a search has replaced meanwhile, Gradio would not take the choice.
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return rows


# -- Search ----------------------------------------------------------------------------------------


def _add_search(gr: Any, browser: StoreBrowser, parts: _Parts, tab: Any) -> None:
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
    rows = _add_list(gr, browser, parts, "Utterances")
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


def _add_suspects(gr: Any, browser: StoreBrowser, parts: _Parts, tab: Any) -> None:
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
    rows = _add_list(gr, browser, parts, "Suspicious utterances")
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


def _add_voices(gr: Any, browser: StoreBrowser, parts: _Parts, tab: Any) -> None:
    del tab
    parts.speaker.render()
    compare = gr.Button("Compare utterances", variant="primary")
    pictures = gr.HTML("", elem_classes="voxblink2")
    rows = _add_list(gr, browser, parts, "The farthest from the others first")

    def compared(speaker: str | None) -> list[Any]:
        try:
            view, farthest = browser.voices(speaker or "")
        except VoxBlink2Error as error:
            return [views.problem(str(error)), gr.Radio(choices=[], value=None)]
        choices = [(f"{cosine:.3f} · {key.name}", key.name) for key, cosine in farthest]
        return [view, gr.Radio(choices=choices, value=None)]

    for event in (compare.click, parts.speaker.submit):
        event(
            compared,
            parts.speaker,
            [pictures, rows],
            show_progress="minimal",
            api_visibility="private",
        )


def _add_coverage(gr: Any, browser: StoreBrowser, parts: _Parts, tab: Any) -> None:
    del parts
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


def _add_marking(gr: Any, browser: StoreBrowser, parts: _Parts) -> None:
    """Add what marks the utterance that is shown."""
    # Gradio takes a value such as "video" for the name of one of its own texts.
    scope = gr.Radio(list(_SCOPES), label="Leave out", value=next(iter(_SCOPES)))
    reason = gr.Textbox(label="Why", max_lines=1)
    with gr.Row():
        mark = gr.Button("Mark")
        unmark = gr.Button("Take its marks away")

    def marked(name: str, scope: str, reason: str | None) -> str:
        if name:
            try:
                browser.marks.add(Mark.of(named(name), _SCOPES.get(scope, scope), reason or ""))
            except VoxBlink2Error as error:
                return views.problem(str(error))
        return _show(browser, name)[0]

    def unmarked(name: str) -> str:
        if name:
            for present in browser.marks.on(named(name)):
                browser.marks.remove(present.name)
        return _show(browser, name)[0]

    options = {"outputs": parts.details, "show_progress": "hidden", "api_visibility": "private"}
    mark.click(marked, [parts.chosen, scope, reason], **options)
    reason.submit(marked, [parts.chosen, scope, reason], **options)
    unmark.click(unmarked, parts.chosen, **options)


def _add_marks(gr: Any, browser: StoreBrowser, parts: _Parts, tab: Any) -> None:
    del parts
    save = gr.Button("Save", variant="primary")
    view = gr.HTML(_marks(browser), elem_classes="voxblink2")
    present = gr.Dropdown([], label="Mark to take away")
    remove = gr.Button("Take away")

    def shown() -> list[Any]:
        names = [mark.name for mark in browser.marks.all]
        return [_marks(browser), gr.Dropdown(choices=names, value=None)]

    def saved() -> list[Any]:
        try:
            browser.marks.save()
        except VoxBlink2Error as error:
            return [views.problem(str(error)), gr.Dropdown()]
        return shown()

    def removed(name: Any) -> list[Any]:
        if isinstance(name, str):
            browser.marks.remove(name)
        return shown()

    options = {"outputs": [view, present], "show_progress": "hidden", "api_visibility": "private"}
    tab.select(shown, None, **options)
    save.click(saved, None, **options)
    remove.click(removed, present, preprocess=False, **options)  # it may be gone by now


def _marks(browser: StoreBrowser) -> Markup:
    marks = browser.marks
    return views.marks_view(marks.all, str(marks.file), is_saved=marks.is_saved)


_TABS = {
    "Search": _add_search,
    "Suspicious": _add_suspects,
    "Voices": _add_voices,
    "Coverage": _add_coverage,
    "Marks": _add_marks,
}
