"""Engines run the jobs of a store: here, on the processes of one machine."""

from __future__ import annotations
