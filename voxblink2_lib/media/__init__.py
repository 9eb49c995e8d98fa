"""Decode, crop and encode media; uses no network and no store."""

from __future__ import annotations
