"""Every command that a message names runs as it is printed, on the store that it is printed for.

Messages make commands with ``next_command``, or with ``verify_command``, which calls it. Each place
in the library that does so has a case here: how its message comes about, and with which code the
command ends.
"""

from __future__ import annotations

import ast
import html
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support import hints
from support.archive_builder import write_archive
from support.cli_process import run_any, run_inline
from support.inline_pool import InlinePool
from support.model_oracle import small_wespeaker_folder
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.cli import _parser
from voxblink2_lib.embedding.back_ends import back_end_of
from voxblink2_lib.errors import UsageError, VoxBlink2Error, next_command
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.published.reading import open_published
from voxblink2_lib.recipes.validation import held_out_by_file
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.speaker_index import TRANSCRIPTS, SpeakerIndex
from voxblink2_lib.release.speaker_split import SpeakerSplit, make_split
from voxblink2_lib.release.tombstones import PurgedIds, Tombstones
from voxblink2_lib.sources.advice import own_advice
from voxblink2_lib.sources.options import Route
from voxblink2_lib.sources.probe import ProbeResult
from voxblink2_lib.sources.ytdlp import YtDlpSource
from voxblink2_lib.store.backup import back_up_ledger
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shards import read_batches
from voxblink2_lib.store.split_views import facts_of
from voxblink2_lib.store.status import empty_store_message, open_ledger
from voxblink2_lib.training import Corpus

LIBRARY = Path(__file__).parents[2] / "voxblink2_lib"
PURGED = PurgedIds(videos=frozenset({"video000001"}))
MISSING = VideoKey("id000000", "video000002")


@dataclass
class Place:
    """A store of three videos, one of which is missing, in a folder whose name has a space."""

    folder: Path

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    @property
    def store(self) -> Store:
        return Store(self.folder / "my store")

    @property
    def shard(self) -> Path:
        return self.store.shards("audio") / "audio-00000.arrow"

    def words(self, *more: object) -> tuple[object, ...]:
        media = self.corpus / "media"
        return ("--data-dir", self.corpus, "--source", media, "--store", self.store.root, *more)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hints")
    place = Place(folder)
    make_corpus(place.corpus, video_ids(3))
    (place.corpus / "media" / MISSING.speaker_id / f"{MISSING.video_id}.wav").unlink()
    run_inline("materialize", *place.words("--workers", 1))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    """A copy; the corpus is moved there too, so that nobody reads another test's."""
    folder = tmp_path / "hints"
    shutil.copytree(made, folder)
    place = Place(folder)
    run_inline("materialize", *place.words("--workers", 1))
    return place


@pytest.fixture(autouse=True)
def _source_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """``doctor`` alone looks at YouTube, which no test may reach."""
    answer = ProbeResult(status=204, clock_off_seconds=None)
    monkeypatch.setattr("voxblink2_lib.doctor.source_checks.probe_server", lambda *_, **__: answer)


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(VoxBlink2Error) as caught:
        action()
    return str(caught.value)


def output_of(*words: object) -> str:
    done = run_any(*words)
    return done.stdout + done.stderr


# -- How messages come about -----------------------------------------------------------------------


def no_store(place: Place) -> str:
    return output_of("status", "--store", place.folder / "no store")


def retry_of_no_store(place: Place) -> str:
    return output_of("retry", "--store", place.folder / "no store", "--class", "gone")


def nothing_of_a_configuration(place: Place) -> str:
    return empty_store_message(place.store, "audio-visual")


def no_clip_at_all(place: Place) -> str:
    shutil.rmtree(place.store.root)
    media = place.corpus / "media" / MISSING.speaker_id
    for path in media.iterdir():
        path.write_bytes(b"no media")
    return output_of("materialize", *place.words())


def damaged_index(place: Place) -> str:
    (place.store.index / "videos.parquet").write_bytes(b"damaged")
    return error_of(lambda: Index(place.store.index).videos())


def transcripts(place: Place, words: str = "good day") -> None:
    folder = place.corpus / "asr_res"
    folder.mkdir(exist_ok=True)
    (folder / "id000000").write_text(f"00001 {words}")
    run_inline("index", "--data-dir", place.corpus, "--store", place.store.root)


def half_purged(place: Place) -> str:
    Tombstones.of(place.store.root).added(PURGED, reason="").begun().write(place.store.root)
    return output_of("materialize", *place.words())


def half_purged_and_verified(place: Place) -> str:
    half_purged(place)
    return output_of("verify", "--store", place.store.root)


def damaged_tombstones(place: Place) -> str:
    (place.store.root / "tombstones.json").write_text("damaged")
    return error_of(lambda: Tombstones.of(place.store.root))


def shard_that_has_what_was_purged(place: Place) -> str:
    stranger = place.shard.with_name("audio-00099.arrow")
    kept = shutil.copy(place.shard, place.folder)
    run_inline("purge", "video000000", "--store", place.store.root)
    shutil.copy(kept, stranger)
    write_checksum(stranger)
    return output_of("repair", "--store", place.store.root, "--no-fetch")


def split_by_what_nobody_knows(place: Place) -> str:
    return error_of(lambda: facts_of(place.store, ["id000000"], "language"))


def split_of_another_file(place: Place) -> str:
    return error_of(lambda: SpeakerSplit.read(place.folder / "validation.txt"))


def damaged_transcripts(place: Place) -> str:
    transcripts(place)
    (place.store.index / TRANSCRIPTS).write_bytes(b"damaged")
    return error_of(lambda: SpeakerIndex(place.store.index))


def transcripts_without_release(place: Place) -> str:
    transcripts(place)
    (place.store.index / TRANSCRIPTS).write_bytes(b"damaged")
    shutil.rmtree(place.corpus / "asr_res")
    return output_of("repair", "--store", place.store.root)


def transcripts_that_are_new(place: Place) -> str:
    transcripts(place)
    (place.corpus / "asr_res" / "id000000").write_text("00001 good night")
    caught: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "voxblink2_lib.materialize.speakers._log.warning",
            lambda text, *values: caught.append(text % values),
        )
        options = {"data_dir": str(place.corpus), "source": str(place.corpus / "media")}
        request = MaterializeRequest.of(store=str(place.store.root), **options)
        materialize(request, retry=False, wait=False)
    return "\n".join(caught)


def interrupted_check(place: Place) -> str:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.store.verify.verify_store", interrupt)
        return output_of("verify", "--store", place.store.root)


def index_without_release(place: Place) -> str:
    (place.store.index / "videos.parquet").write_bytes(b"damaged")
    place.corpus.rename(place.folder / "moved")
    message = output_of("repair", "--store", place.store.root)
    place.folder.joinpath("moved").rename(place.corpus)  # for the places that are filled in
    return message


def damaged_shard(place: Place) -> str:
    place.shard.write_bytes(place.shard.read_bytes()[:-100])
    return error_of(lambda: list(read_batches(place.shard)))


def shard_that_is_gone(place: Place) -> str:
    place.shard.unlink()
    return error_of(lambda: list(read_batches(place.shard)))


def damaged_ledger(place: Place) -> str:
    back_up_ledger(place.store)
    place.store.ledger.write_bytes(b"damaged" * 1000)
    return error_of(lambda: open_ledger(place.store, "audio"))


def waiting(place: Place) -> str:
    with Ledger(place.store.ledger, "audio") as ledger:
        answers = ledger.verdicts(str(place.corpus / "media"))
        answers.record(Outcome(MISSING, "transient", "no answer"))
    return output_of("status", "--store", place.store.root)


def other_decoders(place: Place) -> str:
    with Ledger(place.store.ledger, "audio") as ledger:
        ledger.set_setting("made_with", '["libavcodec 1.0.0"]')
    (place.corpus / "media" / MISSING.speaker_id / f"{MISSING.video_id}.wav").write_bytes(b"")
    shutil.copy(
        place.corpus / "media" / MISSING.speaker_id / "video000001.wav",
        place.corpus / "media" / MISSING.speaker_id / f"{MISSING.video_id}.wav",
    )
    return output_of("materialize", "--store", place.store.root)


def load(place: Place) -> str:
    from datasets import load_dataset

    import voxblink2  # noqa: F401  # registers the builder

    caught: list[str] = []
    options = {"data_dir": str(place.corpus), "source": str(place.corpus / "media")}
    places = {"store": str(place.folder / "new"), "cache_dir": str(place.folder / "cache")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", InlinePool)
        patched.setattr(
            "voxblink2._log.warning", lambda text, *values: caught.append(text % values)
        )
        load_dataset("voxblink2", "audio", **options, **places)
    return "\n".join(caught)


def report(place: Place) -> str:
    page = place.folder / "report.html"
    run_inline("report", "--store", place.store.root, "--out", page)
    return html.unescape(page.read_text())


def moved(place: Place) -> str:
    place.corpus.rename(place.folder / "moved")
    message = output_of("materialize", "--store", place.store.root)
    place.folder.joinpath("moved").rename(place.corpus)  # for the places that are filled in
    return message


def space_for_a_new_store(place: Place) -> str:
    shutil.rmtree(place.store.index)
    return output_of("doctor", *place.words())


def cookies_that_are_none(place: Place) -> str:
    jar = place.folder / "my cookies.txt"
    jar.write_text("none")
    url = "http://127.0.0.1:9/{video_id}.wav"
    words = ("--data-dir", "demo", "--store", place.folder / "new", "--source", url)
    return output_of("materialize", *words, "--cookies", jar)


def cookies_that_yt_dlp_cannot_read(place: Place) -> str:
    jar = place.folder / "my cookies.txt"
    jar.write_text("none")
    return error_of(
        lambda: YtDlpSource("http://127.0.0.1:9/{video_id}", route=Route(cookies=str(jar)))
    )


def files_by_hand(place: Place) -> str:
    folder = place.folder / "my release"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "gdown", None)
        return output_of("release", "get", "--to", folder)


def parts_without_sums(place: Place) -> str:
    write_archive(place.folder / "my parts", 6)
    return output_of("release", "check", place.folder / "my parts")


def archive_with_a_wrong_checksum(place: Place) -> str:
    parts = write_archive(place.folder / "my parts", 6)
    (place.folder / "sums").write_text(f"{'0' * 32}  {parts[0].name}\n")
    content = parts[-1].read_bytes()
    parts[-1].write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    words = ("--source", place.folder / "my parts", "--store", place.folder / "new")
    return output_of("materialize", *words)


def annotations_that_come_later(place: Place) -> str:
    write_archive(place.folder / "my parts", 6)
    words = ("--source", place.folder / "my parts", "--store", place.folder / "new")
    run_inline("materialize", *words)
    return output_of("materialize", *words, "--data-dir", place.corpus)


def advice(_: Place) -> str:
    return own_advice(
        "to use another runtime add  --js-runtimes RUNTIME[:PATH]  to your command/config"
    )


def split_of_other_speakers(place: Place) -> str:
    rule = make_split(["id900001", "id900002"], count=1, seed=3)
    path = place.folder / "others.txt"
    rule.write(path, [])
    corpus = Corpus.open(place.store.root)
    assert not rule.is_validation(corpus.speakers).any()
    return error_of(lambda: held_out_by_file(corpus, path))


def model_of_wespeaker(place: Place) -> str:
    folder = small_wespeaker_folder(place.folder / "their model")
    return error_of(lambda: back_end_of(folder))


def bare_doctor(_: Place) -> str:
    return next_command("doctor")


def nothing_at_a_url(place: Place) -> str:
    return error_of(lambda: open_published(place.folder.joinpath("nothing").as_uri()))


def gone_at_a_url(place: Place) -> str:
    url = place.folder.joinpath("published").as_uri()
    run_inline("materialize", *place.words(), "--store", url)
    next((place.folder / "published" / "shards" / "audio").glob("*.arrow")).unlink()
    return output_of("verify", "--store", url)


def whole_of_slices(place: Place) -> str:
    url = place.folder.joinpath("sliced").as_uri()
    run_inline("materialize", *place.words(), "--store", url, "--shard-of-jobs", "1/3")
    return output_of("materialize", *place.words(), "--store", url)


def merged_while_repaired(place: Place) -> str:
    damaged_shard(place)
    run_any("repair", "--store", place.store.root, "--no-fetch")
    return output_of("merge", place.store.root, "--into", place.folder / "merged")


def defect(place: Place) -> str:
    def fail(*_: object) -> NoReturn:
        raise KeyError("no such thing")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.store.layout.named_store", fail)
        return output_of("status", "--store", place.store.root)


# Of each place in the library: how its message comes about, and the codes of its commands.
CASES: dict[str, tuple[Callable[[Place], str], dict[str, int]]] = {
    "store.status.open_ledger": (no_store, {"materialize": 0}),
    "materialize.run._retry_videos": (retry_of_no_store, {"materialize": 0}),
    # Its media have no pictures.
    "store.status._next_run": (nothing_of_a_configuration, {"materialize": 2}),
    "store.status._next_run again": (no_clip_at_all, {"materialize": 2}),
    "store.layout.check_purged": (half_purged, {"purge": 0}),
    "store.tombstone_checks.unfinished_purge": (
        half_purged_and_verified,
        {"purge": 0, "repair": 0},
    ),
    "release.tombstones.of": (damaged_tombstones, {"repair": 1}),
    "repair.adoption.adopt_shards": (shard_that_has_what_was_purged, {"purge": 0}),
    "store.split_views.facts_of": (split_by_what_nobody_knows, {"index": 0}),
    # The store has one speaker.
    "release.speaker_split.read": (split_of_another_file, {"split": 2}),
    "recipes.validation.held_out_by_file": (split_of_other_speakers, {"split": 2}),
    "embedding.back_ends.back_end_of": (model_of_wespeaker, {"convert": 0}),
    "store.advice.repair_command": (damaged_shard, {"repair": 0}),
    "release.index._named_damage": (damaged_index, {"repair": 0}),
    "release.speaker_index._named_damage": (damaged_transcripts, {"repair": 0}),
    "repair.speakers_repair.mend_speakers": (transcripts_without_release, {"index": 0}),
    "materialize.speakers.suggest_an_index": (transcripts_that_are_new, {"index": 0}),
    "published.reading.no_store": (nothing_at_a_url, {"materialize": 0}),
    "published.slices.check_whole": (whole_of_slices, {"merge": 0}),
    "merge.checks._check_whole": (merged_while_repaired, {"repair": 0}),
    "cli.terminal": (defect, {"env": 0}),
    "cli.verify._verify_url": (gone_at_a_url, {"materialize": 0}),
    "cli.verify._resume": (interrupted_check, {"verify": 0}),
    "store.advice.repair_command again": (shard_that_is_gone, {"repair": 0}),
    "repair.index_repair._advice": (index_without_release, {"repair": 0}),
    "cli.status._time_lines": (waiting, {"materialize": 0}),
    "store.ledger_damage.ways_out": (damaged_ledger, {"repair": 0}),
    "materialize.run._record_format": (other_decoders, {"verify": 0}),
    "store.status.unavailable_messages": (load, {"status": 0, "materialize": 0}),
    "report.page._next_step": (report, {"retry": 0}),
    "materialize.last_run._check_places": (moved, {"materialize": 0}),
    "doctor.store_checks._judge_space": (space_for_a_new_store, {"index": 0}),
    "sources.first_checks.check_downloads": (cookies_that_are_none, {"doctor": 1}),
    "sources.ytdlp._load_cookies": (cookies_that_yt_dlp_cannot_read, {"doctor": 1}),
    "release.by_hand._instructions": (files_by_hand, {"release": 1}),
    "release.folder_check._checked_by_itself": (parts_without_sums, {"archive": 0}),
    "materialize.cut_audio_run._kept": (archive_with_a_wrong_checksum, {"archive": 1}),
    "materialize.cut_audio_videos.later_annotations_message": (
        annotations_that_come_later,
        {"materialize": 0},
    ),
    "sources.advice": (advice, {"doctor": 0}),
    # In a run that cannot go on; the command is the same, whatever the store.
    "materialize.scheduler._handle_answered": (bare_doctor, {"doctor": 0}),
    "materialize.croppers._stop_if_nothing_was_cropped": (bare_doctor, {"doctor": 0}),
}
MAKERS = {"next_command", "verify_command"}
BARE = [name for name, (message, _) in CASES.items() if message is bare_doctor]


@pytest.mark.parametrize("name", CASES)
def test_a_hint_runs_as_it_is_printed(name: str, place: Place) -> None:
    message, codes = CASES[name]
    commands = list(dict.fromkeys(hints.commands_in(message(place))))
    assert {command.split()[1] for command in commands} == set(codes), commands
    for command in commands:
        media, sums = place.corpus / "media", place.folder / "sums"
        new = place.folder / "new store"
        words = hints.words_of(
            command,
            RELEASE=place.corpus,
            SOURCE=media,
            SUMS=sums,
            STORE=place.store.root,
            NEW_STORE=new,
        )
        if "RELEASE" in command and "--source" not in words and words[0] != "index":
            words += ["--source", str(place.corpus / "media")]
        done = run_any(*words)
        # Without a JavaScript runtime, doctor has an error.
        allowed = {codes[words[0]]} | ({0, 1} if words == ["doctor"] else set())
        assert done.returncode in allowed, f"{command}\n{done.stdout}{done.stderr}"


# -- No message without a case ---------------------------------------------------------------------


def calls(node: ast.AST, where: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield calls that make a command, with the module and the innermost function."""
    for child in ast.iter_child_nodes(node):
        module = where.partition(" ")[0]
        inner = f"{module} {child.name}" if isinstance(child, ast.FunctionDef) else where
        if isinstance(child, ast.Call) and ast.unparse(child.func) in MAKERS:
            yield where, child
        yield from calls(child, inner)


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in [*sorted(LIBRARY.rglob("*.py")), LIBRARY.parent / "voxblink2.py"]:
        name = ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts)
        yield name.removeprefix("voxblink2_lib."), ast.parse(path.read_text(encoding="utf-8"))


def test_every_place_that_makes_a_command_has_a_case() -> None:
    places: dict[str, list[ast.Call]] = {}
    for name, tree in sources():
        if name not in {"errors", "store.shard_names"}:  # which define the two
            for where, call in calls(tree, name):
                places.setdefault(where.replace(" ", "."), []).append(call)
    assert places.keys() == {name.removesuffix(" again") for name in CASES}
    for name in BARE:
        assert [ast.unparse(call) for call in places[name]] == ["next_command('doctor')"]


def texts(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of a module that are no docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_docstring = isinstance(node, ast.Expr)
            if isinstance(child, ast.Constant) and not is_docstring:
                yield str(child.value)


def test_no_message_writes_a_command_itself() -> None:
    written = [
        (name, text) for name, tree in sources() for text in texts(tree) if "'voxblink2 " in text
    ]
    assert not written


# -- Commands in texts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "two words",
        'a "quote"',
        "it's",
        "$HOME",
        "`id`",
        "back\\slash",
        "é",
        "!x",
        "",
        "-x",
    ],
)
def test_any_value_comes_back_from_a_message(value: str) -> None:
    command = next_command("verify", store=value, config="audio")
    text = f"It's said: run {command}, or {next_command('doctor')}; that's all."
    first, second = hints.commands_in(text)
    assert (f"'{first}'", second) == (command, "voxblink2 doctor")
    options: Any = _parser().parse_args(hints.words_of(first))
    assert (options.store, options.config) == (value, "audio")


def test_a_command_that_is_none_is_found() -> None:
    hints.note("Run 'voxblink2 verify --stoer x' to see.\n  voxblink2 status --store y\n")
    with pytest.raises(UsageError, match="unrecognized arguments: --stoer x"):
        hints.check()
    hints._noted.clear()


def test_lists_and_switches() -> None:
    assert next_command("retry", lift_pauses=True, since=None, proxy=["a", "b c"]) == (
        "'voxblink2 retry --lift-pauses --proxy a --proxy \"b c\"'"
    )
