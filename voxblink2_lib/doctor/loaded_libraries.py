"""What the compiled libraries of this machine say of themselves.

    python -m voxblink2_lib.doctor.loaded_libraries

prints one JSON object a library: its name, and its facts by their names. Run in a process of its
own, since libraries that do not fit each other may end the process: what was printed before stands.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from voxblink2_lib.errors import first_line

Facts = Mapping[str, str]

# A first import on a slow network disk takes a minute.
_TIME_OUT_SECONDS = 180.0


def load_libraries() -> dict[str, Facts]:
    """Load each library in a process of its own, and return its facts by its name.

    Where one cannot be loaded, its only fact is the ``problem``.
    """
    printed, end = _printed()
    # A library may print lines of its own.
    lines = [line for line in printed.splitlines() if line.startswith('["')]
    facts: dict[str, Facts] = dict(map(json.loads, lines))
    for name in LIBRARIES:
        if name not in facts:
            # The first that is missing ended the process.
            facts[name] = {"problem": end}
            end = "not tried, as the library before it ended the process"
    return facts


def _printed() -> tuple[str, str]:
    """Return what a process prints about the libraries, and how it ended."""
    command = [sys.executable, "-m", "voxblink2_lib.doctor.loaded_libraries"]
    try:
        run = subprocess.run(  # noqa: S603  # this Python
            command, capture_output=True, text=True, check=False, timeout=_TIME_OUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        output: Any = error.stdout or b""  # bytes, whatever `text` is
        text = output if isinstance(output, str) else output.decode(errors="replace")
        # The last line may be half there.
        return text[: text.rfind("\n") + 1], f"not loaded after {_TIME_OUT_SECONDS:g} s"
    last = (run.stderr.strip().splitlines() or [""])[-1]
    return run.stdout, f"loading it ended the process with {run.returncode}. {last}".strip()


# -- Facts of each library -------------------------------------------------------------------------


def pyav_facts() -> Facts:
    """Return the version of PyAV, and those of the FFmpeg that its wheel brings."""
    import av

    versions = {name: _dotted(numbers) for name, numbers in av.library_versions.items()}
    return {"version": av.__version__, "FFmpeg": av.ffmpeg_version_info, **versions}


def torch_facts() -> Facts:
    """Return the version of PyTorch, and its devices."""
    import torch

    facts = {
        "version": torch.__version__,
        "CPU": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "CUDA of the build": torch.version.cuda or "none",
        "CUDA devices": str(torch.cuda.device_count()),
    }
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        facts[f"CUDA device {number}"] = f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
    return facts | {"MPS": "available" if torch.backends.mps.is_available() else "not available"}


def torchcodec_facts() -> Facts:
    """Return the version of torchcodec, and those of the system's FFmpeg that it has loaded."""
    package: Any = importlib.import_module("torchcodec")
    core: Any = importlib.import_module("torchcodec._core")
    loaded = core.get_ffmpeg_library_versions()
    versions = {name: _dotted(numbers) for name, numbers in loaded.items()}
    return {"version": package.__version__, **versions}


def _dotted(numbers: object) -> str:
    return ".".join(map(str, numbers)) if isinstance(numbers, list | tuple) else str(numbers)


# In this order: torchcodec is what most often does not load, and it brings PyTorch.
LIBRARIES: Mapping[str, Callable[[], Facts]] = {
    "PyAV": pyav_facts,
    "PyTorch": torch_facts,
    "torchcodec": torchcodec_facts,
}


def facts_or_problem(probe: Callable[[], Facts]) -> Facts:
    """Return the facts that a probe finds, or why it finds none as the only one."""
    try:
        return probe()
    except Exception as error:  # whatever is broken here
        return {"problem": f"{type(error).__name__}: {first_line(error)}"}


def main() -> None:
    """Print the facts of each library, as soon as they are known."""
    for name, probe in LIBRARIES.items():
        sys.stdout.write(json.dumps([name, facts_or_problem(probe)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
