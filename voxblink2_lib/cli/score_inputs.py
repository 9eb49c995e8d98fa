"""Embeddings for ``score``: from a file, or computed by a model from audio."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxblink2_lib.cli.models import add_embed_arguments, embed_options, input_options
from voxblink2_lib.cli.terminal import write_message
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.scoring.contamination import Overlap
    from voxblink2_lib.scoring.embeddings import Embeddings


def add_embeddings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a file of embeddings, or for a model and audio."""
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        help="Parquet; .npy or .safetensors with a list of names beside it, or with names inside; "
        ".npz; Kaldi .scp or .ark; a pickled dict; a saved data set. With --model: where to write "
        "them, by default in the cache",
    )
    parser.add_argument(
        "--names", metavar="FILE", help="names of the rows of .npy or .safetensors, one per line"
    )
    add_embed_arguments(parser, required=False)
    parser.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="what to do about utterances without an embedding; default: %(default)s",
    )


def add_overlap_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that goes on with contaminated lists."""
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="go on with contaminated lists: what is shared is in the output",
    )


def overlap_lines(overlap: Overlap) -> list[str]:
    """Return a line about each kind of contamination or repetition."""
    return [f"Overlap   {text}" for text in overlap.texts]


def add_plot_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the file of the plot."""
    parser.add_argument("--plot", metavar="FILE", help=f"draw {what}: .png, .pdf or .svg")


def check_sources(options: argparse.Namespace) -> None:
    """Refuse options that name no source of embeddings, or two.

    Raises:
        ScoringError: names the option that is missing or does not fit.
    """
    if options.model is None:
        for name in ("audio", "window", "workers"):
            if getattr(options, name) is not None:
                raise ScoringError(f"--{name} goes with the model that embeds: --model MODEL.")
        if options.embeddings is None:
            raise ScoringError(
                "Name a file of embeddings, --embeddings FILE, or a model and audio to compute "
                "them: --model MODEL --wav-scp FILE."
            )
    elif options.audio is None:
        raise ScoringError("--model needs audio to embed: --wav-scp FILE.")
    elif options.names is not None:
        raise ScoringError("--names goes with existing embeddings, not with --model.")


def embeddings_of(
    options: argparse.Namespace, names: Iterable[str], corpus: str | None = None
) -> Embeddings:
    """Return embeddings from a file, or of these utterances from a model."""
    if options.model is not None:
        return read_file(str(_embed(options, names, corpus)), None, corpus)
    return read_file(options.embeddings, options.names, corpus)


def read_file(path: str, names: str | None, corpus: str | None = None) -> Embeddings:
    """Read a file of embeddings and print its name."""
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.embeddings import read_embeddings

    write_message(f"Reading {path}")
    return read_embeddings(path, names=names, corpus=corpus, progress=show_progress)


def _embed(options: argparse.Namespace, names: Iterable[str], corpus: str | None) -> Path:
    """Embed utterances and return the file; that of an earlier complete run is reused."""
    from voxblink2_lib.embedding.run import embed
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.names import name_filter

    made = embed(
        options.audio,
        options.embeddings,
        embed_options(options),
        corpus=corpus,
        workers=options.workers,
        keep=name_filter(names),
        **input_options(options),
        progress=show_progress,
    )
    write_message(f"Embeddings: {made.utterances:,} in {made.out}, kept for the next run")
    if made.rejects:
        rejected = counted(made.rejected, "utterance")
        write_message(f"{rejected} could not be embedded; reasons in {made.rejects}")
    return made.out


def missing_lines(missing: Sequence[str]) -> list[str]:
    """Return a line about utterances without an embedding, if there are any."""
    if not missing:
        return []
    utterances = counted(len(missing), "utterance", "have")
    return [f"Missing   {utterances} no embedding, such as {missing[0]}"]
