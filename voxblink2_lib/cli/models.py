"""The commands that use speaker models: ``convert`` and ``embed``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from voxblink2_lib.cli.terminal import DONE, add_command, write_message, write_result
from voxblink2_lib.errors import ModelError
from voxblink2_lib.progress import counted
from voxblink2_lib.published_results import ARCHITECTURE_NAMES

if TYPE_CHECKING:
    from voxblink2_lib.embedding.block_worker import EmbedOptions
    from voxblink2_lib.embedding.run import Embedded
    from voxblink2_lib.models.conversion import Conversion


def _convert(options: argparse.Namespace) -> int:
    import transformers

    from voxblink2_lib.models.card import save
    from voxblink2_lib.models.checkpoint import listed
    from voxblink2_lib.models.conversion import convert_checkpoint

    transformers.utils.logging.disable_progress_bar()  # loading takes a second
    if options.onnx_int16 and not options.onnx:
        raise ModelError("--onnx-int16 goes with --onnx, which is missing.")
    write_message(f"Reading {options.checkpoint}")
    made = convert_checkpoint(options.checkpoint, arch=options.arch)
    model, extractor = made.model, made.extractor
    out = save(model, extractor, options.out, arch=made.arch, checkpoint=options.checkpoint)
    onnx = None
    if options.onnx:
        onnx = _export(options, made, out)
    parameters = sum(weight.numel() for weight in model.parameters())
    record = {
        "model": str(out),
        "arch": made.arch,
        "parameters": parameters,
        "onnx": onnx,
        "left_out": list(made.left_out),
    }
    lines = [f"Model      {out} ({made.arch}, {parameters:,} parameters)"]
    if made.left_out:
        lines.append(
            f"Left out   {len(made.left_out):,}, not of the network: {listed(made.left_out)}"
        )
    lines += [f"ONNX       {onnx}"] if onnx else []
    write_result(options, record, lines)
    return DONE


def _export(options: argparse.Namespace, made: Conversion, out: Path) -> str:
    """Export a converted model as ONNX, and describe the file in the model's card."""
    from voxblink2_lib.models.card import add_onnx
    from voxblink2_lib.models.export import describe_onnx, export_onnx

    write_message(f"Exporting {options.onnx}; this takes a minute or more")
    samples: Literal["int16", "float32"] = "int16" if options.onnx_int16 else "float32"
    path = export_onnx(made.model, made.extractor, options.onnx, samples=samples)
    add_onnx(out, describe_onnx(path))
    return str(path)


def _embed(options: argparse.Namespace) -> int:
    from voxblink2_lib.embedding.run import embed
    from voxblink2_lib.progress import show_progress

    made = embed(
        options.audio,
        options.out,
        embed_options(options),
        corpus=options.corpus,
        workers=options.workers,
        **input_options(options),
        progress=show_progress,
    )
    record = {
        "out": str(made.out),
        "utterances": made.utterances,
        "dimensions": made.dimensions,
        "rejected": made.rejected,
        "rejects": None if made.rejects is None else str(made.rejects),
        "duplicates": made.duplicates,
        "skipped": dict(made.skipped),
    }
    lines = [f"Embeddings {made.out}: {made.utterances:,} of {made.dimensions} dimensions"]
    write_result(options, record, [*lines, *left_lines(made)])
    return DONE


def left_lines(made: Embedded) -> list[str]:
    """Return lines about what was found and not embedded."""
    from voxblink2_lib.embedding.blocks import kinds_text

    lines = []
    if made.rejects:
        same = f", {made.duplicates:,} for the name of another" if made.duplicates else ""
        rejected = counted(made.rejected, "utterance")
        lines.append(f"Rejected   {rejected}{same}; reasons in {made.rejects}")
    if made.skipped:
        files = counted(sum(made.skipped.values()), "file")
        lines.append(f"Skipped    {files} by type: {kinds_text(made.skipped)}")
    if made.duplicates:
        lines.append("Of files with the same name, --prefer wav,flac takes one")
    return lines


def input_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return how the input is read: kinds of files, and columns of tables."""
    from voxblink2_lib.embedding.tables import TableColumns

    return {
        "prefer": options.prefer.split(",") if options.prefer else (),
        "columns": TableColumns(options.audio_column, options.name_column),
        "segments": Path(options.segments) if options.segments else None,
    }


def embed_options(options: argparse.Namespace) -> EmbedOptions:
    """Return the options of the command line as the library takes them."""
    from voxblink2_lib.embedding.block_worker import EmbedOptions

    device = options.device
    if device is None:
        from voxblink2_lib.embedding.back_ends import default_device

        device = default_device(options.model)
    return EmbedOptions(
        model=options.model, window_seconds=options.window, dtype=options.dtype, device=device
    )


# -- Arguments -------------------------------------------------------------------------------------


def add_model_commands(commands: Any) -> None:
    """Add the commands that use speaker models.

    Args:
        commands: what ``add_subparsers`` returned.
    """
    _convert_arguments(commands)
    _embed_arguments(commands)


def _convert_arguments(commands: Any) -> None:
    does = "convert a released checkpoint, or a model of WeSpeaker, to a model of transformers"
    example = "voxblink2 convert ckpt/resnet34/model_ft.pt resnet34"
    parser = add_command(commands, "convert", _convert, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="model_pt.pt, model_ft.pt or another checkpoint of PyTorch; or a folder of "
        "WeSpeaker's, with config.yaml and avg_model.pt",
    )
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument(
        "--arch",
        choices=ARCHITECTURE_NAMES,
        help="which model it is; default: found by the shapes of its tensors",
    )
    parser.add_argument(
        "--onnx",
        metavar="FILE.onnx",
        help="also export it as ONNX, from waveforms to embeddings, with a description, FILE.json",
    )
    parser.add_argument(
        "--onnx-int16", action="store_true", help="its waveforms are of 16 bits, not of floats"
    )


def _embed_arguments(commands: Any) -> None:
    does = "compute embeddings of audio with a speaker model"
    example = "voxblink2 embed --model resnet34 --audio wav.scp --out embeddings.parquet"
    parser = add_command(commands, "embed", _embed, does, example)
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="a file ending in .parquet or .safetensors"
    )
    add_embed_arguments(parser, required=True)
    parser.add_argument(
        "--corpus",
        metavar="NAME",
        help="corpus of the audio, such as VoxCeleb2, to be written into OUT: score compares "
        "speakers of one corpus",
    )
    parser.add_argument("--device", help="PyTorch device; default: cuda if available, else cpu")


def add_embed_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the arguments for the model, its audio and how to embed it, except ``--device``."""
    parser.add_argument(
        "--model",
        required=required,
        metavar="MODEL",
        help="a folder that the command convert or save_pretrained wrote, a name on the Hub, an "
        ".onnx file with its description beside it, or a folder of SpeechBrain's or pyannote's",
    )
    parser.add_argument(
        "--audio",
        "--wav-scp",
        required=required,
        metavar="PLACE",
        help="a list (wav.scp, raw.list), a folder of audio files, a store, or Arrow or Parquet",
    )
    _add_input_arguments(parser)
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="average over windows of this length; default: whole utterances",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes; default: one for each core that the process may use, two on cuda",
    )


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how the audio is read; see :func:`input_options`."""
    parser.add_argument(
        "--prefer",
        metavar="KIND[,KIND...]",
        help="of audio files of the same name in a folder, take the first of these kinds, such as "
        "wav,flac; default: none of them",
    )
    parser.add_argument(
        "--segments",
        metavar="FILE",
        help="utterances in the recordings of a list: lines NAME RECORDING START END, in seconds",
    )
    parser.add_argument(
        "--audio-column",
        default="audio",
        metavar="COLUMN",
        help="of Arrow or Parquet: files, or samples at 16 kHz or the rate in the column "
        "sampling_rate; default: %(default)s",
    )
    parser.add_argument(
        "--name-column",
        metavar="COLUMN",
        help="of Arrow or Parquet: names of utterances; default: name, utterance, utt, key, id or "
        "file_name",
    )
