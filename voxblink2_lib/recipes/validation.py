"""Which speakers of a corpus are held out: by the file of a split, or by its rule.

The rule of ``voxblink2 split`` is a hash of the id and a threshold, so a speaker is on one side for
good, whatever comes into the store later. Training sees nothing of those who are held out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import TrainingError, next_command
from voxblink2_lib.release.speaker_split import SpeakerSplit, make_split
from voxblink2_lib.training import Corpus

# One seed for all runs: runs with other seeds are scored on the same speakers.
_SEED = 0
_SHARE, _FEWEST, _MOST = 20, 2, 200


def split_of(corpus: Corpus, *, speakers: int | None = None) -> SpeakerSplit:
    """Return the rule that holds out so many of the speakers that are there today.

    Args:
        corpus: all utterances.
        speakers: by default a twentieth, from 2 to 200.

    Raises:
        TrainingError: too few would be left on one of the sides.
    """
    total = len(corpus.speakers)
    default = min(_MOST, max(_FEWEST, total // _SHARE))
    count = default if speakers is None else speakers
    if not _FEWEST <= count < total:
        raise TrainingError(
            f"{count} speakers cannot be held out of {total}; expected are 2 to {total - 1}."
        )
    return make_split(corpus.speakers, count=count, seed=_SEED)


def held_out_by(corpus: Corpus, split: SpeakerSplit) -> npt.NDArray[np.bool_]:
    """Return which speakers of a corpus a rule holds out, shape (speakers,).

    Args:
        corpus: the utterances.
        split: the rule.
    """
    return split.is_validation(corpus.speakers)


def held_out_by_file(corpus: Corpus, path: Path) -> npt.NDArray[np.bool_]:
    """Return which speakers of a corpus the file of ``voxblink2 split`` holds out.

    The thresholds of a split within a gender or a language need the facts of the release, which a
    store need not have: then the ids that the file lists count.

    Shape: [speakers].

    Args:
        corpus: the utterances.
        path: of the file.

    Raises:
        SelectionError: there is no such file, or it is not of a split.
        TrainingError: it holds out nobody of this corpus.
    """
    split = SpeakerSplit.read(path)
    if split.within is None:
        is_held_out = held_out_by(corpus, split)
    else:
        listed = {line.strip() for line in path.read_text("utf-8").splitlines()[1:]}
        is_held_out = np.array([speaker in listed for speaker in corpus.speakers], np.bool_)
    if not is_held_out.any():
        other = path.with_stem(f"{path.stem}-of-this-store")
        make = next_command("split", store="STORE", validation_speakers=200, out=other)
        raise TrainingError(
            f"{path} holds out none of the {len(corpus.speakers):,} speakers of the store. Make "
            f"one for it with {make}."
        )
    return is_held_out
