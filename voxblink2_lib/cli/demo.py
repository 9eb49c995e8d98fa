"""The command ``demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_config_argument, add_workers_argument
from voxblink2_lib.cli.terminal import DONE, add_command, write_result

if TYPE_CHECKING:
    from voxblink2_lib.demo.training import TrainingDemoResult


def _demo(options: argparse.Namespace) -> int:
    from voxblink2_lib.demo.corpus import run_corpus_demo

    out = Path(options.out).absolute()
    corpus = run_corpus_demo(out, config=options.config, workers=options.workers)
    record, lines = corpus.as_json(), corpus.lines()
    if options.train:
        training = _train(out, options.config)
        record["training"] = training.as_json()
        lines += ["", *training.lines()]
    write_result(options, record, lines)
    return DONE


def _train(out: Path, config: str) -> TrainingDemoResult:
    import torch

    from voxblink2_lib.demo.training import run_training_demo

    # Two threads gain a tenth; where other work has the cores, they take ten times as long.
    torch.set_num_threads(1)
    return run_training_demo(out / "store", out, config=config)


def add_demo_command(commands: Any) -> None:
    """Add the command ``demo``."""
    does = "run everything on a small built-in release, from real downloads to a dataset"
    parser = add_command(commands, "demo", _demo, does, "voxblink2 demo --out voxblink2-demo")
    parser.add_argument(
        "--out",
        default="voxblink2-demo",
        metavar="DIR",
        help="folder for the store, clips and an image; default: %(default)s",
    )
    add_config_argument(parser)
    parser.add_argument(
        "--train",
        action="store_true",
        help="then train a small model and score it before and after; a minute on two cores",
    )
    add_workers_argument(parser)
