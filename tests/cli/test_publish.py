"""The command ``publish``: what it prints, what it asks, and what it refuses."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_process import run_any, run_inline, run_inline_json
from support.exported import make_store
from support.hub_server import Hub, Repo, writable_hub

from voxblink2_lib.errors import StoreError
from voxblink2_lib.published import remote_errors
from voxblink2_lib.published.opening import open_place

# Of the Hub's client, when it sends a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

NAME = "me/clips"
PLACE = f"hf://datasets/{NAME}"


class Terminal(io.StringIO):
    """Somebody who types an answer."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 14 videos in one shard, not to be changed."""
    return make_store(tmp_path_factory.mktemp("my clips"), shards=1)


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(remote_errors, "PAUSES_SECONDS", (0.0, 0.0, 0.0))
    with writable_hub(monkeypatch) as hub:
        yield hub


def test_what_is_said(store: Path) -> None:
    words = ("publish", PLACE, "--store", store)
    done = run_inline(*words)
    assert f"Publish    14 utterances of 2 speakers, 0.00 h, to {PLACE}\n" in done.stderr
    assert "To upload  1 of 1 files, about 2" in done.stderr
    assert done.stdout == (
        "Published  14 utterances, private: 1 files are new, 0 were there, 0 went\n"
        'To load    load_dataset("me/clips", "audio", streaming=True)\n'
    )
    assert "To upload  nothing: all files are there\n" in run_inline(*words).stderr


def test_json(store: Path) -> None:
    record = run_inline_json("publish", PLACE, "--store", store, "--with-speaker-info")
    assert len(record.pop("commit")) == 40
    assert record.pop("splits")["train"]["utterances"] == 14
    assert record == {
        **{"data_set": NAME, "config": "audio", "store": str(store), "is_public": False},
        **{"uploaded": 1, "kept": 0, "removed": 0, "erased": 0},
        **{"speakers": 2, "videos": 14, "utterances": 14, "hours": 0.0047},
    }


@pytest.mark.parametrize(("answer", "code"), [("yes\n", 0), ("y\n", 2), ("", 2)])
def test_what_the_whole_world_will_see_is_asked(
    hub: Hub,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    done = run_inline("publish", PLACE, "--store", store, "--public", code=code)
    assert (
        "Everybody in the world will be able to hear the voices of 2 real people in 14 clips at "
        "https://huggingface.co/datasets/me/clips, to download them, and to keep them"
    ) in done.stderr
    assert "Annotations: CC BY-NC-SA 4.0. Media: their owners'." in done.stderr
    assert [repo.is_private for name, repo in hub.repos.items() if name == NAME] == (
        [] if code else [False]
    )


def test_where_nobody_can_be_asked(hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    words = ("publish", PLACE, "--store", store, "--public")
    assert "Confirm it with --yes." in run_inline(*words, code=2).stderr
    assert NAME not in hub.repos
    assert "14 utterances, public" in run_inline(*words, "--yes").stdout
    assert not hub.repos[NAME].is_private
    # Whoever publishes to it again knows that it is public, and need not be asked again.
    assert "Everybody in the world" not in run_inline(*words).stderr
    done = run_inline(*words[:-1], code=2)
    assert f"{PLACE} is public: everybody would see what is published" in done.stderr


def test_another_selection_is_asked(hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    words = ("publish", PLACE, "--store", store)
    run_inline(*words)
    commit = hub.repos[NAME].commit
    done = run_inline(*words, "--videos", "video000003", code=2)
    assert "another part of the store is selected. 1 of its files would be removed" in done.stderr
    assert hub.repos[NAME].commit == commit
    assert (
        "Published  1 utterances" in run_inline(*words, "--videos", "video000003", "--yes").stdout
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hf://datasets/me"], "it must be hf://datasets/USER/NAME"),
        (["hf://datasets/me/clips/folder"], "it must be hf://datasets/USER/NAME"),
        (["s3://bucket/clips"], "is no place for a data set for others"),
        (["hf://spaces/me/eer"], "is no place for a data set for others"),
        (["hf://datasets/me/eer", "--metric", "eer"], "it must be hf://spaces/USER/NAME"),
        (["hf://spaces/me/eer", "--metric", "wer"], "invalid choice: 'wer'"),
        (["hf://spaces/me/eer", "--metric", "eer", "--store", "STORE"], "Leave out --store"),
        ([PLACE, "--store", "none"], "There is no store at"),
        ([PLACE], "Which store? Name its folder with --store"),
        ([PLACE, "--store", "STORE", "--speakers", "id777777"], "id777777"),
        ([PLACE, "--store", "STORE", "--validation", "none.txt"], "none.txt is no file of a split"),
        (["hf://datasets/else/other", "--store", "STORE"], "such as data.csv. Name a new data set"),
    ],
)
def test_what_is_refused(
    *,
    hub: Hub,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.repos["else/other"] = hub.repos["else/other"]._replace(is_private=True)
    given = [str(store) if word == "STORE" else word for word in words]
    assert message in run_inline("publish", *given, code=2).stderr
    assert hub.commits == 0
    assert not hub.uploads


def test_who_is_not_logged_in_or_may_not_write(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "another"
    done = run_inline("publish", PLACE, "--store", store, code=2)
    assert f"The data set {PLACE} cannot be published: " in done.stderr
    assert "Ask its owner for permission, or use other credentials." in done.stderr
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    done = run_inline("publish", PLACE, "--store", store, code=2)
    assert "log in to the Hub with 'hf auth login', or set HF_TOKEN" in done.stderr


def test_a_store_and_a_data_set_for_others_are_kept_apart(hub: Hub, store: Path) -> None:
    hub.repos["me/store"] = Repo({"runs/manifest.json": b"{}"}, "1" * 40, is_private=True)
    done = run_inline("publish", "hf://datasets/me/store", "--store", store, code=2)
    assert "holds a store, by its runs/manifest.json: runs publish there" in done.stderr
    run_inline("publish", PLACE, "--store", store)
    for place in (PLACE, f"{PLACE}/store"):
        with pytest.raises(
            StoreError, match=r'which load_dataset\("me/clips"\) reads. Name another'
        ):
            open_place(place).read()
        assert "is no store" in run_any("status", "--store", place).stderr
