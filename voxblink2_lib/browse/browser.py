"""A store that is looked at: all that a page of it needs, and nothing that writes to it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from voxblink2_lib import __version__
from voxblink2_lib.browse import views
from voxblink2_lib.browse.details import Details
from voxblink2_lib.browse.faces import boxed_video
from voxblink2_lib.browse.marks import Marks
from voxblink2_lib.browse.pictures import drawing
from voxblink2_lib.browse.query import utterance_of
from voxblink2_lib.browse.quiet_ledger import QuietLedger, browsed_config
from voxblink2_lib.browse.search import Search
from voxblink2_lib.browse.suspects import Suspects
from voxblink2_lib.browse.voices import Voices
from voxblink2_lib.errors import ScoringError, SelectionError
from voxblink2_lib.records import UtteranceKey, VideoKey, check_ids
from voxblink2_lib.report.markup import Markup, fill, join, note
from voxblink2_lib.report.page import ReportSubject, sections_of
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger


class StoreBrowser:
    """One configuration of a store. Nothing is written into the store.

    Args:
        store: the store, which may be empty, or being written.
        config: the configuration.
        marks: what is marked to be left out.
        voices: embeddings of its utterances; ``None`` if there are none.
        purity: the folder that ``voxblink2 purity`` wrote; ``None`` if there is none.
    """

    def __init__(
        self,
        store: Store,
        config: str,
        *,
        marks: Marks,
        voices: Voices | None = None,
        purity: Path | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.marks = marks
        self.ledger = QuietLedger(store, config)
        self.search = Search(self.ledger)
        self.suspects = Suspects(self.ledger, purity)
        self.details = Details(self.ledger, self.search)
        self._voices = voices

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        config: str | None = None,
        exclude: Path = Path("exclude.txt"),
        embeddings: Path | None = None,
        purity: Path | None = None,
    ) -> StoreBrowser:
        """Open a store.

        Args:
            store: the store.
            config: the configuration; default: that of the last run.
            exclude: the file of marks.
            embeddings: a file of embeddings of its utterances.
            purity: the folder that ``voxblink2 purity`` wrote.

        Raises:
            StoreError: the store has nothing of the configuration, or its ledger cannot be read.
            SelectionError: a file or folder is not there, or is of no use.
        """
        for path, option in ((embeddings, "--embeddings"), (purity, "--purity")):
            if path is not None and not path.exists():
                raise SelectionError(f"{path} does not exist. Name another one with {option}.")
        return cls(
            store,
            browsed_config(store, config),
            marks=Marks(exclude, store.root),
            voices=Voices(embeddings) if embeddings else None,
            purity=purity,
        )

    def utterance(self, name: str) -> Markup:
        """Return all that is known of an utterance, as HTML.

        Args:
            name: ``speaker/video/utterance``; with nothing after the last slash, the first one.

        Raises:
            SelectionError: it is no name of an utterance, or the store does not have it.
            StoreError: the ledger cannot be read.
        """
        details = self.details.of(named(name))

        def face() -> bytes:
            clip = details.clip
            return boxed_video(clip, self.details.clip_options()) if clip else b""

        return views.details_view(details, face)

    def voices(self, speaker_id: str) -> tuple[Markup, list[tuple[UtteranceKey, float]]]:
        """Return how a speaker's utterances compare, as HTML, and the farthest of them first.

        Raises:
            SelectionError: there is no such speaker.
            ScoringError: there are no embeddings, or they cannot be read.
        """
        if self._voices is None:
            raise ScoringError(
                "Utterances are compared by their embeddings. Make them with voxblink2 embed, "
                "and name the file with --embeddings."
            )
        compared = self._voices.compare(speaker_id.strip())
        return views.voices_view(compared), compared.farthest_first

    def coverage(self) -> Markup:
        """Return what the store holds, as HTML.

        Raises:
            StoreError: the ledger cannot be read.
        """
        subject = ReportSubject(str(self.store.root), __version__, time.time())
        index = self.store.index if (self.store.index / "index.json").exists() else None

        def read(ledger: Ledger) -> Markup:
            sections = sections_of(ledger.statistics, subject, self.config, index)
            parts = [fill("<h2>$title</h2>$content", **part._asdict()) for part in sections]
            return join([note(f"Counted at {datetime.now(UTC):%H:%M:%S} UTC."), *parts])

        with drawing:
            return self.ledger.read(read)


def named(name: str) -> UtteranceKey:
    """Return the utterance of a name, or the video of a name that ends with a slash.

    Raises:
        SelectionError: it is neither.

    >>> named("id000002/-JUT3czS6OI/").utterance_id
    ''
    """
    if not name.endswith("/"):
        return utterance_of(name)
    try:
        key = VideoKey(*name.removesuffix("/").split("/"))
        check_ids(*key, "0")
    except (TypeError, ValueError) as error:
        raise SelectionError(f"{name[:80]!r} is no video. Search for it again.") from error
    return UtteranceKey(*key, "")
