"""Names of the formats, and how each is read; loads nothing else, as the help shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

FormatName = Literal[
    "kaldi", "wespeaker", "webdataset", "lhotse", "nemo", "csv", "parquet", "folder"
]
FORMAT_NAMES: tuple[str, ...] = get_args(FormatName)


class FormatText(NamedTuple):
    """What a format is, and how it is read, with ``{target}`` for where it is."""

    content: str
    reading: str


TEXTS: Mapping[FormatName, FormatText] = {
    "kaldi": FormatText(
        "WAV in archives; wav.scp, utt2spk, spk2utt, utt2dur",
        "kaldiio.load_scp('{target}/wav.scp')",
    ),
    "wespeaker": FormatText(
        "tars; shard.list, utt2spk, spk2utt, utt2dur",
        "data_type: shard, train_data: {target}/shard.list, train_label: {target}/utt2spk",
    ),
    "webdataset": FormatText(
        "tars with clip, face and JSON; shard.list",
        "webdataset.WebDataset(sorted(glob.glob('{target}/*.tar')), shardshuffle=False)",
    ),
    "lhotse": FormatText(
        "Shar: cuts, and tars of recordings", "lhotse.CutSet.from_shar(in_dir='{target}/shar')"
    ),
    "nemo": FormatText(
        "audio/<speaker>/<video>/<utterance>.flac (or .wav, .opus); manifest.json of JSON lines",
        "train_ds.manifest_filepath={target}/manifest.json",
    ),
    "csv": FormatText(
        "audio/<speaker>/<video>/<utterance>.flac (or .wav, .opus); utterances.csv",
        "pandas.read_csv('{target}/utterances.csv', keep_default_na=False)",
    ),
    "parquet": FormatText(
        "Parquet with clips and faces in it",
        "datasets.load_dataset('parquet', data_files='{target}/data/*.parquet')",
    ),
    "folder": FormatText(
        "<speaker>/<video>/<utterance>.flac (or .wav, .opus), faces as .mp4",
        "as VoxCeleb: {target}/<speaker>/<video>/<utterance>.* (.flac, .wav or .opus)",
    ),
}
