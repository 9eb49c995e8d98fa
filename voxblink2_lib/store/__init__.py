"""What is stored on disk, and who may write it."""

from __future__ import annotations
