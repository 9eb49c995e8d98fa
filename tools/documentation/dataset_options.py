"""The page of what ``load_dataset("voxblink2", ...)`` takes, made from its configuration."""

from __future__ import annotations

import html

from voxblink2_lib.builder.config import _OPTIONS, _ROW_OPTIONS
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.records import Option, options_of

_HEAD = """\
# load_dataset

`import voxblink2` registers the builder; then `datasets.load_dataset("voxblink2", NAME, ...)` takes
the options below, besides its own (`split`, `streaming`, `num_proc`, `cache_dir` and others).
`NAME` is `"audio"` or `"audio-visual"`. An existing store keeps the options of its clips; their
defaults are those of a new store.

| option | meaning | default |
|---|---|---|
"""


def dataset_page() -> str:
    """Return the page in Markdown."""
    options = {"data_dir": options_of(MaterializeRequest)["data_dir"], **_OPTIONS, **_ROW_OPTIONS}
    return _HEAD + "".join(_row(name, option) for name, option in options.items())


def _row(name: str, option: Option) -> str:
    several = "; one or a list" if option.values in {"repeat", "list"} else ""
    allowed = ", ".join(f"`{choice!r}`" for choice in option.choices)
    meaning = _escaped(f"{option.help}{several}") + (f": {allowed}" if allowed else "")
    return f"| `{name}` | {meaning} | {_escaped(option.default)} |\n"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;")
