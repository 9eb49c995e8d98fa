"""A page, plots and a CSV file about a store."""

from __future__ import annotations
