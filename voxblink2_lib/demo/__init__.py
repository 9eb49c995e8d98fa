"""Demonstrations on the built-in release: the corpus, and training on it."""

from __future__ import annotations
