"""Contamination: trials, protocols and cohorts that share what must be apart.

An utterance is its name, however it is spelled. A speaker is a corpus and an id: VoxBlink1 and
VoxCeleb2 both use ``id`` and five digits, for other people. Six digits are of VoxBlink2 alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.progress import counted
from voxblink2_lib.scoring.embedding_files import corpus_key
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.enrolment import EnrolmentMap
from voxblink2_lib.scoring.names import utterance_key
from voxblink2_lib.scoring.protocols import OpenSetProtocol
from voxblink2_lib.scoring.trials import TrialList, speaker_in
from voxblink2_lib.scoring.validation import Flags, Rows

_EXAMPLES = 3

_WAY_ON = (
    "Take them out; or go on, and have it in the output: allow_overlap=True (--allow-overlap)."
)

_VOXBLINK2_ID = re.compile(r"id[0-9]{6}")

# What is known of each name: the utterances, of a model several.
_Members = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Overlap:
    """What was shared, or repeated, and allowed.

    Attributes:
        counts: by kind; ``None`` for what could not be compared.
        texts: sentences for people, of what was shared or not compared.
    """

    counts: dict[str, int | None] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, int | None]:
        """Return the counts for JSON; null for what could not be compared."""
        return dict(self.counts)


class _Finding(NamedTuple):
    """A count of one kind, what to say of it, and whether it is contamination."""

    kind: str
    total: int | None
    text: str = ""
    is_error: bool = True


class _What(NamedTuple):
    """What is counted, a verb in the plural, and the rest of the sentence."""

    noun: str
    verb: str
    rest: str
    of: str = ""

    def text(self, count: int) -> str:
        return f"{counted(count, self.noun, self.verb, of=self.of)} {self.rest}"


def _overlap(findings: Sequence[_Finding], allow_overlap: bool) -> Overlap:
    """Return the counts.

    Raises:
        ScoringError: something is contaminated, and that is not allowed.
    """
    errors = [each.text for each in findings if each.is_error and each.total]
    if errors and not allow_overlap:
        raise ScoringError(" ".join([*errors, _WAY_ON]))
    texts = tuple(each.text for each in findings if each.text)
    return Overlap({each.kind: each.total for each in findings}, texts)


# -- Trials ----------------------------------------------------------------------------------------


def check_trials(
    trials: TrialList,
    *,
    models: EnrolmentMap | None = None,
    speakers: npt.NDArray[Any] | None = None,
    embeddings: Embeddings | None = None,
    cohort: Embeddings | None = None,
    same_ids: bool = False,
    allow_overlap: bool = False,
) -> Overlap:
    """Refuse trials of an utterance with itself, with two labels, or that share with a cohort.

    Args:
        trials: the list. Its repeated trials are counted; ``b a`` repeats ``a b``, unless ``a`` is
            a model.
        models: the utterances of each model, if the enrolment side of trials are models. None of
            them may be a test utterance.
        speakers: the speaker of each name of the list; by default, names contain it. Shape:
            [names].
        embeddings: those of the trials, for their corpus.
        cohort: embeddings of other speakers.
        same_ids: ids of different or unknown corpora are the same speakers.
        allow_overlap: return what was shared instead of refusing it.

    Raises:
        ScoringError: a trial is contaminated; names the first and their lines.
    """
    codes, keys = _codes(trials.names)
    findings = _pair_findings(trials, codes, len(keys), models is not None)
    members = _members(trials, models)
    if models is not None:
        used = np.unique(trials.enrolment).tolist()
        enrolled = {utterance_key(name) for row in used for name in members[row]}
        findings.append(_enrolled_tests(trials, codes, np.array([key in enrolled for key in keys])))
    if cohort is not None:
        same = _IdComparison(embeddings, cohort, same_ids)
        findings += _cohort_findings(trials, members, speakers, cohort, same)
    return _overlap(findings, allow_overlap)


def _codes(names: Iterable[str]) -> tuple[Rows, dict[str, int]]:
    """Return a number for each name, equal for spellings of an utterance, and these by spelling."""
    keys: dict[str, int] = {}
    numbers = [keys.setdefault(utterance_key(name), len(keys)) for name in names]
    return np.array(numbers, np.int64), keys


def _pair_findings(trials: TrialList, codes: Rows, count: int, has_models: bool) -> list[_Finding]:
    """Compare the two sides of each trial, and all trials with each other."""
    first, second = codes[trials.enrolment], codes[trials.test]
    alike = np.flatnonzero(first == second) if not has_models else np.empty(0, np.int64)
    if not has_models:
        first, second = np.minimum(first, second), np.maximum(first, second)
    pairs = first * count + second
    # Sorted with its label as the last bit, a trial is beside all that repeat or contradict it.
    order = pairs * 2 if trials.labels is None else pairs * 2 + trials.labels
    order.sort()
    repeated: Flags = (order[1:] >> 1) == (order[:-1] >> 1)
    both = np.unique(order[1:][repeated & (order[1:] != order[:-1])] >> 1)
    rows = np.flatnonzero(np.isin(pairs, both)) if both.size else both
    rows = rows[np.argsort(pairs[rows], kind="stable")]
    duplicates = int(np.count_nonzero(repeated))
    return [
        _Finding(
            "duplicate_trials",
            duplicates,
            f"{counted(duplicates, 'trial', 'repeat')} another one." if duplicates else "",
            is_error=False,
        ),
        _trial_finding(
            "self_trials", trials, alike, _What("trial", "are", "of an utterance with itself")
        ),
        _trial_finding(
            "pairs_with_both_labels",
            trials,
            rows,
            _What("pair", "are", "both a target and a non-target trial"),
            count=len(both),
        ),
    ]


def _enrolled_tests(trials: TrialList, codes: Rows, is_enrolled: Flags) -> _Finding:
    rows = np.flatnonzero(is_enrolled[codes[trials.test]])
    return _trial_finding(
        "enrolled_tests",
        trials,
        rows,
        _What("trial", "have", "a test utterance that is also enrolled"),
    )


def _trial_finding(
    kind: str,
    trials: TrialList,
    rows: Rows,
    what: _What,
    *,
    count: int | None = None,
) -> _Finding:
    """Return how many trials are of a kind, with the first of their rows as examples.

    Args:
        kind: its name in the counts.
        trials: the list.
        rows: rows of the trials.
        what: what is counted.
        count: how many, if these are not trials.
    """
    count = len(rows) if count is None else count
    if not count:
        return _Finding(kind, 0)
    return _Finding(kind, count, f"{what.text(count)}, such as {_examples(trials, rows)}.")


def _examples(trials: TrialList, rows: Rows) -> str:
    first = rows[:_EXAMPLES].tolist()
    pairs = [
        " against ".join(
            shortened(trials.names[side[row]]) for side in (trials.enrolment, trials.test)
        )
        for row in first
    ]
    return "; ".join(
        f"{place}: {pair}" for place, pair in zip(trials.places(first), pairs, strict=True)
    )


# -- Cohorts ---------------------------------------------------------------------------------------


class _IdComparison:
    """Whether ids and names of trials and of a cohort mean the same.

    Args:
        embeddings: those of the trials.
        cohort: those of the cohort.
        same_ids: ids of different or unknown corpora are the same speakers.
    """

    def __init__(self, embeddings: Embeddings | None, cohort: Embeddings, same_ids: bool) -> None:
        self._corpora = [
            corpus_key(each.corpus) if each and each.corpus else None
            for each in (embeddings, cohort)
        ]
        # A file of embeddings is of one corpus, whichever that is.
        self._same = same_ids or (embeddings is not None and embeddings.source == cohort.source)

    @property
    def may_share_utterances(self) -> bool:
        """Equal names are equal utterances, unless both corpora are known and differ."""
        return self._same or None in self._corpora or len(set(self._corpora)) == 1

    def of(self, speaker: str) -> bool | None:
        """Return whether an id means one speaker in both; ``None`` if a corpus is unknown."""
        if self._same or _VOXBLINK2_ID.fullmatch(speaker):
            return True
        return None if None in self._corpora else len(set(self._corpora)) == 1


def _members(trials: TrialList, models: EnrolmentMap | None) -> _Members:
    """Return the utterances of each name of a list: itself, or those of the model."""
    if models is None:
        return [(name,) for name in trials.names]
    used = np.unique(trials.enrolment).tolist()
    places = models.index.rows_of([trials.names[row] for row in used])
    members: list[Sequence[str]] = [(name,) for name in trials.names]
    for row, place in zip(used, places.tolist(), strict=True):
        members[row] = models.utterances[models.index.names[place]] if place >= 0 else ()
    return members


def _cohort_findings(
    trials: TrialList,
    members: _Members,
    speakers: npt.NDArray[Any] | None,
    cohort: Embeddings,
    same: _IdComparison,
) -> list[_Finding]:
    utterances = {utterance_key(name) for name in cohort.averaged or cohort.names}
    if not same.may_share_utterances:
        utterances = set()
    shared = [
        {key for name in names if (key := utterance_key(name)) in utterances} for names in members
    ]
    findings = [_cohort_finding("cohort_utterances", "utterance", trials, shared, cohort)]
    ours: list[set[str]] = [
        {speaker for name in names if (speaker := speaker_in(name))} for names in members
    ]
    if speakers is not None:
        ours = [{speaker} for speaker in speakers.tolist()]
    named = cohort.names if cohort.averaged else map(speaker_in, cohort.names)
    theirs = {speaker for speaker in named if speaker}
    if not theirs or not any(ours):
        text = (
            "Speakers of cohort and trials are not compared: names do not contain them. Name "
            "them: --cohort-utt2spk, --utt2spk."
        )
        return [*findings, _Finding("cohort_speakers", None, text)]
    common = set().union(*ours) & theirs
    certain = {speaker for speaker in common if same.of(speaker)}
    unknown = sum(same.of(speaker) is None for speaker in common)
    both = [each & certain for each in ours]
    note = (
        f"{counted(unknown, 'speaker id', 'are')} both in {cohort.source} and in the trials, of "
        "corpora that are not known: they count as different speakers. Name the corpora "
        "(--corpus, --cohort-corpus), or count equal ids as equal speakers (--same-ids)."
    )
    return [
        *findings,
        _cohort_finding("cohort_speakers", "speaker", trials, both, cohort),
        _Finding("cohort_ids_of_unknown_corpora", unknown, note if unknown else "", is_error=False),
    ]


def _cohort_finding(
    kind: str, noun: str, trials: TrialList, shared: Sequence[set[str]], cohort: Embeddings
) -> _Finding:
    """Return how much of the cohort is in trials; what each name of the list shares is given."""
    is_shared = np.array([bool(each) for each in shared])
    rows = np.flatnonzero(is_shared[trials.enrolment] | is_shared[trials.test])
    used = np.unique(np.concatenate([trials.enrolment[rows], trials.test[rows]])).tolist()
    count = len(set().union(*(shared[row] for row in used)))
    what = _What(noun, "are", "also among the trials", of=f"of the cohort {cohort.source}")
    return _trial_finding(kind, trials, rows, what, count=count)


# -- Open-set protocols ----------------------------------------------------------------------------


def check_protocol(protocol: OpenSetProtocol, *, allow_overlap: bool = False) -> Overlap:
    """Refuse a protocol with enrolled probes, or with an utterance under two labels.

    Args:
        protocol: the lists. Repeated lines are counted.
        allow_overlap: return what was shared instead of refusing it.

    Raises:
        ScoringError: the lists are contaminated; names the first utterances and their lines.
    """
    codes, _ = _codes([*protocol.gallery, *protocol.probes])
    gallery, probes = np.split(codes, [len(protocol.gallery)])
    sides = (
        ("gallery", "gallery_utterances", gallery, protocol.gallery_labels),
        ("probe", "probes", probes, protocol.probe_labels),
    )
    findings = []
    for file, noun, rows, labels in sides:
        repeated, both = _labelled_rows(rows, labels)
        of = f"of {protocol.name}/{file}"
        text = f"{counted(repeated, 'line', 'repeat', of=of)} another one."
        findings += [
            _Finding(f"duplicate_{noun}", repeated, text if repeated else "", is_error=False),
            _protocol_finding(
                f"{noun}_with_two_labels",
                protocol,
                file,
                both,
                _What("line", "have", "an utterance under two labels", of=of),
                count=len(both),
            ),
        ]
    enrolled = np.flatnonzero(np.isin(probes, gallery))
    what = _What("probe", "are", "also enrolled", of=f"of {protocol.name}")
    findings.append(
        _protocol_finding("enrolled_probes", protocol, "probe", enrolled, what, count=len(enrolled))
    )
    return _overlap(findings, allow_overlap)


def _labelled_rows(codes: Rows, labels: Sequence[str]) -> tuple[int, Rows]:
    """Return how many rows repeat another, and the rows whose utterance has several labels."""
    _, numbers = np.unique(np.array(labels), return_inverse=True)
    pairs = np.unique(np.stack([codes, numbers]), axis=1)
    utterances, counts = np.unique(pairs[0], return_counts=True)
    both = np.flatnonzero(np.isin(codes, utterances[counts > 1]))
    return len(codes) - pairs.shape[1], both[np.argsort(codes[both], kind="stable")]


def _protocol_finding(
    kind: str, protocol: OpenSetProtocol, file: str, rows: Rows, what: _What, *, count: int
) -> _Finding:
    if not count:
        return _Finding(kind, 0)
    first = rows[:_EXAMPLES].tolist()
    names = protocol.gallery if file == "gallery" else protocol.probes
    places = (protocol.gallery_places if file == "gallery" else protocol.probe_places)(first)
    examples = "; ".join(
        f"{place}: {shortened(names[row])}" for place, row in zip(places, first, strict=True)
    )
    return _Finding(kind, count, f"{what.text(count)}, such as {examples}.")
