"""Check a machine and a request before a run."""

from __future__ import annotations
