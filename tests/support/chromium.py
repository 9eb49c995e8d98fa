"""A real browser without a display. Chromium is a program of the system."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

PROGRAM = os.environ.get("CHROMIUM") or shutil.which("chromium")
# How long a page may take on a machine that has other work.
SECONDS = 100.0


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Start the browser, and end it. Playwright is imported here, for few environments have it."""
    from playwright.sync_api import sync_playwright

    assert PROGRAM, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=options)
        yield browser
        browser.close()


def new_context(chromium: Any, *, width: int = 1400, **more: Any) -> Any:
    """Return what windows are opened in, which wait for a machine that has other work."""
    context = chromium.new_context(viewport={"width": width, "height": 1300}, **more)
    context.set_default_timeout(1000 * SECONDS)
    return context


class Overheard:
    """What a window says on its console, and asks for.

    Args:
        window: from its beginning.

    Attributes:
        window: the window.
        said: a line for each message, which begins with its kind.
        asked: each URL.
    """

    def __init__(self, window: Any) -> None:
        self.window = window
        self.said: list[str] = []
        self.asked: list[str] = []
        window.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        window.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        window.on("request", lambda request: self.asked.append(request.url))

    @property
    def faults(self) -> list[str]:
        """What it said that is a fault."""
        return [text for text in self.said if text.startswith(("error", "warning"))]

    def foreign(self, url: str) -> list[str]:
        """Return what it asked of others than a server."""
        return [each for each in self.asked if not each.startswith((url, "data:", "blob:"))]
