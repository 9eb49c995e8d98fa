"""Serve the page of a store to this machine alone, without a word to any other."""

from __future__ import annotations

import os
import socket
from typing import Any

from voxblink2_lib.browse.browser import StoreBrowser
from voxblink2_lib.browse.page import build_page, load_gradio
from voxblink2_lib.browse.style import CSS, HEAD
from voxblink2_lib.errors import UsageError

HOST = "127.0.0.1"
# What Gradio, and the Hub's client below it, would ask others; and what would be published.
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class PageServer:
    """A page that is served. A context manager, which ends it.

    Args:
        browser: the store.
        port: on which; ``None`` for any that is free.

    Attributes:
        url: where the page is.

    Raises:
        DependencyError: Gradio is not installed.
        UsageError: the port is not free.
    """

    def __init__(self, browser: StoreBrowser, *, port: int | None = None) -> None:
        os.environ.update(_SETTINGS)  # read when Gradio is imported
        gradio = load_gradio()
        chosen = free_port(port)
        self._page = build_page(browser)
        # One request of a kind at a time: it is one person who looks.
        self._page.queue(default_concurrency_limit=1)
        self._page.launch(
            server_name=HOST,
            server_port=chosen,
            share=False,
            quiet=True,
            show_error=False,
            prevent_thread_lock=True,
            inbrowser=False,
            ssr_mode=False,
            allowed_paths=[],
            footer_links=[],
            enable_monitoring=False,
            theme=_theme(gradio),
            css=CSS,
            head=HEAD,
            run_history=False,
            app_kwargs={"middleware": _middleware()},
        )
        self.url = f"http://{HOST}:{chosen}/"

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._page.close(verbose=False)


def _theme(gradio: Any) -> Any:
    """Return a theme with the system's fonts, and colours that can be read.

    The default one fetches its fonts from elsewhere, and its buttons, tabs and hints have a
    contrast of 1.9 to 3.6; WCAG 2.2 (1.4.3) demands 4.5.
    """
    theme = gradio.themes.Default(
        primary_hue="teal",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    shades = {"background_fill": "*primary_700", "background_fill_hover": "*primary_800"}
    buttons = {f"button_primary_{part}": shade for part, shade in shades.items()}
    return theme.set(
        **buttons,
        **{f"{name}_dark": shade for name, shade in buttons.items()},
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_600",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def _middleware() -> list[Any]:
    """Return what refuses requests for other names: a site may let its own name point here."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])]


def free_port(port: int | None) -> int:
    """Return a port that is free: the one that is named, or any.

    Raises:
        UsageError: it is not free.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise UsageError(
                f"Port {port} of {HOST} cannot be used ({error.strerror}). Name another one with "
                "--port, or leave it out for any that is free."
            ) from error
        return int(probe.getsockname()[1])
