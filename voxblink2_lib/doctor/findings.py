"""What checks look at and what they report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.location import Release
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.layout import Store

Level = Literal["ok", "warning", "error"]
Required = TypeVar("Required")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: ``"error"``: a run would fail; ``"warning"``: it may.
        topic: what was checked.
        message: what was observed.
        remedy: what to do; empty if there is no problem.
    """

    level: Level
    topic: str
    message: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the finding under the keys of ``--json``."""
        return {
            "level": self.level,
            "what": self.topic,
            "says": self.message,
            "remedy": self.remedy,
        }


Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that the checks look at. What was not named or could not be opened is ``None``."""

    request: MaterializeRequest
    release: Release | None
    source: SourceSpec | None
    store: Store | None
    index: Index | None
    proxies: tuple[str | None, ...]
    cookies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check(Generic[Required]):
    """One check.

    Attributes:
        name: for the reader of the table.
        requires: picks what the check needs; ``None`` skips the check.
        run: yields findings, given the inputs and what the check needs of them.
    """

    name: str
    requires: Callable[[Inputs], Required | None]
    run: Callable[[Inputs, Required], Findings]

    def findings(self, inputs: Inputs) -> Findings:
        """Run the check, if what it requires is present."""
        required = self.requires(inputs)
        if required is not None:
            yield from self.run(inputs, required)
