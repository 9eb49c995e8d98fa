"""Write the reference pages of the site, which are made from the code, to build/reference.

    python -m documentation.reference

They are: options of ``load_dataset``, the command line, and one page for each public package. The
pages of packages name what is public; mkdocstrings puts the docstrings there.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from documentation.docstrings import PAGES, is_old_name, public_names
from documentation.links import ROOT

FOLDER = ROOT / "build" / "reference"


def main() -> None:
    """Write all pages, in place of those of an earlier call."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.glob("*.md"):
        file.unlink()
    for name, text in reference_pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def reference_pages() -> dict[str, str]:
    """Return the pages in Markdown, by the names of their files."""
    from documentation.command_line import command_line_page
    from documentation.dataset_options import dataset_page

    pages = {"command_line.md": command_line_page(), "load_dataset.md": dataset_page()}
    return pages | {f"{name}.md": package_page(*modules) for name, modules in PAGES.items()}


def package_page(first: str, *others: str) -> str:
    """Return the page of a package, or of some modules of one.

    Args:
        first: the package's name; or that of the first module, whose package gives the title.
        others: names of more modules.
    """
    title = first if not others or first.count(".") == 0 else first.rpartition(".")[0]
    parts = [f"# {title}\n\n"]
    for module in (first, *others):
        parts += _module(module, level=2 if module == title else 3)
    return "".join(parts)


def _module(module: str, *, level: int) -> Iterator[str]:
    if level > 2:
        yield f"## {module}\n\n"
    yield _directive(module, members=False, show_root_heading=False, show_root_toc_entry=False)
    names = public_names(importlib.import_module(module))
    for name, value in names.items():
        if not is_old_name(name, value):
            yield _directive(f"{module}.{name}", heading_level=level)
    old = {name: value.__name__ for name, value in names.items() if is_old_name(name, value)}
    if old:
        yield "\nNames of an earlier version: "
        yield ", ".join(f"`{name}` is `{now}`" for name, now in old.items()) + ".\n\n"


def _directive(identifier: str, **options: object) -> str:
    lines = "".join(f"      {name}: {str(value).lower()}\n" for name, value in options.items())
    return f"::: {identifier}\n    options:\n{lines}\n"


if __name__ == "__main__":
    main()
