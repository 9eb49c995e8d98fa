"""Marks on the page of a store: buttons below each utterance, and a tab with all marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from voxblink2_lib.browse import views
from voxblink2_lib.browse.browser import StoreBrowser, named
from voxblink2_lib.browse.marks import Mark
from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.report.markup import Markup

_SCOPES = {"its video": "video", "its speaker": "speaker", "this utterance alone": "utterance"}
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, slots=True)
class Marking:
    """Components of marks. They are rendered where they belong.

    Attributes:
        note: by which marks the chosen utterance is left out.
        mark: the button that marks it.
        unmark: the button that takes its marks away.
        table: all marks.
        present: one of them, to be taken away.
        save: the button that writes the file.
        remove: the button that takes one away.
    """

    note: Any
    mark: Any
    unmark: Any
    table: Any
    present: Any
    save: Any
    remove: Any

    @classmethod
    def of(cls, gr: Any, browser: StoreBrowser) -> Marking:
        """Make the components. A button that would do nothing is not enabled."""
        off = {"interactive": False, "render": False}
        return cls(
            note=gr.HTML("", elem_classes="voxblink2", render=False),
            mark=gr.Button("Mark", **off),
            unmark=gr.Button("Take its marks away", **off),
            table=gr.HTML(_table(browser), elem_classes="voxblink2", render=False),
            present=gr.Dropdown([], label="Mark to take away", render=False),
            save=gr.Button("Save", variant="primary", **off),
            remove=gr.Button("Take away", **off),
        )

    @property
    def of_one(self) -> list[Any]:
        """What :func:`update_one` has values for."""
        return [self.note, self.mark, self.unmark]

    @property
    def of_all(self) -> list[Any]:
        """What :func:`update_all` has values for."""
        return [*self.of_one, self.table, self.present, self.save, self.remove]


def update_one(gr: Any, browser: StoreBrowser, name: str) -> list[Any]:
    """Return the marks of an utterance as they are now, and what can be done about them."""
    marks = browser.marks.on(named(name)) if name else []
    buttons = [gr.Button(interactive=bool(each)) for each in (name, marks)]
    return [views.marks_on(marks), *buttons]


def update_all(gr: Any, browser: StoreBrowser, name: str) -> list[Any]:
    """Return what :func:`update_one` returns, and all marks."""
    names = [mark.name for mark in browser.marks.all]
    return [
        *update_one(gr, browser, name),
        _table(browser),
        gr.Dropdown(choices=names, value=None),
        gr.Button(interactive=not browser.marks.is_saved),
        gr.Button(interactive=False),
    ]


def _table(browser: StoreBrowser) -> Markup:
    marks = browser.marks
    return views.marks_view(marks.all, str(marks.file), is_saved=marks.is_saved)


def add_marking(gr: Any, browser: StoreBrowser, marking: Marking, name: Any) -> None:
    """Add what marks the utterance that is shown.

    Args:
        gr: Gradio.
        browser: the store.
        marking: the components.
        name: state: the name of the utterance; empty if none is shown.
    """
    # Gradio takes a value such as "video" for the name of one of its own texts.
    scope = gr.Radio(list(_SCOPES), label="Leave out", value=next(iter(_SCOPES)))
    reason = gr.Textbox(label="Why", max_lines=1)
    with gr.Row():
        marking.mark.render()
        marking.unmark.render()

    def marked(name: str, scope: str, reason: str | None) -> list[Any]:
        note: Markup | None = None
        if name:
            try:
                browser.marks.add(Mark.of(named(name), _SCOPES.get(scope, scope), reason or ""))
            except VoxBlink2Error as error:
                note = views.problem(str(error))
        present, *others = update_all(gr, browser, name)
        return [note or present, *others]

    def unmarked(name: str) -> list[Any]:
        if name:
            for present in browser.marks.on(named(name)):
                browser.marks.remove(present.name)
        return update_all(gr, browser, name)

    marking.mark.click(marked, [name, scope, reason], marking.of_all, **_QUIET)
    reason.submit(marked, [name, scope, reason], marking.of_all, **_QUIET)
    marking.unmark.click(unmarked, name, marking.of_all, **_QUIET)


def add_marks(gr: Any, browser: StoreBrowser, marking: Marking, name: Any, tab: Any) -> None:
    """Add all marks.

    Args:
        gr: Gradio.
        browser: the store.
        marking: the components.
        name: as of :func:`add_marking`.
        tab: in which they are.
    """
    for part in (marking.save, marking.table, marking.present, marking.remove):
        part.render()

    def shown(name: str) -> list[Any]:
        return update_all(gr, browser, name)

    def saved(name: str) -> list[Any]:
        update = shown(name)
        try:
            browser.marks.save()
        except VoxBlink2Error as error:
            update[marking.of_all.index(marking.table)] = views.problem(str(error))
            return update
        return shown(name)

    def removed(mark: Any, name: str) -> list[Any]:
        if isinstance(mark, str):
            browser.marks.remove(mark)
        return shown(name)

    tab.select(shown, name, marking.of_all, **_QUIET)
    marking.save.click(saved, name, marking.of_all, **_QUIET)
    # The mark may be gone by now, and Gradio would not take it.
    raw = {"preprocess": False, **_QUIET}
    marking.present.input(
        lambda mark: gr.Button(interactive=bool(mark)), marking.present, marking.remove, **raw
    )
    marking.remove.click(removed, [marking.present, name], marking.of_all, **raw)
