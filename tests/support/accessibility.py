"""Faults of accessibility that axe-core finds in a page in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SERIOUS = {"serious", "critical"}
# Colours that are on their way to others have a contrast of their own.
_SETTLE = """async () => {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const ends = (animation) => animation.effect.getComputedTiming().endTime < Infinity;
    const moving = document.getAnimations().filter((each) => each.playState === "running");
    await Promise.all(moving.filter(ends).map((each) => each.finished.catch(() => null)));
}"""
# An element's tag with its role or type, and whether it is in HTML of this project.
_DESCRIBE = """(selector) => {
    const element = document.querySelector(selector);
    const kinds = ["role", "type"].filter((name) => element.hasAttribute(name));
    const kind = kinds.slice(0, 1).map((name) => `[${name}=${element.getAttribute(name)}]`);
    return [element.localName + kind.join(""), element.closest(".voxblink2") !== null];
}"""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one element.

    Attributes:
        page: what is looked at.
        rule: the rule of axe-core.
        impact: how grave it is: minor, moderate, serious or critical.
        selector: the element.
        kind: the element's tag with its role or type.
        is_ours: the element is in HTML that this project writes, within Gradio's.
        why: what is wrong.
        help_url: a page about the rule.
    """

    page: str
    rule: str
    impact: str
    selector: str
    kind: str
    is_ours: bool
    why: str
    help_url: str

    def __str__(self) -> str:
        return (
            f"{self.page}: {self.rule} ({self.impact}), {self.kind} at {self.selector}: "
            f"{self.why}. {self.help_url}"
        )


def faults_of(window: Any, page: str) -> list[Fault]:
    """Return the faults of what a window shows once nothing moves.

    Args:
        window: of Playwright.
        page: its name in messages.
    """
    # Imported here, for few environments have it.
    from axe_playwright_python.sync_playwright import Axe

    window.evaluate(_SETTLE)
    results = Axe().run(window).response
    assert results["passes"], f"{page}: no rule was applied"
    return [fault for broken in results["violations"] for fault in _faults(window, page, broken)]


def _faults(window: Any, page: str, broken: dict[str, Any]) -> Iterator[Fault]:
    for node in broken["nodes"]:
        (selector,) = node["target"]  # several would lead through frames
        kind, is_ours = window.evaluate(_DESCRIBE, selector)
        why = "; ".join(check["message"] for name in ("any", "all", "none") for check in node[name])
        url = broken["helpUrl"]
        yield Fault(page, broken["id"], node["impact"], selector, kind, is_ours, why, url)
