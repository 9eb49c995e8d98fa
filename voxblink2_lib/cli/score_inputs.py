"""Where ``score`` has its embeddings from: a file, or a model and audio."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from voxblink2_lib.cli.models import add_embed_arguments, embed_options
from voxblink2_lib.cli.terminal import write_message
from voxblink2_lib.errors import ScoringError

if TYPE_CHECKING:
    from voxblink2_lib.scoring.embeddings import Embeddings
from collections.abc import Sequence
from typing import TYPE_CHECKING


def add_embeddings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where embeddings are, or what makes them."""
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        help="Parquet; .npy or .safetensors with a list of names beside it; Kaldi .scp or .ark; a "
        "pickled dict. With --model: where to keep them, by default in the cache",
    )
    parser.add_argument(
        "--names", metavar="FILE", help="names of the rows of .npy or .safetensors, one a line"
    )
    add_embed_arguments(parser, required=False)
    parser.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="what to do about utterances without an embedding; default: %(default)s",
    )


def check_sources(options: argparse.Namespace) -> None:
    """Refuse what does not say, or says twice, where embeddings come from."""
    if options.model is None:
        for name in ("audio", "window", "workers"):
            if getattr(options, name) is not None:
                raise ScoringError(f"--{name} goes with the model that embeds: --model MODEL.")
        if options.embeddings is None:
            raise ScoringError(
                "Say where the embeddings are, --embeddings FILE, or what makes them: "
                "--model MODEL --wav-scp FILE."
            )
    elif options.audio is None:
        raise ScoringError("--model needs audio to embed: --wav-scp FILE.")
    elif options.names is not None:
        raise ScoringError("--names goes with embeddings that are there, not with --model.")


def embeddings_of(options: argparse.Namespace, names: Iterable[str]) -> Embeddings:
    """Return embeddings from a file, or of these utterances from a model."""
    if options.model is not None:
        return read_file(str(_embed_wanted(options, names)), None)
    return read_file(options.embeddings, options.names)


def read_file(path: str, names: str | None) -> Embeddings:
    """Read a file of embeddings, and say so."""
    from voxblink2_lib.scoring.embeddings import read_embeddings

    write_message(f"Reading {path}")
    return read_embeddings(path, names=names)


def _embed_wanted(options: argparse.Namespace, names: Iterable[str]) -> Path:
    """Embed the utterances of some lists; a finished run's file is found again."""
    from voxblink2_lib.embedding.run import embed
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.embeddings import utterance_key

    wanted = {utterance_key(name) for name in names}
    made = embed(
        options.audio,
        options.embeddings,
        embed_options(options),
        workers=options.workers,
        keep=lambda name: utterance_key(name) in wanted,
        progress=show_progress,
    )
    write_message(f"Embeddings: {made.utterances:,} in {made.out}, kept for the next run")
    if made.rejects:
        write_message(
            f"{made.rejected:,} utterances could not be embedded; {made.rejects} says why"
        )
    return made.out


# -- shared -----------------------------------------------------------------------------------


def missing_lines(missing: Sequence[str]) -> list[str]:
    """Return the lines that list what has no embedding."""
    if not missing:
        return []
    return [f"Missing   {len(missing):,} utterances have no embedding, such as {missing[0]}"]


def add_plot_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the file of the plot."""
    parser.add_argument("--plot", metavar="FILE", help=f"draw {what}: .png, .pdf or .svg")
