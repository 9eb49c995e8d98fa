"""Settings of property tests whose examples take long.

All others take as many examples as the profile that `conftest` loads: 50, or 500 in the slow tier.
"""

from __future__ import annotations

from hypothesis import settings


def fewer_examples(divisor: int) -> settings:
    """Return settings with a part of the profile's number of examples."""
    return settings(max_examples=max(1, settings().max_examples // divisor))
