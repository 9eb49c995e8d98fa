"""The utterance that is chosen on the page of a store, and the lists in which it is.

Lists are groups of radio buttons: arrow keys walk through them, and each utterance is shown as soon
as it is reached. What is shown of it is HTML of ours, with the browser's own players.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from voxblink2_lib.browse import views
from voxblink2_lib.browse.browser import StoreBrowser, named
from voxblink2_lib.browse.page_marks import Marking, update_one
from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.report.markup import Markup

_NOTHING_CHOSEN = Markup("<p>Choose an utterance in a list; it is shown here.</p>")


@dataclass(frozen=True, slots=True)
class ChosenUtterance:
    """Components that several lists share. They are rendered where they belong.

    Attributes:
        name: state: its name; empty if none is chosen.
        speaker: a box with the speaker to compare.
        details: all that is shown of it.
        marking: its marks, and all others.
    """

    name: Any
    speaker: Any
    details: Any
    marking: Marking

    @classmethod
    def of(cls, gr: Any, browser: StoreBrowser) -> ChosenUtterance:
        """Make the components, of which nothing is shown yet."""
        return cls(
            name=gr.State(""),
            speaker=gr.Textbox(label="Speaker", max_lines=1, render=False),
            details=gr.HTML(_NOTHING_CHOSEN, elem_classes="voxblink2", render=False),
            marking=Marking.of(gr, browser),
        )


def add_list(gr: Any, browser: StoreBrowser, chosen: ChosenUtterance, label: str) -> Any:
    """Add an empty list of utterances, of which the chosen one is shown."""
    rows = gr.Radio([], label=label, elem_classes="utterances")

    def shown(name: Any) -> list[Any]:
        details, known, speaker = _show(browser, name)
        return [details, known, speaker, *update_one(gr, browser, known)]

    rows.input(
        shown,
        rows,
        [chosen.details, chosen.name, chosen.speaker, *chosen.marking.of_one],
        # Of a list that a search has replaced meanwhile, Gradio would not take the choice.
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return rows


def _show(browser: StoreBrowser, name: Any) -> tuple[str, str, str]:
    """Return what is shown of an utterance, its name, and its speaker."""
    if not name or not isinstance(name, str):
        return _NOTHING_CHOSEN, "", ""
    try:
        return browser.utterance(name), name, named(name).speaker_id
    except VoxBlink2Error as error:
        return views.problem(str(error)), "", ""
