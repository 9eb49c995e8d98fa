"""A PyTorch dataset of utterances, and batches of its examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from voxblink2_lib.errors import ClipDamagedError, TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training.augment import Augmentation, change_speed
from voxblink2_lib.training.corpus import Corpus
from voxblink2_lib.training.labels import SpeakerLabels
from voxblink2_lib.training.lent_memory import LentMemory
from voxblink2_lib.training.reader import Reader
from voxblink2_lib.training.seeded_row import SeededRow
from voxblink2_lib.training.shared_array import SharedArray

OnDamaged = Literal["raise", "skip"]
_SEEDS = 1 << 62


class Example(NamedTuple):
    """One utterance, or a part of it.

    Attributes:
        waveform: float32 at 16 kHz, shape (samples,).
        label: index of its class.
        row: its index in the corpus.
        seed: of what is drawn later, such as masks of its features.
    """

    waveform: Tensor
    label: int
    row: int
    seed: int = 0


class DamagedClip(NamedTuple):
    """Takes the place of an example that could not be decoded.

    Attributes:
        row: its index in the corpus.
        message: the reason; names shard, row and utterance.
    """

    row: int
    message: str

    @property
    def words(self) -> str:
        """The message, by its name in an earlier version."""
        return self.message


class UtteranceDataset(data.Dataset[Example | DamagedClip]):
    """Utterances of a corpus, for a ``DataLoader``.

    With a sampler of this package, crops, speeds and augmentations are drawn from the sampler's
    seed, epoch and place: they are the same after a restart and in any worker. With any other
    sampler, whose rows are plain numbers, they are drawn from PyTorch's random numbers: others each
    time, and the same again after ``torch.manual_seed`` with as many workers.

    Args:
        corpus: the utterances.
        crop_seconds: length of the random crop that is read of each utterance; shorter utterances
            are repeated to fill it. ``None`` gives whole utterances.
        labels: the classes; by default the corpus's speakers. All speeds are equally likely.
        augment: is called with each waveform and a generator.
        on_damaged: ``"raise"``, or ``"skip"``: clips that cannot be decoded are left out of
            batches and listed in ``TrainingLoader.damaged``.

    Raises:
        TrainingError: an argument is not allowed.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        crop_seconds: float | None = None,
        labels: SpeakerLabels | None = None,
        augment: Augmentation | None = None,
        on_damaged: OnDamaged = "raise",
    ) -> None:
        if crop_seconds is not None and not 1 / SAMPLE_RATE_HZ <= crop_seconds <= 60:
            raise TrainingError(
                f"crop_seconds is {crop_seconds:g}; expected is at least one sample, "
                f"{1 / SAMPLE_RATE_HZ:g}, and at most 60."
            )
        if on_damaged not in get_args(OnDamaged):
            raise TrainingError(f"on_damaged is {on_damaged!r}; expected is 'raise' or 'skip'.")
        self.corpus = corpus
        self.labels = SpeakerLabels.of(corpus) if labels is None else labels
        self._label = SharedArray(self.labels.of_rows(corpus))
        self._crop = None if crop_seconds is None else round(crop_seconds * SAMPLE_RATE_HZ)
        self._augment = augment
        self._on_damaged = on_damaged
        self._reader = Reader(corpus)
        self._memory = LentMemory()

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, row: int) -> Example | DamagedClip:
        """Return an example.

        Raises:
            ClipDamagedError: its clip cannot be decoded, with ``on_damaged="raise"``.
        """
        return self._example(row, None)

    def __getitems__(self, rows: Sequence[int]) -> list[Example | DamagedClip]:
        """Return the examples of a batch; ``DataLoader`` calls this.

        What remote shards lack for it is downloaded at once. Crops are decoded straight into the
        tensor of the batch. A derived class that returns other examples is asked for each of them.

        Raises:
            ClipDamagedError: as of one example.
        """
        self._reader.prefetch(int(row) for row in rows if 0 <= row < len(self))
        has_own_examples = type(self).__getitem__ is not UtteranceDataset.__getitem__
        if self._crop is None or self._augment is not None or has_own_examples:
            return [self[row] for row in rows]
        waveforms = self._memory.empty(len(rows), self._crop)
        examples = map(self._example, rows, waveforms)
        return DecodedBatch(examples, waveforms, self._memory)

    def _example(self, row: int, out: Tensor | None) -> Example | DamagedClip:
        """Return an example, of which the waveform is written to ``out``."""
        if not 0 <= row < len(self):
            raise IndexError(f"Row {int(row)} was requested; expected is 0 to {len(self) - 1}.")
        generator = _generator(row)
        speeds = self.labels.speeds
        speed = int(generator.integers(len(speeds))) if len(speeds) > 1 else 0
        try:
            waveform = self._waveform(int(row), speeds[speed], generator, out)
        except ClipDamagedError as error:
            if self._on_damaged == "raise":
                raise
            return DamagedClip(int(row), str(error))
        if self._augment is not None:
            # A user's function may return another type or order; a batch needs this one.
            augmented = self._augment(waveform.numpy(), generator)
            waveform = torch.from_numpy(np.ascontiguousarray(augmented, np.float32))
        label = int(self._label.values[row]) + speed * len(self.labels.speakers)
        seed = int(generator.integers(_SEEDS))
        return Example(waveform, label, int(row), seed)

    def _waveform(
        self, row: int, speed: float, generator: np.random.Generator, out: Tensor | None
    ) -> Tensor:
        # Not of all rows: that of a selection would be an array in each worker.
        available = self.corpus.place(row).samples
        if self._crop is None:
            samples, needed = round(available / speed), available
        else:
            samples, needed = self._crop, round(self._crop * speed)
        start = int(generator.integers(max(0, available - needed) + 1))
        if speed == 1 and available >= needed:
            return self._reader.read(row, start=start, samples=needed, out=out)
        crop = self._reader.read(row, start=start, samples=min(available, needed)).numpy()
        if len(crop) < needed:
            crop = np.resize(crop, needed)  # repeats
        waveform = torch.from_numpy(change_speed(crop, speed, samples))
        return waveform if out is None else out.copy_(waveform)


class DecodedBatch(list[Example | DamagedClip]):
    """Examples whose waveforms are the rows of one tensor.

    Args:
        examples: the examples.
        rows: the tensor, shape (examples, samples).
        memory: where it is from.
    """

    def __init__(
        self, examples: Iterable[Example | DamagedClip], rows: Tensor, memory: LentMemory
    ) -> None:
        super().__init__(examples)
        self._rows = rows
        self._memory = memory

    def lend(self, batch: Mapping[str, Any], known: int) -> dict[str, Any]:
        """Return what a worker sends in place of its batch; see :meth:`LentMemory.lend`."""
        return self._memory.lend(batch, known)

    def rows(self) -> Tensor | None:
        """Return that tensor, unless a clip is damaged or somebody has changed the list."""
        are_rows = len(self) == len(self._rows) and all(
            isinstance(example, Example)
            and example.waveform.data_ptr() == row.data_ptr()
            and example.waveform.shape == row.shape
            for example, row in zip(self, self._rows, strict=True)
        )
        return self._rows if are_rows else None


def _generator(row: int) -> np.random.Generator:
    """Return the generator of all random choices about a use of a row."""
    if isinstance(row, SeededRow):
        return row.generator()
    # DataLoader seeds PyTorch in each worker anew for each pass, from the seed of the main process.
    seed = torch.randint(torch.iinfo(torch.int64).max, ())
    return np.random.Generator(np.random.Philox(int(seed)))


def collate(examples: Sequence[Example | DamagedClip]) -> dict[str, Any]:
    """Make a batch of examples, padded with zeros to the longest.

    Args:
        examples: of :class:`UtteranceDataset`.

    Returns:
        ``waveforms``, float32, shape (batch, samples); ``lengths`` and ``labels`` and ``rows``,
        int64, shape (batch,); and ``damaged``, a list, if clips were skipped.

    Raises:
        ClipDamagedError: no clip of the batch can be decoded.
    """
    good = [example for example in examples if isinstance(example, Example)]
    damaged = [clip for clip in examples if isinstance(clip, DamagedClip)]
    if not good:
        raise ClipDamagedError(
            f"None of the {len(examples)} clips of a batch can be decoded. {damaged[0].message}"
        )
    waveforms = [example.waveform for example in good]
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    stacked = examples.rows() if isinstance(examples, DecodedBatch) else None
    batch: dict[str, Any] = {
        "waveforms": _stacked(waveforms, lengths) if stacked is None else stacked,
        "lengths": lengths,
        "labels": torch.tensor([example.label for example in good]),
        "rows": torch.tensor([example.row for example in good]),
    }
    if damaged:
        batch["damaged"] = damaged
    return batch


def _stacked(waveforms: list[Tensor], lengths: Tensor) -> Tensor:
    if bool((lengths == lengths[0]).all()):
        stacked: Tensor = data.default_collate(waveforms)  # in a worker, in shared memory
        return stacked
    return torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
