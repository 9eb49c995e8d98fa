"""Worker processes, independent of the corpus."""

from __future__ import annotations
