"""Where the view of a run is drawn: a terminal, a notebook, or a log."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from voxblink2_lib.progress import Output, clock_text, output_kind

_BAR_LENGTH = 40


class RunState(NamedTuple):
    """What is drawn.

    Attributes:
        finished: number of videos that are finished.
        total: number of all.
        lines: of text, harmless for a terminal.
        at: Unix time.
    """

    finished: int
    total: int
    lines: Sequence[str]
    at: float

    def bar(self) -> str:
        """Return a bar of text."""
        total = max(1, self.total)
        filled = _BAR_LENGTH * self.finished // total
        percent = 100 * self.finished / total
        return f"{'█' * filled}{'░' * (_BAR_LENGTH - filled)} {percent:.1f} %"


class RunScreen(Protocol):
    """Draws the states of a run, one in place of the other.

    Attributes:
        SECONDS: from one state to the next.
    """

    SECONDS: ClassVar[float]

    def draw(self, state: RunState) -> None:
        """Draw a state."""

    def close(self) -> None:
        """Leave the last state where it is."""


class TerminalScreen:
    """The last lines of a terminal."""

    SECONDS: ClassVar[float] = 1.0

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()

    def draw(self, state: RunState) -> None:
        """Draw a state."""
        from rich.text import Text

        # Plain text: a message of a source is no markup.
        self._live.update(Text("\n".join([state.bar(), *state.lines])))
        self._live.refresh()

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


class NotebookScreen:
    """An output of a notebook's cell. A notebook that is saved has its last state."""

    SECONDS: ClassVar[float] = 1.0

    def __init__(self) -> None:
        self._output: Any = None

    def draw(self, state: RunState) -> None:
        """Draw a state."""
        from IPython.display import display

        shown = {
            "text/plain": "\n".join([state.bar(), *state.lines]),
            "text/html": _as_html(state),
        }
        if self._output is None:
            self._output = display(shown, raw=True, display_id=True)
        else:
            self._output.update(shown, raw=True)

    def close(self) -> None:
        """Leave the last state where it is."""


def _as_html(state: RunState) -> str:
    text = html.escape("\n".join(state.lines))
    return (
        f'<progress value="{state.finished}" max="{max(1, state.total)}" style="width: 100%">'
        f"</progress><pre>{text}</pre>"
    )


class LogScreen:
    """A line now and then in a log."""

    SECONDS: ClassVar[float] = 30.0

    def draw(self, state: RunState) -> None:
        """Write a state."""
        sys.stderr.write(f"{clock_text(state.at)}  {'; '.join(state.lines)}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave what is written."""


_SCREENS: dict[Output, type[RunScreen]] = {
    "terminal": TerminalScreen,
    "notebook": NotebookScreen,
    "log": LogScreen,
}


def open_screen() -> RunScreen:
    """Return what fits to where standard error is read."""
    return _SCREENS[output_kind()]()
