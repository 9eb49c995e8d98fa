"""A real Ray cluster on this machine, and the command line as its driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cli_process import Process, environment

# Of the store of objects of each node; what jobs return is small.
_OBJECT_BYTES = 80 << 20
# So that a node that was killed is noticed within seconds.
_SYSTEM = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
# Jobs of so many videos as a small corpus makes of few shards.
_DRIVER = (
    "import sys; from voxblink2_lib.materialize import jobs; jobs._SMALL_CORPUS_SHARDS = {shards}; "
    "from voxblink2_lib.cli import main; sys.exit(main())"
)


class RayCluster:
    """Nodes with one core each; the first is the head.

    Args:
        nodes: how many.
        variables: of their environment.
    """

    def __init__(self, nodes: int, variables: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self.variables = {**variables, "RAY_USAGE_STATS_ENABLED": "0"}
        options: dict[str, Any] = {
            "num_cpus": 1,
            "object_store_memory": _OBJECT_BYTES,
            "include_dashboard": False,
        }
        with pytest.MonkeyPatch.context() as patched:
            for name, value in self.variables.items():
                patched.setenv(name, value)
            self._cluster: Any = Cluster(
                initialize_head=True, head_node_args={**options, "_system_config": _SYSTEM}
            )
            self._others = [self._cluster.add_node(**options) for _ in range(nodes - 1)]

    @property
    def session(self) -> Path:
        """The folder of logs and all else that Ray writes."""
        return Path(self._cluster.head_node.get_session_dir_path())

    def kill_node(self) -> None:
        """Kill a node that is not the head, with all its processes."""
        self._cluster.remove_node(self._others.pop(), allow_graceful=False)

    def start(self, *words: object, shards: int) -> Process:
        """Start ``voxblink2 materialize --engine ray`` with these words."""
        code = _DRIVER.format(shards=shards)
        named = ["materialize", "--engine", "ray", "--address", self._cluster.address]
        return Process(
            [sys.executable, "-c", code, *named, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.variables),
        )

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def ray_cluster(nodes: int, variables: Mapping[str, str]) -> Iterator[RayCluster]:
    """Run a cluster within a ``with`` block."""
    cluster = RayCluster(nodes, {**os.environ, **variables})
    try:
        yield cluster
    finally:
        cluster.shutdown()
