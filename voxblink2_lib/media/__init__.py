"""Decode, crop and encode; knows no network and no store."""

from __future__ import annotations
