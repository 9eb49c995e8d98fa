"""Mend a store: prove what is whole, keep it, and crop again only what is hurt."""

from __future__ import annotations
