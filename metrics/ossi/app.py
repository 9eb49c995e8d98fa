"""The page of this metric in a Space of the Hugging Face Hub."""

from pathlib import Path

from voxblink2_lib.scoring.metric_page import metric_page

PROBES = {
    "predictions": [[2.0, 1.0], [1.0, 3.0], [3.0, 2.0], [-1.0, 1.0]],
    "references": ["anna", "bert", "carl", "dora"],
}
GALLERY = {
    "gallery": [[1.0, 0.0], [0.0, 1.0]],
    "gallery_labels": ["anna", "bert"],
}

if __name__ == "__main__":
    metric_page(
        Path(__file__).parent,
        tables=[PROBES, GALLERY],
        choices={
            "method": ["exact", "voxblink2"],
            "enrolment": ["mean", "normalized-mean", "max"],
        },
    ).launch()
