"""All that is known of one utterance, and why what is not there is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from voxblink2_lib.browse.clips import Clips, StoredClip
from voxblink2_lib.browse.pictures import Cut
from voxblink2_lib.browse.query import ListedUtterance
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.browse.search import Search
from voxblink2_lib.browse.sound import Loudness, Samples, decode, loudness
from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import UtteranceKey, VideoKey, options_of
from voxblink2_lib.store.ledger import Ledger

_CLASS_WORDS = {"planned": "its video was not tried yet", "excluded": "its video is excluded"}


@dataclass(frozen=True, slots=True, eq=False)
class UtteranceDetails:
    """One utterance.

    Attributes:
        row: as in a list.
        cuts: all utterances of its video whose time is known, sorted by it.
        clip: its clip; ``None`` if there is none.
        samples: of the clip at 16 kHz, shape (n,); ``None`` if it cannot be decoded.
        sound: how loud it is; ``None`` likewise.
        problem: why there is no clip, or no sound; empty otherwise.
        notes: what of the store could not be read.
    """

    row: ListedUtterance
    cuts: tuple[Cut, ...] = ()
    clip: StoredClip | None = None
    samples: Samples | None = None
    sound: Loudness | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()


class Details:
    """Reads single utterances.

    Args:
        ledger: the ledger.
        search: what lists their videos.
    """

    def __init__(self, ledger: QuietLedger, search: Search) -> None:
        self._ledger = ledger
        self._search = search
        self._clips = Clips(ledger)

    def of(self, key: UtteranceKey) -> UtteranceDetails:
        """Return what is known of an utterance; without its id, of the first one of the video.

        Raises:
            SelectionError: the store does not know it.
            StoreError: the ledger cannot be read.
        """
        page = self._search.utterances([UtteranceKey(*key[:2], "")])
        rows = [row for row in page.rows if key.utterance_id in {"", row.utterance_id}]
        if not rows:
            raise SelectionError(
                f"The store has no {key.name.rstrip('/')} in the configuration "
                f"{self._ledger.config}. Search for it again: a run may have changed the store."
            )
        details = UtteranceDetails(rows[0], cuts=_cuts(page.rows), notes=page.notes)
        return self._with_clip(details) if rows[0].utterance_id else _without_clip(details, {})

    def _with_clip(self, details: UtteranceDetails) -> UtteranceDetails:
        key = details.row.key
        try:
            clip = self._clips.find(key)
            if clip is None:
                return _without_clip(details, self._missing(VideoKey(*key[:2])))
            details = replace(details, clip=clip)
            samples = decode(clip.audio)
        except StoreError as error:
            return replace(details, problem=str(error))
        return replace(details, samples=samples, sound=loudness(samples))

    def _missing(self, key: VideoKey) -> dict[str, str]:
        return self._ledger.read(lambda ledger: ledger.search.missing(key))

    def clip_options(self) -> ClipOptions:
        """Return how the clips of the store are cropped."""
        kinds = options_of(ClipOptions)

        def read(ledger: Ledger) -> ClipOptions:
            texts = {name: ledger.setting(name) for name in ("video_margin", "video_shape")}
            return ClipOptions(
                **{name: kinds[name].parse(text) for name, text in texts.items() if text}
            )

        return self._ledger.read(read)


def _cuts(rows: tuple[ListedUtterance, ...]) -> tuple[Cut, ...]:
    cuts = [
        Cut(row.utterance_id, row.start_seconds, row.end_seconds, row.has_clip)
        for row in rows
        if row.start_seconds is not None and row.end_seconds is not None
    ]
    return tuple(sorted(cuts, key=lambda cut: (cut.start_seconds, cut.utterance_id)))


def _without_clip(details: UtteranceDetails, missing: dict[str, str]) -> UtteranceDetails:
    """Return details with the reason why there is no clip."""
    video = details.row.video
    reason = missing.get(details.row.utterance_id)
    if reason:
        problem = f"No clip: the utterance {reason}"
    elif video.status == "done":
        problem = "No clip is found in the store, although its video is done."
    else:
        words = _CLASS_WORDS.get(video.status, f"its video is {video.status}: {video.reason}")
        problem = f"No clip: {words}"
    return replace(details, problem=problem)
