"""Prove that voxblink2.py runs as a script of datasets 3.6, the last version that runs any.

Run by ``make compat`` in an environment of its own; exits with 0 when everything holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = 48

CHECK = """
import datasets, io, os, soundfile, sys
from datasets import load_dataset

assert datasets.__version__.startswith("3.6."), datasets.__version__
path, store, cache = sys.argv[1:4]
if len(sys.argv) > 4:
    import voxblink2
options = dict(data_dir="demo", store=store, cache_dir=cache, split="train")
if path != "voxblink2" or len(sys.argv) == 4:
    options["trust_remote_code"] = True
rows = load_dataset(path, "audio", **options)
assert len(rows) == {rows}, len(rows)
assert rows.features["audio"].sampling_rate == 16000
assert rows.column_names[-2:] == ["transcript", "language"], rows.column_names
assert set(rows["transcript"]) == {None}
row = rows.cast_column("audio", datasets.Audio(decode=False))[0]
samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
assert rate == 16000 and len(samples) == round((row["end_seconds"] - row["start_seconds"]) * rate)
streamed = load_dataset(path, "audio", streaming=True, **options)
assert streamed.num_shards > 1
streamed = streamed.cast_column("audio", datasets.Audio(decode=False))
assert [(row["utterance_id"], row["language"]) for row in streamed] == [
    (name, None) for name in rows["utterance_id"]
]
print(path, "gives", len(rows), "rows with datasets", datasets.__version__)
if len(sys.argv) > 4:
    faces = load_dataset(path, "audio-visual", **options)
    faces = faces.select_columns(["video", "boxes"])
    face = faces.cast_column("video", datasets.Video(decode=False))[:1]
    assert len(faces) == 36 and face["video"][0]["bytes"][4:8] == b"ftyp"
    assert len(face["boxes"][0][0]) == 4
    print(path, "gives", len(faces), "faces")
""".replace("{rows}", str(ROWS))


def main() -> None:
    """Load by the script's path, by the checkout's name, and by a plain import."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # datasets 3.6 takes "voxblink2" for a folder voxblink2 with a script of that name.
        checkout = folder / "voxblink2"
        checkout.mkdir()
        shutil.copy(ROOT / "voxblink2.py", checkout)
        store, cache = str(folder / "store"), str(folder / "cache")
        environment = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        for arguments, folder_of_run in (
            ([str(ROOT / "voxblink2.py"), store, cache], folder),
            (["voxblink2", store, cache], folder),
            (["voxblink2", store, cache, "import"], ROOT),
        ):
            subprocess.run(
                [sys.executable, "-c", CHECK, *arguments],
                cwd=folder_of_run,
                env=environment,
                check=True,
            )


if __name__ == "__main__":
    main()
