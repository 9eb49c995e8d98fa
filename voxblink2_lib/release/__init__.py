"""The annotations: where they are, what they state, which videos are selected."""

from __future__ import annotations
