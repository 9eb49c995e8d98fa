"""The engine that a run on a cluster has in place of the one of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from voxblink2_lib.errors import DependencyError, SelectionError
from voxblink2_lib.materialize.places import is_cut_audio
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import Engine
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import is_url
from voxblink2_lib.redaction import redacted_source

# Each upload there would be a commit of its own, or is seen by one process only.
_NOT_SHARED = ("hf://", "memory://", "http://", "https://")


@contextlib.contextmanager
def ray_engine(
    request: MaterializeRequest, *, address: str | None = None, shares_budget: bool = False
) -> Iterator[Engine]:
    """Be connected to a Ray cluster, and yield the engine that runs jobs on its nodes.

    Args:
        request: what is to be made; nothing of it is begun before all checks have passed.
        address: of the cluster; by default the one of this machine, or ``RAY_ADDRESS``.
            ``local`` starts one of this machine alone, which ends with the run.
        shares_budget: one budget for all nodes. Otherwise each has its own.

    Raises:
        SelectionError: the store, or the source, is none that nodes share.
        DependencyError: Ray is not installed.
        StoppedError: there is no such cluster.
    """
    check_shared_store(request.store)
    if is_cut_audio(request.source):
        raise SelectionError(
            "Cut audio is read by one process, from its first byte to the last: nodes of a cluster "
            "would wait for it. Leave out --engine."
        )
    try:
        from voxblink2_lib.cluster import ray_nodes
    except ImportError as error:
        raise DependencyError(
            f"--engine ray needs Ray, which cannot be imported ({error}). Install it on all "
            'machines: pip install "voxblink2[ray]"'
        ) from error
    from voxblink2_lib.cluster.driver import Driver
    from voxblink2_lib.cluster.records import ClusterRun
    from voxblink2_lib.cluster.versions import versions_here

    def run_on_nodes(context: RunContext, jobs: list[int]) -> None:
        run = ClusterRun.of(request, context.source, context.options)
        nodes = ray_nodes.RayNodes(run, shares_budget=shares_budget)
        place, versions = open_place(run.url), versions_here()
        driver = Driver(context, place, nodes, versions=versions, shares_budget=shares_budget)
        driver.run(jobs)

    with ray_nodes.connected(address or "auto"):
        yield run_on_nodes


def check_shared_store(store: str | None) -> None:
    """Refuse a store that the nodes of a cluster cannot all write to.

    Raises:
        SelectionError: it is no URL, or of such a kind.
    """
    if store is None or not is_url(store) or store.startswith(_NOT_SHARED):
        shown = "none was named" if store is None else f"got {redacted_source(store)}"
        raise SelectionError(
            "With --engine ray the store must be at a URL that all nodes can write to, such as "
            f"s3://bucket/store, or file:///shared/folder on a shared file system; {shown}."
        )
