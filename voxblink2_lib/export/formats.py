"""The formats of an export: what is written for each shard, and which lists join them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from voxblink2_lib.errors import ExportError
from voxblink2_lib.export import file_formats, kaldi, parquet, tar_formats
from voxblink2_lib.export.names import FORMAT_NAMES, FormatName
from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.rows import UnitRows
from voxblink2_lib.records import AUDIO_FORMATS

SPK2UTT = "spk2utt"
_BYTES_PER_SAMPLE = 2
_ALL_FACES = frozenset({"video", "boxes", "boxes_fit", "boxes_evidence"})
_KALDI_LISTS = (tar_formats.UTT2SPK, tar_formats.UTT2DUR)


@dataclass(frozen=True, slots=True)
class ListFile:
    """A list over all shards, beside them.

    Attributes:
        name: of its file.
        is_sorted: by its lines, as Kaldi's lists are; otherwise in the order of the shards.
        header: a line before the others.
    """

    name: str
    is_sorted: bool = False
    header: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of an export.

    Attributes:
        name: of the format.
        write: writes one shard.
        files: paths of what is written for one shard, or for each utterance, in which ``{unit}``,
            ``{name}`` and ``{extension}`` stand for what they are.
        lists: what joins them.
        with_spk2utt: whether ``spk2utt`` is made of ``utt2spk``.
        faces: columns about the face that it carries.
        with_transcripts: whether it carries times and, where the store has them, transcripts.
        has_all_columns: whether every column of ``load_dataset`` is in it, known or not.
        bytes_per_utterance: about what it takes beside the clip.
        is_pcm: clips are decoded to 16-bit samples; otherwise they are written as they are stored.
        options: what else decides how it looks.
    """

    name: FormatName
    write: Callable[[UnitRows, UnitOutput], None]
    bytes_per_utterance: int
    files: tuple[str, ...]
    lists: tuple[ListFile, ...] = ()
    with_spk2utt: bool = False
    faces: frozenset[str] = frozenset()
    with_transcripts: bool = True
    has_all_columns: bool = False
    is_pcm: bool = False
    options: Mapping[str, Any] | None = None

    @property
    def list_names(self) -> list[str]:
        """Names of all lists."""
        return [*(entry.name for entry in self.lists), *[SPK2UTT] * self.with_spk2utt]

    @property
    def has_file_per_utterance(self) -> bool:
        """Whether there are files of their own for each utterance."""
        return "{name}" in self.files[0]

    def paths(self, unit: str, names: Iterable[str]) -> Iterator[str]:
        """Yield the paths that files of a unit may have.

        Args:
            unit: name of the unit.
            names: of its utterances, where these have files of their own.
        """
        if not self.has_file_per_utterance:
            yield from (path.format(unit=unit) for path in self.files)
            return
        for name in names:
            for path in self.files:
                for extension in AUDIO_FORMATS:
                    yield path.format(name=name, extension=extension)

    def size_bytes(self, utterances: int, clip_bytes: int, samples: int) -> int:
        """Return about how much some utterances take.

        Args:
            utterances: their number.
            clip_bytes: of what is stored of them.
            samples: in them, at 16 kHz.
        """
        content = samples * _BYTES_PER_SAMPLE if self.is_pcm else clip_bytes
        return content + utterances * self.bytes_per_utterance


def _sorted(*names: str) -> tuple[ListFile, ...]:
    return tuple(ListFile(name, is_sorted=True) for name in names)


_SHARD_LIST = ListFile(tar_formats.SHARD_LIST)
_KALDI = Format(
    "kaldi",
    kaldi.write_kaldi,
    400,
    (kaldi.ARCHIVE,),
    _sorted(kaldi.WAV_SCP, *_KALDI_LISTS),
    with_spk2utt=True,
    with_transcripts=False,
    is_pcm=True,
    options={"segments": False},
)
_FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        _KALDI,
        Format(
            "wespeaker",
            tar_formats.write_wespeaker,
            2000,  # headers of 512 bytes, and what fills up blocks
            (tar_formats.WESPEAKER_TAR,),
            (_SHARD_LIST, *_sorted(*_KALDI_LISTS)),
            with_spk2utt=True,
            with_transcripts=False,
        ),
        Format(
            "webdataset",
            tar_formats.write_webdataset,
            2000,
            (tar_formats.WEBDATASET_TAR,),
            (_SHARD_LIST,),
            faces=_ALL_FACES,
        ),
        Format(
            "lhotse",
            tar_formats.write_lhotse,
            2200,
            (tar_formats.SHAR_RECORDINGS, tar_formats.SHAR_CUTS),
        ),
        # Files take whole blocks of the disk.
        Format(
            "nemo",
            file_formats.write_nemo,
            2500,
            (file_formats.LISTED_CLIP,),
            (ListFile(file_formats.NEMO_LIST),),
        ),
        Format(
            "csv",
            file_formats.write_csv,
            2500,
            (file_formats.LISTED_CLIP,),
            (ListFile(file_formats.CSV_LIST, header=file_formats.csv_header()),),
        ),
        Format(
            "parquet",
            parquet.write_parquet,
            100,
            (parquet.PARQUET,),
            faces=_ALL_FACES,
            has_all_columns=True,
        ),
        Format(
            "folder",
            file_formats.write_folder,
            2300,
            (file_formats.CLIP, file_formats.FACE),
            faces=frozenset({"video"}),
            with_transcripts=False,
        ),
    )
}


def find_format(name: str, *, segments: bool = False) -> Format:
    """Return a format.

    Args:
        name: of the format.
        segments: one WAV for each video, and where in it each utterance is: of ``kaldi`` alone.

    Raises:
        ExportError: there is no such format, or it has no segments.
    """
    if name not in _FORMATS:
        *names, last = FORMAT_NAMES
        raise ExportError(f"format must be {', '.join(names)} or {last}, got {name!r}.")
    if not segments:
        return _FORMATS[name]
    if name != _KALDI.name:
        raise ExportError(f"segments are for the format kaldi, not for {name}. Leave them out.")
    lists = _sorted(kaldi.WAV_SCP, kaldi.SEGMENTS, *_KALDI_LISTS)
    return replace(
        _KALDI, write=kaldi.write_kaldi_segments, lists=lists, options={"segments": True}
    )
