"""One bad day among good ones, whatever its form: nothing is buried, and nothing is lost."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import scripted_source
from support.property_settings import fewer_examples
from support.scripted_source import (
    BARE,
    ScriptedSource,
    came,
    cropped,
    failed,
    finals,
    release,
    run,
    statuses,
)

from voxblink2_lib.errors import BlockedError
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask, VideoTask
from voxblink2_lib.outcomes import Outcome, RouteAction
from voxblink2_lib.records import VideoKey

DAYS = 5
BLOCKED = RouteAction(closes_route=True)
LIMITED = RouteAction(60.0, pause_grows=True)
NAMED = "jNQXAC9IVRw"


class World(NamedTuple):
    """What is true of the videos, and what one day makes of it.

    Attributes:
        kinds: of each video: alive, or how the source says that it is not.
        storm: what the bad day says of all: one kind of failure, or several.
        of_first_route: only the first route is concerned.
        day: on which it is.
        start: after how many requests of that day it begins.
        length: for how many requests it lasts.
    """

    kinds: list[str]
    storm: str
    of_first_route: bool
    day: int
    start: int
    length: int
    proxies: int
    fetches: int
    canary: tuple[str, ...]
    seed: int


@st.composite
def worlds(draw: st.DrawFn) -> World:
    kind = st.sampled_from([*["alive"] * draw(st.integers(1, 6)), "bare", "bare", "gone", "junk"])
    return World(
        kinds=draw(st.lists(kind, min_size=1, max_size=60)),
        storm=draw(st.sampled_from(["bare", "503", "mixed", "junk", "blocked", "limited"])),
        of_first_route=draw(st.booleans()),
        day=draw(st.integers(0, 2)),
        start=draw(st.integers(0, 40)),
        length=draw(st.sampled_from([3, 12, 30, 10_000])),
        proxies=draw(st.sampled_from([0, 2, 3])),
        fetches=draw(st.sampled_from([1, 2, 8])),
        canary=draw(st.sampled_from([(), (NAMED,)])),
        seed=draw(st.integers(0, 2**32)),
    )


class Source:
    """Answers as a world says; how long that takes is random."""

    def __init__(self, world: World, script: ScriptedSource) -> None:
        self.world = world
        self.is_bad_day = False
        self._script = script
        self._random = random.Random(world.seed)
        self._junk: set[VideoKey] = set()
        self._before = 0

    def begin(self, day: int) -> None:
        self.is_bad_day = day == self.world.day
        self._before = len(self._script.requests)

    def kind(self, key: VideoKey) -> str:
        return "alive" if key.video_id == NAMED else self.world.kinds[int(key.video_id[5:])]

    def _is_stormy(self, task: FetchTask) -> bool:
        requests = len(self._script.requests) - self._before - self.world.start
        is_concerned = task.source.route.name in {"direct", "10.0.0.1:8080"}
        return (
            self.is_bad_day
            and 0 < requests <= self.world.length
            and (is_concerned or not self.world.of_first_route)
        )

    def answer(self, task: FetchTask) -> FetchResult:
        self._script.delays[task.key] = self._random.choice([1, 1, 2, 6])
        self._junk.discard(task.key)
        kind = self.kind(task.key)
        if self._is_stormy(task):
            # A flagged account still learns what is gone.
            return self._removed(task) if kind == "gone" else self._storm(task)
        if kind == "junk":
            self._junk.add(task.key)
        return {"bare": failed, "gone": self._removed}.get(kind, came)(task)

    def _storm(self, task: FetchTask) -> FetchResult:
        storm = self.world.storm
        if storm == "junk":
            self._junk.add(task.key)
            return came(task)
        if storm == "503":
            return failed(task, "transient", "HTTP Error 503")
        if storm == "blocked" and self._random.random() < 0.3:
            return failed(task, "blocked", "not a bot", action=BLOCKED)
        if storm == "limited" and self._random.random() < 0.3:
            return failed(task, "rate-limited", "a limit", action=LIMITED)
        if storm == "mixed" and self._random.random() < 0.5:
            return failed(task, "private", "HTTP Error 451")
        return failed(task, "ambiguous", BARE)

    def _removed(self, task: FetchTask) -> FetchResult:
        return failed(task, "gone", "removed by the uploader", is_explicit=True)

    def crop(self, task: VideoTask, route: str) -> Outcome:
        if task.key in self._junk:
            return Outcome(task.key, "media-unusable", "no audio", route=route, is_explicit=False)
        return cropped(task, route)


@fewer_examples(5)
@given(world=worlds())
def test_one_bad_day_buries_nothing_and_loses_nothing(
    world: World, releases: dict[int, Path]
) -> None:
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        script = scripted_source.install(patched)
        source = Source(world, script)
        script.answer, script.cropping = source.answer, source.crop
        _limit_rounds(patched, script)
        alive = {f"video{n:06}" for n, kind in enumerate(world.kinds) if kind == "alive"}
        for day in range(DAYS):
            source.begin(day)
            message = _run_day(Path(folder), releases[len(world.kinds)], world)
            assert not alive & set(finals(Path(folder)))
            script.days += 1.3
        # Without a video that is known, a corpus that begins with dead ones takes more runs.
        if not message:
            shown = statuses(Path(folder))
            assert {video for video, status in shown.items() if status == "done"} == alive
        assert not (message and world.canary)


def _run_day(folder: Path, data: Path, world: World) -> str:
    proxies = tuple(f"http://10.0.0.{n}:8080" for n in range(1, world.proxies + 1))
    try:
        run(folder, data, fetches=world.fetches, proxy=proxies, canary=world.canary)
    except BlockedError as error:
        return str(error)
    return ""


def _limit_rounds(patched: pytest.MonkeyPatch, script: ScriptedSource) -> None:
    """Let a run fail that goes round and round, without a second's sleep each time."""
    rounds: list[None] = []
    step = Scheduler._step

    def count(scheduler: Scheduler) -> bool:
        rounds.append(None)
        assert len(rounds) - script.slept < 5000, "the loop does not end"
        return step(scheduler)

    patched.setattr(Scheduler, "_step", count)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return Releases(tmp_path_factory.mktemp("releases"))


class Releases(dict[int, Path]):
    """Releases by their numbers of videos, made when they are needed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, count: int) -> Path:
        self[count] = release(self._folder / str(count), count, per_speaker=7)
        return self[count]
