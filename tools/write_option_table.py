"""Write the tables of options in the docs, from the records that declare the options.

    python tools/write_option_table.py

A table is written between the lines ``<!-- options: NAME -->`` and ``<!-- end of options -->``;
``RECORDS`` below has the names. A test fails while the docs differ from what this would write.
"""

from __future__ import annotations

import re
from pathlib import Path

from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import Option, option_string, options_of
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions

ROOT = Path(__file__).resolve().parents[1]
DOCS = (ROOT / "docs" / "usage.md", ROOT / "docs" / "fetching.md")
RECORDS = {"selection": Selection, "clips": ClipOptions, "download": FetchOptions}
_BLOCK = re.compile(
    r"(?P<begin><!-- options: (?P<name>\w+) -->\n).*?(?P<end><!-- end of options -->\n)", re.DOTALL
)


def with_tables(text: str) -> str:
    """Return a page with its tables of options as the records declare them."""
    return _BLOCK.sub(
        lambda block: block["begin"] + table(RECORDS[block["name"]]) + block["end"], text
    )


def table(record: type) -> str:
    """Return the table of a record's options in Markdown."""
    head = "| option | command line | meaning | default |\n|---|---|---|---|\n"
    return head + "".join(_row(name, option) for name, option in options_of(record).items())


def _row(name: str, option: Option) -> str:
    value = f"{{{','.join(option.choices)}}}" if option.choices else option.metavar
    several = "; in Python one or a list" if option.values in {"repeat", "list"} else ""
    written = [option_string(name), *([value] if value else [])]
    cells = (
        f"`{name}`",
        f"`{' '.join(written)}`",
        f"{option.help}{several}",
        option.default,
    )
    return "|" + "|".join(f" {cell} ".replace("|", r"\|") for cell in cells) + "|\n"


def main() -> None:
    """Write the tables."""
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text), encoding="utf-8")


if __name__ == "__main__":
    main()
