"""The catalogue: removed if it is damaged, and made again at its next use."""

from __future__ import annotations

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.catalogue import Catalogue, catalogue_file
from voxblink2_lib.store.checksums import changed_file_problem, checksum_file


def mend_catalogue(bench: Workbench, config: str) -> None:
    """Remove the catalogue of a configuration if it is damaged."""
    path = catalogue_file(bench.store.root, bench.store.shards(config), config)
    if not (path.exists() and path.is_relative_to(bench.store.root)):
        return
    try:
        Catalogue.read(path)
        problem = changed_file_problem(path)
    except StoreDamagedError as error:
        problem = str(error)
    if problem:
        text = f"{problem} Removed, the next use makes it again"
        bench.mend("catalogue", path, text, lambda: _remove(bench, config))


def _remove(bench: Workbench, config: str) -> None:
    path = catalogue_file(bench.store.root, bench.store.shards(config), config)
    for file in (checksum_file(path), path):
        file.unlink(missing_ok=True)
