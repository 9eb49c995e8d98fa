"""The run: request, plan, download, crop, seal."""

from __future__ import annotations
