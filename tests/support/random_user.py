"""Somebody who uses a page made with Gradio at random, and sees whether it changes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

# For the page, before all else: `atRest`, `contents` and `controls`.
WATCH = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# How often a kind is chosen: what shows an utterance takes the most time.
_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"text": 3, "tab": 2, "button": 6, "radio": 6, "dropdown": 2, "token": 6, "player": 2}
)
_UNTRIED = 10
_OFTEN = 10  # so many uses halve the weight
_HISTORY = 30
_OF_COMPONENTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "tabitem": ("tab", "label"),
        "textbox": ("text", "label"),
        "dropdown": ("dropdown", "label"),
        "radio": ("radio", "label"),
        "button": ("button", "value"),
    }
)


class Control(NamedTuple):
    """What can be used: a button, or a group of radio buttons.

    Attributes:
        kind: what it is.
        label: what it says.
    """

    kind: str
    label: str


class Place(NamedTuple):
    """An element of a control: of a group of radio buttons, one.

    Attributes:
        number: in the page's list of elements.
        is_chosen: it is the one that is chosen already; of a box, something is in it.
        value: of a radio button.
    """

    number: int
    is_chosen: bool
    value: str


@dataclass
class Use:
    """How often a control was used, and how often the page changed by that."""

    times: int = 0
    changes: int = 0


@dataclass
class RandomUser:
    """Uses what is visible and enabled, rather what has not been used, and what changes the page.

    Attributes:
        seed: of everything that is chosen.
        texts: what is written into boxes.
        window: a page that ran :data:`WATCH` before all else.
        uses: of each control.
        chosen: how often each radio button was, by its value.
        history: what was done, the last of it.
    """

    seed: int
    texts: tuple[str, ...]
    window: Any = None
    uses: dict[Control, Use] = field(default_factory=dict)
    chosen: Counter[str] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def expected(self) -> set[Control]:
        """Return the controls that the page was made of, visible or not."""
        found: set[Control] = set()
        for component in self.window.evaluate("window.gradio_config.components"):
            if known := _OF_COMPONENTS.get(component["type"]):
                kind, name = known
                found.add(Control(kind, component["props"][name]))
        return found

    def act(self) -> None:
        """Use a control, wait until the page is at rest, and look whether it has changed."""
        places = self._places()
        control = self._choice(places)
        use = self.uses.setdefault(control, Use())
        element = self._element(places[control])
        before = self._contents(control)
        done = _ACTIONS[control.kind](self, element)
        self.history = [*self.history[1 - _HISTORY :], f"{control.kind} {control.label!r}: {done}"]
        self.window.evaluate("window.atRest()")
        use.times += 1
        use.changes += self._contents(control) != before

    def _places(self) -> dict[Control, list[Place]]:
        places: dict[Control, list[Place]] = {}
        for kind, label, *values in self.window.evaluate("window.controls()"):
            place = Place(*values)
            if not (kind == "tab" and place.is_chosen):
                places.setdefault(Control(kind, label), []).append(place)
        unknown = [control.kind for control in places if control.kind not in _ACTIONS]
        assert not unknown, f"It is not known how to use {unknown}"
        return places

    def _choice(self, places: dict[Control, list[Place]]) -> Control:
        weights = [self._weight(control, own[0]) for control, own in places.items()]
        return self.random.choices(list(places), weights)[0]

    def _weight(self, control: Control, place: Place) -> float:
        use = self.uses.get(control, Use())
        if not use.changes:
            return _UNTRIED * _WEIGHTS[control.kind] / (1 + use.times)
        # Boxes add up: what is searched for with all of them is hardly ever found.
        full = 4 if control.kind == "text" and place.is_chosen else 1
        rarely = _OFTEN / (_OFTEN + use.times)
        return full * rarely * _WEIGHTS[control.kind] * (1 + use.changes) / (1 + use.times)

    def _element(self, places: list[Place]) -> Any:
        """Return one of the elements, rather one that has not been chosen yet."""
        free = [place for place in places if not place.is_chosen] or places
        fewest = min(self.chosen[place.value] for place in free)
        place = self.random.choice([each for each in free if self.chosen[each.value] == fewest])
        self.chosen[place.value] += 1
        return self.window.evaluate_handle("n => window.elements[n]", place.number).as_element()

    def _contents(self, control: Control) -> str:
        what = "window.contents()"
        if control.kind == "player":  # others may reach their end meanwhile
            what = "[...document.querySelectorAll('audio, video')].map(each => each.paused).join()"
        return str(self.window.evaluate(what))

    # -- By hand -----------------------------------------------------------------------------------

    def press(self, element: Any) -> str:
        """Press a button with the mouse or a key."""
        if self.random.random() < 0.5:
            element.click()
            return "click"
        return self._key(element, self.random.choice(["Enter", "Space"]))

    def _key(self, element: Any, key: str) -> str:
        element.focus()
        self.window.keyboard.press(key)
        return key

    def choose(self, element: Any) -> str:
        """Choose a radio button with the mouse or a key, or the one beside that which is chosen."""
        key = self.random.choice(["", "", "Space", "ArrowDown", "ArrowUp"])
        if not key:
            element.click()
            return f"click on {element.evaluate('each => each.value')!r}"
        if key != "Space":
            chosen = "each => each.closest('fieldset').querySelector(':checked') ?? each"
            element = element.evaluate_handle(chosen).as_element()
        return self._key(element, key)

    def write(self, element: Any) -> str:
        """Write into a box, or empty it."""
        is_full = element.evaluate("each => each.value !== ''")
        text = "" if is_full and self.random.random() < 0.8 else self.random.choice(self.texts)
        element.focus()
        self.window.keyboard.press("Control+A")
        self.window.keyboard.press("Delete")
        self.window.keyboard.insert_text(text)
        if ends := self.random.random() < 0.5:
            self.window.keyboard.press("Enter")
        return f"write {text[:60]!r} ({len(text)}){' and Enter' if ends else ''}"

    def drop_down(self, element: Any) -> str:
        """Choose an option with the mouse, or write and press Enter."""
        element.click()
        options = self.window.get_by_role("option")
        self.window.evaluate("window.atRest()")
        if (count := options.count()) and self.random.random() < 0.8:
            option = options.nth(self.random.randrange(count))
            done = f"click on {option.inner_text()!r}"
            option.click()
        else:
            done = f"write {(text := self.random.choice(self.texts))[:60]!r} and Enter"
            self.window.keyboard.insert_text(text)
            self.window.keyboard.press("Enter")
        self.window.evaluate("window.atRest()")
        self.window.keyboard.press("Escape")
        element.evaluate("each => each.blur()")
        return done

    def play(self, element: Any) -> str:
        """Press the button that plays, or the key for it, and wait until it does, or stops."""
        before = element.evaluate("each => each.paused")
        if self.random.random() < 0.5:
            height = element.bounding_box()["height"]
            # In the row of buttons; that of a film is above its slider.
            up = height / 2 if element.evaluate("each => each.matches('audio')") else 48
            element.click(position={"x": 25, "y": height - up})
            done = "click on play"
        else:
            done = self._key(element, "Space")
        changed = "([each, before]) => each.paused !== before"
        self.window.wait_for_function(changed, arg=[element, before])
        return done


_ACTIONS: Mapping[str, Callable[[RandomUser, Any], str]] = MappingProxyType(
    {
        "tab": RandomUser.press,
        "button": RandomUser.press,
        "token": RandomUser.press,
        "radio": RandomUser.choose,
        "text": RandomUser.write,
        "dropdown": RandomUser.drop_down,
        "player": RandomUser.play,
    }
)
