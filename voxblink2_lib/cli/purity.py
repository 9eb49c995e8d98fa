"""The command that judges the speakers' labels by embeddings: ``purity``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from voxblink2_lib.cli.arguments import add_config_argument, store_path
from voxblink2_lib.cli.terminal import DONE, add_command, write_result

_LISTS = {
    "far.csv": ("Far", "utterances are farther from their speaker than cosine {far:.3f}"),
    "two_voices.csv": ("Mixed", "speakers have two voices"),
    "same_voice.csv": ("Same", "pairs of speakers are nearer than cosine {near:.3f}: one voice"),
    "exclude.txt": ("Exclude", "videos and speakers, for exclude"),
}


def _purity(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.recipes.purity import judge_corpus, write_lists
    from voxblink2_lib.training import Corpus

    store, folder = store_path(options), Path(options.out).expanduser().absolute()
    corpus = Corpus.open(store, options.config)
    judged = judge_corpus(
        corpus,
        options.embeddings,
        names=options.names,
        far=options.far,
        near=options.near,
        progress=show_progress,
    )
    counts = write_lists(judged, folder)
    purity = judged.purity
    thresholds = {"far": purity.far, "near": purity.near}
    unjudged = int((purity.own != purity.own).sum())  # NaN
    record = {
        **{"store": str(store), "out": str(folder), "utterances": len(judged.corpus)},
        **{"speakers": len(judged.corpus.speakers), "not_embedded": judged.missing},
        **{"not_of_the_store": judged.unknown, "nothing_to_compare_with": unjudged},
        **{name.partition(".")[0]: count for name, count in counts.items()},
        "thresholds": {name: round(float(value), 6) for name, value in thresholds.items()},
    }
    lines = [
        f"Judged   {len(judged.corpus):,} utterances of {len(judged.corpus.speakers):,} speakers; "
        f"{judged.missing:,} of the store have no embedding, {judged.unknown:,} embeddings are of "
        f"none of its utterances, {unjudged:,} have nothing to be compared with",
        *(
            f"{title:<8} {counts[name]:,} {text.format(**thresholds)}: {folder / name}"
            for name, (title, text) in _LISTS.items()
        ),
        f'Load     load_dataset("voxblink2", store={str(store)!r}, '
        f"exclude={str(folder / 'exclude.txt')!r})",
    ]
    write_result(options, record, lines)
    return DONE


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 2.0
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no cosine; expected is a number from -1 to 1."
        )
    return value


def add_purity_command(commands: Any) -> None:
    """Add the command ``purity``."""
    does = (
        "find utterances that are far from their speaker, speakers with two voices, and voices "
        "under two ids, by embeddings; write lists to listen to, and one for exclude"
    )
    example = (
        "voxblink2 embed --model MODEL --audio /data/voxblink2 --out vb2.parquet\n"
        "  voxblink2 purity --embeddings vb2.parquet --store /data/voxblink2"
    )
    parser = add_command(commands, "purity", _purity, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument(
        "--embeddings", required=True, metavar="FILE", help="of the store's utterances, by 'embed'"
    )
    parser.add_argument("--names", metavar="FILE", help="names of the rows of .npy or .safetensors")
    parser.add_argument("--store", metavar="DIR|URL", help="folder of the store, or its URL")
    add_config_argument(parser)
    parser.add_argument(
        "--out", default="purity", metavar="DIR", help="folder of the lists; default: %(default)s"
    )
    parser.add_argument(
        "--far",
        type=_cosine,
        metavar="COSINE",
        help="utterances and groups below are of strangers; default: as many "
        "deviations below cosines with the own speaker as above those with another one",
    )
    parser.add_argument(
        "--near",
        type=_cosine,
        metavar="COSINE",
        help="two speakers from here on are one voice; default: what the halves of 95 of 100 "
        "speakers reach, halved by videos",
    )
