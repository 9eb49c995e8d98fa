"""Progress that a person can read: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tqdm


@contextmanager
def counting(what: str, *, unit: str, total: int | None = None) -> Iterator[Any]:
    """Show how many things went by, if it takes a while; of how many, where that is known."""
    with _bar(desc=what, unit=unit, total=total, delay=1.0) as bar:
        yield bar.update


class EmbeddingProgress:
    """Shows how many utterances are embedded, how many hours that is, and how fast it goes.

    Args:
        total: number of utterances.
    """

    def __init__(self, total: int) -> None:
        self._seconds = 0.0
        self._rejected = 0
        self._bar = _bar(desc="Embedding", unit="utterance", total=total)
        self._started = time.monotonic()

    def __enter__(self) -> EmbeddingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def skip(self, utterances: int) -> None:
        """Count what an earlier run did."""
        self._bar.initial += utterances
        self._bar.update(utterances)

    def update(self, embedded: int, rejected: int, seconds: float) -> None:
        """Count a block."""
        self._seconds += seconds
        self._rejected += rejected
        hours = self._seconds / 3600
        rate = hours / (time.monotonic() - self._started)
        parts = [f"{hours:.2f} h", f"{rate:.4f} h/s"]
        parts += [f"{self._rejected} rejected"] if self._rejected else []
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(embedded + rejected)


def _bar(**options: Any) -> Any:
    # A log file gets a line every half minute instead of ten a second.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    # Whoever has switched off the bars of datasets has loaded it; else it takes long to load.
    shown = sys.modules["datasets.utils"].tqdm if "datasets.utils" in sys.modules else tqdm.tqdm
    return shown(
        mininterval=interval, maxinterval=max(10.0, interval), dynamic_ncols=True, **options
    )
