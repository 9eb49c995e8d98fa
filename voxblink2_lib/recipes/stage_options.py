"""Options of ``examples/train_speaker.py``: what there is, what fits together, what a run keeps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.recipes.stages import STAGES
from voxblink2_lib.recipes.training import ARCHITECTURES

# Options that a run may go on with other values of.
FREE = {
    *("workers", "save_every", "score_every", "log_every", "out", "store", "trials", "audio"),
    *("validation", "corpus"),
}


def parser(document: str) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        document: docstring of the script, with an example at its end.
    """
    description, _, example = document.partition("Example:")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--store", required=True, metavar="DIR|URL", help="a store with sealed shards")
    add("--corpus", metavar="NAME", help="whose speakers it has; default: VoxBlink2 by its ids")
    add("--out", required=True, metavar="DIR", help="checkpoints, logs, labels, report and model")
    add("--stage", type=_stage_name, choices=STAGES, default="pretrain")
    add("--from", dest="origin", metavar="DIR", help="--out of the stage before, or a model")
    add("--model", choices=ARCHITECTURES, help="network of --stage pretrain; default: resnet34")
    add("--epochs", type=_whole, metavar="N", help="default: 150, 50 and 5, by the stage")
    add("--batch-size", type=_whole, default=64, metavar="N", help="of one process")
    add("--accumulate", type=_whole, default=1, metavar="N", help="batches of a step")
    add("--sampler", choices=["shuffle", "balanced", "speakers"], default="shuffle")
    add("--per-speaker", type=_whole, metavar="N", help="crops of a speaker an epoch, for balanced")
    add("--crop-seconds", type=float, metavar="S", help="default: 2, 2 and 6")
    add("--margin", type=float, help="the final one; default: 0.2, 0.2 and 0.5")
    add("--speeds", type=float, nargs="+", help="each is a class of its own; default: 1.0 0.9 1.1")
    add("--optimizer", choices=["sgd", "adamw"], default="sgd")
    add(
        "--rate", type=float, help="for 64 crops a step; default: 0.1, 5e-3, 1e-4; AdamW 0.03 of it"
    )
    add("--average", type=_whole, metavar="N", help="last epochs; default: 1/15, 3/50, 1/5 of all")
    add("--sub-centers", type=_whole, metavar="N", help="centres of a speaker in the head")
    add("--top-k", type=int, metavar="N", help="speakers that are penalized most; default: 0")
    add("--top-k-penalty", type=float, metavar="RADIANS")
    add("--mixed-precision", choices=["no", "fp16", "bf16"], default="no")
    _add_data_options(add)
    return parser


def _add_data_options(add: Callable[..., object]) -> None:
    for name in ("noise", "music", "babble"):
        add(f"--{name}", metavar="DIR", help="audio files to add, such as a folder of MUSAN")
    add("--rooms", metavar="DIR", help="impulse responses, such as RIRS_NOISES")
    add("--codecs", action="store_true", help="encode and decode some crops")
    add("--on-damaged", choices=["raise", "skip"], default="raise", help="clips that do not decode")
    add("--hold-out", choices=["speakers", "videos"], default="speakers")
    add("--validation", metavar="FILE", help="speakers to hold out, as voxblink2 split wrote it")
    add("--held-out-speakers", type=_whole, metavar="N", help="default: a twentieth, at most 200")
    add("--trials", metavar="LIST", help="trials to score at the end, such as Vox1-O")
    add("--audio", metavar="DIR", help="a store or a folder with the utterances of --trials")
    add("--score-every", type=_whole, default=2000, metavar="STEPS")
    add("--save-every", type=_whole, default=500, metavar="STEPS")
    add("--log-every", type=_whole, default=20, metavar="STEPS")
    add("--workers", type=int, default=2, metavar="N", help="processes that decode")
    add("--seed", type=int, default=0)


def _stage_name(name: str) -> str:
    if name == "train":
        raise argparse.ArgumentTypeError("the stage 'train' is called 'pretrain' now")
    return name


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Refuse options that do not fit each other; fill in the defaults of the stage.

    Args:
        args: what :func:`parser` parsed; changed in place.
    """
    is_first = args.stage == "pretrain"
    if is_first != (args.origin is None):
        raise TrainingError(
            "--stage finetune and lmft need --from DIR, the --out of the stage before or a model; "
            f"pretrain takes none. Got --stage {args.stage} and --from {args.origin}."
        )
    if not is_first and args.model:
        raise TrainingError("--model is of --stage pretrain: later stages have that of --from.")
    if (args.trials is None) != (args.audio is None):
        raise TrainingError("--trials LIST and --audio DIR go together: name both, or none.")
    stage = STAGES[args.stage]
    args.epochs = args.epochs or stage.epochs
    defaults = {
        "model": "resnet34" if is_first else None,
        "crop_seconds": stage.crop_seconds,
        "margin": stage.margin,
        "speeds": list(stage.speeds),
        "rate": stage.first_rate(args.optimizer),
        "average": stage.averaged_epochs(args.epochs),
        # The published large-margin stage is without this penalty.
        "top_k": 0 if args.stage == "lmft" else None,
    }
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that a run keeps to its end.

    Args:
        args: what :func:`complete` returned.
    """
    return {name: value for name, value in sorted(vars(args).items()) if name not in FREE}
