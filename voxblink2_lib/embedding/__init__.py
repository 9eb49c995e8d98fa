"""From audio to embeddings: any speaker model over a store, a dataset, a list or a folder."""

from __future__ import annotations
