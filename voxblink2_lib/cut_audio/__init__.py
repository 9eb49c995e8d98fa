"""Cut audio as a source: from archives and folders of files straight to sealed shards."""

from __future__ import annotations
