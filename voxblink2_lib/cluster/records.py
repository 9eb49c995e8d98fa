"""Records that cross from the driver to the nodes and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.materialize.dashboard import RouteSnapshot
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.published.manifest import PublishedFile
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import AnnotatedVideo
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.job_outcomes import JobOutcomes


class Node(NamedTuple):
    """A machine of the cluster.

    Attributes:
        id: its id in the cluster.
        name: what people call it.
        cores: how many it offers.
        versions: of what decides which bytes a clip has.
    """

    id: str
    name: str
    cores: int
    versions: str


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """What all jobs of a run have in common; it holds secrets.

    Attributes:
        request: the options of the user, without places of the driver's machine.
        source: where media come from.
        options: how clips are made.
        url: of the published store.
    """

    request: MaterializeRequest
    source: SourceSpec
    options: ClipOptions
    url: str

    @classmethod
    def of(
        cls, request: MaterializeRequest, source: SourceSpec, options: ClipOptions
    ) -> ClusterRun:
        """Return what the nodes need to know of a run in a store at a URL."""
        bare = replace(request, store=None, scratch=None, data_dir=None, selection=Selection())
        return cls(bare, source, options, str(request.store))

    def on(self, cores: int) -> MaterializeRequest:
        """Return the request of a node: as many workers as it has cores, or fewer."""
        workers = min(self.request.workers or cores, cores)
        return replace(self.request, workers=workers)


class AnnotatedVideos(tuple[AnnotatedVideo, ...]):
    """A part of an index, in its order."""

    __slots__ = ()

    def annotated(
        self, keys: Collection[VideoKey], *, with_tracks: bool = False
    ) -> Iterator[AnnotatedVideo]:
        """Yield videos with all their annotations; they have their tracks if those were read."""
        del with_tracks
        return (video for video in self if video.key in keys)


class JobWork(NamedTuple):
    """One job, to be done on a node.

    Attributes:
        known: the job, and what the ledger has of its videos.
        videos: those that are to be cropped.
        is_sealed_there: the node makes the shard. Otherwise the driver takes the clips.
    """

    known: JobOutcomes
    videos: AnnotatedVideos
    is_sealed_there: bool


class Problem(NamedTuple):
    """Why a node cannot go on: the name of an error of this library, and its message."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: VoxBlink2Error) -> Problem:
        """Return an error as a record."""
        return cls(type(error).__name__, str(error))


class JobResult(NamedTuple):
    """What a node has done.

    Attributes:
        outcomes: of the job's videos, with the shard if it was sealed.
        upload: the shard at the URL; ``None`` if there is none.
        catalogue: of the shard, as a file.
        problem: why the job is not done; ``None`` if it is.
    """

    outcomes: JobOutcomes
    upload: PublishedFile | None = None
    catalogue: bytes = b""
    problem: Problem | None = None


class Report(NamedTuple):
    """What happened on a node since the last report.

    Attributes:
        job: the job that it works on.
        counts: class and size of the download of each video that was finished.
        routes: state of its routes to the source.
        slow_calls: a line for each call that takes long.
        messages: for people.
    """

    job: int
    counts: Sequence[tuple[str, int]] = ()
    routes: Sequence[RouteSnapshot] = ()
    slow_calls: Sequence[str] = ()
    messages: Sequence[str] = ()


class NodeLostError(VoxBlink2Error):
    """A node, or the process on it that did a job, is gone."""


class Nodes(Protocol):
    """The machines of a cluster, each of which does one job at a time."""

    def present(self) -> Sequence[Node]:
        """Return the nodes that are alive."""

    def start(self, node: Node, work: JobWork) -> None:
        """Begin a job on a node."""

    def results(
        self, *, timeout_seconds: float
    ) -> Sequence[tuple[Node, JobResult | NodeLostError]]:
        """Return the results that have arrived, after waiting for the first of them."""

    def reports(self) -> Sequence[tuple[Node, Report]]:
        """Return what was reported since the last call."""

    def stop(self) -> None:
        """Make all jobs save what they have, and end."""
