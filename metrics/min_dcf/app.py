"""The page of this metric in a Space of the Hugging Face Hub."""

from pathlib import Path

from voxblink2_lib.scoring.metric_page import metric_page

SCORES = {
    "predictions": [0.2, 0.7, 0.4, 0.9, 0.6, 0.5],
    "references": [0, 0, 0, 1, 1, 1],
}

if __name__ == "__main__":
    metric_page(
        Path(__file__).parent,
        tables=[SCORES],
        numbers={"p_target": 0.01, "c_miss": 1.0, "c_fa": 1.0},
    ).launch()
