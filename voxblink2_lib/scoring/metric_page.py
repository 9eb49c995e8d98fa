"""The page of a metric in a Space of the Hub: a table of values in, the result out.

``evaluate.utils.launch_gradio_widget`` is written for gradio 3, whose ``gradio.inputs`` later
versions do not have, and gradio 3 does not install beside NumPy 2. So the page is made of its
parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evaluate
from evaluate.utils.gradio import (
    infer_gradio_input_types,
    json_to_string_type,
    parse_gradio_data,
    parse_readme,
)


def metric_page(folder: Path, *, second_table: Sequence[str] = ()) -> Any:
    """Return the page of a metric, an interface of gradio that ``launch`` shows.

    Args:
        folder: has the script of the metric, its card, and the application that calls this.
        second_table: names of further arguments of ``compute``, of the same types as predictions
            and references.
    """
    import gradio

    (script,) = (path for path in folder.glob("*.py") if path.name != "app.py")
    metric = evaluate.load(str(script))
    features: Mapping[str, Any] = (
        metric.features[0] if isinstance(metric.features, list) else metric.features
    )
    kinds = infer_gradio_input_types(features.values())
    tables = [list(features), *([list(second_table)] if second_table else [])]

    def compute(*filled: Any) -> Any:
        values: dict[str, Any] = {}
        for table in filled:
            values |= parse_gradio_data(table.copy(), kinds)
        return metric.compute(**values)

    return gradio.Interface(
        fn=compute,
        inputs=[
            gradio.Dataframe(
                headers=names,
                datatype=json_to_string_type(kinds),
                row_count=1,
                column_count=len(names),
                label=" and ".join(names),
            )
            for names in tables
        ],
        outputs=gradio.JSON(label=metric.name),
        title=metric.name,
        description=f"{metric.description}\nLists are written as in JSON: [0.1, 0.2].",
        article=parse_readme(folder / "README.md"),
    )
