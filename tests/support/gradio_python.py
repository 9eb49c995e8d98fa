"""An interpreter that has gradio, which wants an older Pillow than the other tests have."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_VARIABLE = "VOXBLINK2_GRADIO_PYTHON"
_ENVIRONMENT = Path(__file__).parents[2] / ".venv-browse"


def python_with_gradio() -> str:
    """Return the program.

    Raises:
        AssertionError: there is none.
    """
    if importlib.util.find_spec("gradio"):
        return sys.executable
    python = os.environ.get(_VARIABLE) or str(_ENVIRONMENT / "bin" / "python")
    assert Path(python).exists(), (
        f"There is no {python}: `make browse-test` makes it, or {_VARIABLE} names one with gradio."
    )
    return python
