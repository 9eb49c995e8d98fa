"""Building blocks for training and evaluating a speaker model."""

from __future__ import annotations
