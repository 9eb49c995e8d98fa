"""The page of a metric in a Space of the Hub: tables of values and options in, the result out.

``evaluate.utils.launch_gradio_widget`` is written for gradio 3, whose ``gradio.inputs`` later
versions do not have, and gradio 3 does not install beside NumPy 2. It also has one table only, and
no options.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import evaluate
from datasets import Value
from evaluate.utils.gradio import parse_readme

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened

# What is in the cells of a column.
CellKind = Literal["number", "text", "list"]
# What the table of a page begins with: the values of each column.
Columns = Mapping[str, Any]


def metric_page(
    folder: Path,
    *,
    tables: Sequence[Columns],
    choices: Mapping[str, Sequence[str]] | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Any:
    """Return the page of a metric, an interface of gradio that ``launch`` shows.

    Its function can be called as ``/compute``, too: see "Use via API" below the page.

    Args:
        folder: has the script of the metric, its card, and the application that calls this.
        tables: values to begin with: of predictions and references, then of further arguments of
            ``compute`` that have the same types.
        choices: the possible values of options, the default first.
        numbers: the default values of options that are numbers.
    """
    import gradio

    (script,) = (path for path in folder.glob("*.py") if path.name != "app.py")
    metric = evaluate.load(str(script))
    kinds = cell_kinds(metric.features)
    options = {
        **{
            name: gradio.Radio(choices=list(values), value=values[0], label=name)
            for name, values in (choices or {}).items()
        },
        **{name: gradio.Number(value=value, label=name) for name, value in (numbers or {}).items()},
    }
    return gradio.Interface(
        fn=_function(
            metric,
            kinds,
            tables,
            list(options),
            # It is the reader's, and no error of the page that belongs in its log.
            functools.partial(gradio.Error, print_exception=False),
        ),
        inputs=[*(_table(gradio, columns, kinds) for columns in tables), *options.values()],
        outputs=gradio.JSON(label=metric.name),
        title=metric.name,
        description=metric.description,
        article=parse_readme(folder / "README.md"),
        api_name="compute",
        flagging_mode="never",
        analytics_enabled=False,
    )


def cell_kinds(features: Any) -> list[CellKind]:
    """Return what is in the cells of predictions and references.

    Args:
        features: of the metric; of several forms, the first counts.
    """
    first = features[0] if isinstance(features, list) else features
    kinds: list[CellKind] = []
    for feature in first.values():
        if not isinstance(feature, Value):
            kinds.append("list")
        else:
            kinds.append("text" if feature.dtype == "string" else "number")
    return kinds


def _table(gradio: Any, columns: Columns, kinds: Sequence[CellKind]) -> Any:
    is_written = ("list", "text")
    return gradio.Dataframe(
        value=[
            [json.dumps(cell) if isinstance(cell, list) else cell for cell in row]
            for row in zip(*columns.values(), strict=True)
        ],
        headers=list(columns),
        datatype=["str" if kind in is_written else "number" for kind in kinds],
        type="array",
        column_count=len(columns),
        interactive=True,
        label=" and ".join(columns),
    )


def _function(
    metric: Any,
    kinds: Sequence[CellKind],
    tables: Sequence[Columns],
    options: Sequence[str],
    error_of_page: Callable[[str], Exception],
) -> Callable[..., Any]:
    """Return what computes the result of filled tables and chosen options."""

    def compute(*filled: Any) -> Any:
        values: dict[str, Any] = {}
        try:
            for columns, rows in zip(tables, filled, strict=False):
                values |= read_table(rows, dict(zip(columns, kinds, strict=True)))
            chosen = zip(options, filled[len(tables) :], strict=True)
            values |= {name: value for name, value in chosen if value is not None}
            return metric.compute(**values)
        except ValueError as error:
            raise error_of_page(str(error)) from error

    return compute


def read_table(
    rows: Sequence[Sequence[Any]], kinds: Mapping[str, CellKind]
) -> dict[str, list[Any]]:
    """Return the columns of a table that somebody has filled in; empty rows are left out.

    Args:
        rows: the cells, numbers or texts.
        kinds: what is in the cells of each column.

    Raises:
        ScoringError: a cell is empty, or not of its kind.

    >>> read_table([["0.5", 1], ["", None]], {"predictions": "number", "references": "number"})
    {'predictions': [0.5], 'references': [1.0]}
    """
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    for number, row in enumerate(rows, start=1):
        if all(map(_is_empty, row)):
            continue
        for cell, (name, kind) in zip(row, kinds.items(), strict=True):
            columns[name].append(_parsed(cell, kind, f"{name} of row {number}"))
    return columns


def _is_empty(cell: Any) -> bool:
    # An empty cell of numbers may be NaN.
    is_nan = isinstance(cell, float) and math.isnan(cell)
    return cell is None or is_nan or not str(cell).strip()


_EXAMPLES: dict[CellKind, str] = {"number": "0.5", "text": "anna", "list": "[0.1, 0.2]"}


def _parsed(cell: Any, kind: CellKind, place: str) -> Any:
    if _is_empty(cell):
        raise ScoringError(f"{place} is empty. Fill it in, or clear the row.")
    text = str(cell).strip()
    try:
        if kind == "text":
            return text
        value = float(text) if kind == "number" else json.loads(text)
        if kind == "list" and not isinstance(value, list):
            raise ValueError
    except ValueError:
        raise ScoringError(
            f"{place} must be a {kind}, such as {_EXAMPLES[kind]}; it is {shortened(text)}."
        ) from None
    return value
