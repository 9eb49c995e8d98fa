"""Worker processes; knows nothing of the corpus."""

from __future__ import annotations
