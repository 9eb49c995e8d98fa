"""The archive of cut audio that the authors hand out: its parts, its stream, what is in it."""

from __future__ import annotations
