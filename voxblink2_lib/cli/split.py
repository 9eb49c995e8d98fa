"""The command that chooses speakers for validation: ``split``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from voxblink2_lib.cli.arguments import add_config_argument, store_path
from voxblink2_lib.cli.status import existing_store
from voxblink2_lib.cli.terminal import DONE, add_command, write_result
from voxblink2_lib.published.manifest import TABLES

_DEFAULT_SPEAKERS = 500


def _split(options: argparse.Namespace) -> int:
    from voxblink2_lib.errors import StoreError
    from voxblink2_lib.release.speaker_split import make_split
    from voxblink2_lib.store.split_views import facts_of, speakers_with_clips
    from voxblink2_lib.store.status import empty_store_message, open_ledger

    store = existing_store(store_path(options), TABLES)
    with open_ledger(store, options.config) as ledger:
        shards = ledger.shards()
    if not shards:
        raise StoreError(empty_store_message(store, options.config))
    speakers = speakers_with_clips(store, options.config, shards)
    within = options.within
    facts = facts_of(store, speakers, within) if within else None
    split = make_split(
        speakers,
        count=options.validation_speakers,
        seed=options.seed,
        within=within,
        facts=facts,
    )
    sides = split.is_validation(speakers, facts)
    chosen = [speaker for speaker, is_chosen in zip(speakers, sides, strict=True) if is_chosen]
    out = Path(options.out).expanduser().absolute()
    split.write(out, chosen)
    record = {
        **{"store": store.place, "out": str(out), "seed": split.seed, "within": within},
        **{"speakers": len(speakers), "validation_speakers": len(chosen)},
    }
    lines = [
        f"Split    {len(chosen):,} of {len(speakers):,} speakers are for validation: {out}",
        f'Load     load_dataset("voxblink2", store={store.place!r}, validation={str(out)!r})',
    ]
    write_result(options, record, lines)
    return DONE


def add_split_command(commands: Any) -> None:
    """Add the command ``split``."""
    does = (
        "choose speakers for validation, by a rule that holds for speakers who come later too, and "
        "write it to a file for load_dataset(..., validation=FILE)"
    )
    example = "voxblink2 split --validation-speakers 500 --seed 1 --store /data/voxblink2"
    parser = add_command(commands, "split", _split, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("--store", metavar="DIR|URL", help="folder of the store, or its URL")
    add_config_argument(parser)
    parser.add_argument(
        "--validation-speakers",
        type=int,
        default=_DEFAULT_SPEAKERS,
        metavar="N",
        help="how many of the speakers that have clips today; default: %(default)s",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="another seed, other speakers; default: %(default)s",
    )
    parser.add_argument(
        "--within",
        choices=("gender", "language"),
        help="take the same share of the speakers of each gender or language; those of whom it is "
        "not known are a group of their own",
    )
    parser.add_argument(
        "--out",
        default="validation.txt",
        metavar="FILE",
        help="the file: its first line is the rule, ids of today follow; default: %(default)s",
    )
