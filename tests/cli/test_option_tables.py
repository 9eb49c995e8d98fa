"""The tables of options in the docs are those that the records declare."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.materialize.request import MaterializeRequest, user_options
from voxblink2_lib.records import options_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "write_option_table.py"))


def test_the_docs_have_the_tables_that_the_script_writes(script: dict[str, Any]) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in script["DOCS"]}
    for page, text in pages.items():
        assert script["with_tables"](text) == text, f"run tools/write_option_table.py for {page}"
    named = [name for text in pages.values() for name in re.findall(r"<!-- options: (\w+)", text)]
    assert sorted(named) == sorted(script["RECORDS"])
    rows = {name for record in script["RECORDS"].values() for name in options_of(record)}
    assert user_options().keys() - rows == options_of(MaterializeRequest).keys()


def test_a_table_that_is_out_of_date_is_replaced(script: dict[str, Any]) -> None:
    page = "before\n<!-- options: clips -->\nold\n<!-- end of options -->\nafter\n"
    written = script["with_tables"](page)
    assert written.startswith("before\n<!-- options: clips -->\n| option | command line |")
    assert written.endswith("|\n<!-- end of options -->\nafter\n")
    assert (
        "| `audio_format` | `--audio-format {flac,wav,opus}` | how audio is encoded | flac |\n"
    ) in written
    assert script["with_tables"](written) == written


def test_a_bar_does_not_end_a_cell(script: dict[str, Any]) -> None:
    assert r"| `--videos ID\|FILE` |" in script["table"](script["RECORDS"]["selection"])
