"""The page of this metric in a Space of the Hugging Face Hub."""

from pathlib import Path

from voxblink2_lib.scoring.metric_page import metric_page

if __name__ == "__main__":
    metric_page(Path(__file__).parent).launch()
