"""The components of `voxblink2 browse` as Gradio has them, without HTML, style and theme of ours.

python bare_gradio.py prints its URL and serves it until it is ended.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from voxblink2_lib.browse.server import HOST


def build(gr: Any) -> Any:
    """Return the page as ``gradio.Blocks``."""
    with gr.Blocks(title="Bare", analytics_enabled=False) as page:
        gr.HTML("<h1>A page</h1><p>A text.</p>")
        with gr.Row():
            with gr.Column(), gr.Tabs():
                with gr.Tab("Inputs"):
                    _add_inputs(gr)
                with gr.Tab("Lists"):
                    _add_lists(gr)
            with gr.Column():
                gr.HTML("<h2>A part</h2><p>A text.</p>")
    return page


def _add_inputs(gr: Any) -> None:
    gr.State("")
    gr.Textbox(label="A line", placeholder="What may be written", max_lines=1)
    gr.Dropdown(["one", "two"], label="Some of them", multiselect=True)
    gr.Dropdown([], label="None yet")
    with gr.Row():
        gr.Button("First", variant="primary")
        gr.Button("Second")
        gr.Button("Third", interactive=False)


def _add_lists(gr: Any) -> None:
    gr.Radio([], label="Empty")
    gr.Radio(["one", "two"], label="One of them", value="one")


def main() -> None:
    """Serve the page."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    import gradio

    page = build(gradio)
    page.launch(
        server_name=HOST,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        enable_monitoring=False,
    )
    sys.stdout.write(f"{page.local_url}\n")
    sys.stdout.flush()
    page.block_thread()


if __name__ == "__main__":
    main()
