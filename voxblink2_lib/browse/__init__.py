"""Looking at a store: search, clips, lists of what is suspicious, marks; and a page with them."""

from __future__ import annotations
