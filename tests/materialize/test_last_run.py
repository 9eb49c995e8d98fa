"""A store remembers its last run, without its secrets, and ``materialize --store`` goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cli_process import run_any, run_inline, run_inline_json
from support.plain_corpus import make_corpus, video_ids, wav
from support.property_settings import fewer_examples

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import SelectionError, SourceError, StoreError
from voxblink2_lib.materialize.last_run import read_last_run, remember_run, resumed_request
from voxblink2_lib.materialize.request import EVERYTHING, FETCHING, MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_database import LedgerDatabase

URL = "https://media.example.org/{video_id}.wav"


@dataclass
class Place:
    """A corpus, and a store that need not exist."""

    corpus: Path
    store: Path

    @property
    def words(self) -> tuple[str, ...]:
        media = str(self.corpus / "media")
        return ("--data-dir", str(self.corpus), "--source", media, "--store", str(self.store))

    def options(self, config: str | None = None) -> dict[str, Any]:
        return read_last_run(Store(self.store), config)[1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three videos of one speaker and one of another."""
    corpus = make_corpus(tmp_path / "corpus", video_ids(4), per_speaker=3)
    return Place(corpus, tmp_path / "my store")


def go_on(place: Place, *words: object, code: int = 0) -> dict[str, Any]:
    return run_inline_json("materialize", "--store", place.store, *words, code=code)


# -- Going on --------------------------------------------------------------------------------------


def test_a_store_alone_goes_on_with_the_last_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.corpus.parent)
    (place.corpus / "media" / "id000000" / "video000002.wav").unlink()
    words = ("--data-dir", "corpus", "--source", "corpus/media", "--store", "my store")
    run_inline("materialize", *words, "--max-speakers", 1, "--workers", 1)
    assert place.options() == {
        "data_dir": str(place.corpus),
        "source": str(place.corpus / "media"),
        "max_speakers": 1,
        "workers": 1,
    }
    (place.corpus / "media" / "id000000" / "video000002.wav").write_bytes(wav())
    monkeypatch.chdir("/")
    assert go_on(place)["videos"] == {"done": 3}
    assert place.options()["max_speakers"] == 1


def test_a_selection_that_is_taken_over_is_told(place: Place) -> None:
    words = ("--max-speakers", 1, "--exclude", "id000001", "id000002")
    assert "last run" not in run_inline("materialize", *place.words, *words).stderr
    told = (
        "The selection is that of the store's last run: --exclude (2 ids), --max-speakers 1. To "
        "leave it out, add --forget exclude --forget max-speakers."
    )
    alone = ("--store", place.store)
    assert told in run_inline("materialize", *alone).stderr
    assert place.options()["max_speakers"] == 1
    left_out = ("--forget", "exclude", "--forget", "max-speakers")
    assert "last run" not in run_inline("materialize", *alone, *left_out).stderr
    assert not {"exclude", "max_speakers"} & place.options().keys()


def test_a_run_that_names_the_release_is_not_limited_by_the_last_one(place: Place) -> None:
    run_inline("materialize", *place.words, "--max-speakers", 1)
    assert "last run" not in run_inline("materialize", *place.words).stderr
    assert "max_speakers" not in place.options()


def test_an_option_that_is_given_counts_alone_and_is_remembered(place: Place) -> None:
    run_inline("materialize", *place.words, "--max-speakers", 1, "--max-videos-per-speaker", 1)
    assert go_on(place)["videos"] == {"done": 1}
    assert go_on(place, "--max-videos-per-speaker", 2)["videos"] == {"done": 2}
    assert go_on(place)["videos"] == {"done": 2}
    assert go_on(place, "--forget", "max-videos-per-speaker")["videos"] == {"done": 3}
    assert "max_videos_per_speaker" not in place.options()
    assert go_on(place, "--forget", "max-speakers", "--speakers", "id000001", "id000000")[
        "videos"
    ] == {"done": 4}
    assert place.options()["speakers"] == ["id000000", "id000001"]


def test_what_cannot_be_forgotten_is_refused(place: Place) -> None:
    message = run_any("materialize", "--store", place.store, "--forget", "store").stderr
    assert "argument --forget: invalid choice: 'store' (choose from" in message


def test_a_refused_run_is_not_remembered(place: Place, tmp_path: Path) -> None:
    run_inline("materialize", *place.words)
    before = place.options()
    (tmp_path / "empty").mkdir()
    run_inline("materialize", "--store", place.store, "--audio-format", "wav", code=2)
    run_inline("materialize", "--store", place.store, "--speakers", "id999999", code=2)
    assert place.options() == before


def test_a_store_of_old_goes_on_with_its_source(place: Place) -> None:
    run_inline("materialize", *place.words, "--max-speakers", 1)
    with Ledger(Store(place.store).ledger, "audio") as ledger:
        ledger.set_setting("request", "")
    assert place.options() == {"source": str(place.corpus / "media")}
    assert "No release was named" in run_any("materialize", "--store", place.store).stderr
    assert go_on(place, "--data-dir", place.corpus)["videos"] == {"done": 4}


def test_the_release_of_the_store_counts_more_than_the_variable(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline("materialize", *place.words)
    monkeypatch.setenv("VOXBLINK2_RELEASE", "demo")
    assert go_on(place)["videos"] == {"done": 4}
    # A new store has none of its own.
    new = replace(place, store=place.store.with_name("new"))
    assert go_on(new, "--max-speakers", 1)["store"].endswith("new")
    assert new.options()["data_dir"] == "demo"
    run_inline("materialize", "--store", place.store, "--data-dir", "demo", code=2)


def test_the_release_of_the_variable_is_remembered_in_full(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.corpus.parent)
    monkeypatch.setenv("VOXBLINK2_RELEASE", "corpus")
    run_inline("materialize", *place.words[2:])
    assert place.options()["data_dir"] == str(place.corpus)


def test_index_goes_on_with_the_release(place: Place) -> None:
    run_inline("materialize", *place.words)
    shutil.rmtree(place.store / "index")
    assert run_inline_json("index", "--store", place.store)["videos"] == 4


# -- Configurations --------------------------------------------------------------------------------


def test_the_configuration_is_that_of_the_last_run(tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = ("--store", store, "--data-dir", "demo", "--max-speakers", 1, "--workers", 1)
    run_inline("materialize", *words, "--config", "audio-visual", "--video-size", 48)
    assert run_inline_json("materialize", "--store", store)["config"] == "audio-visual"
    # The other one begins with the same options.
    audio = run_inline_json("materialize", "--store", store, "--config", "audio")
    assert audio["config"] == "audio"
    assert audio["speakers"]["complete"] + audio["speakers"]["partial"] == 1
    assert run_inline_json("materialize", "--store", store)["config"] == "audio"
    assert run_inline_json("retry", "--store", store, "--class", "gone")["config"] == "audio"


def test_a_store_of_old_with_one_configuration_goes_on_with_it(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "audio-visual") as ledger:
        ledger.add_jobs([[]])
    assert read_last_run(Store(tmp_path)) == ("audio-visual", {})
    with Ledger(tmp_path / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([[]])
    assert read_last_run(Store(tmp_path)) == ("audio", {})


def test_the_ledger_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for config in ("audio", "audio-visual"):
        with Ledger(tmp_path / "ledger.sqlite", config) as ledger:
            ledger.set_setting("source", f"https://{config}.example.org/{{video_id}}")
            ledger.set_last_config()
    opened: list[Path] = []
    real = LedgerDatabase.open

    def counted(path: Path, **options: bool) -> LedgerDatabase:
        opened.append(path)
        return real(path, **options)

    monkeypatch.setattr(LedgerDatabase, "open", counted)
    for named, config in (("audio", "audio"), (None, "audio-visual")):
        found, options = read_last_run(Store(tmp_path), named)
        assert found == config
        assert options == {"source": f"https://{config}.example.org/{{video_id}}"}
    assert len(opened) == 2


# -- Loads -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline_workers")
def test_a_load_is_remembered_if_it_has_work(place: Place) -> None:
    def load(**options: Any) -> None:
        request = MaterializeRequest.of(
            data_dir=str(place.corpus), store=str(place.store), workers=1, **options
        )
        materialize(request, retry=False, wait=True)

    media = str(place.corpus / "media")
    load(source=media, max_speakers=1)
    assert place.options()["max_speakers"] == 1
    load(source=URL, proxy="http://10.0.0.1:1", max_speakers=1)  # nothing is left to do
    assert place.options()["source"] == media
    assert "proxy" not in place.options()
    load(source=media)
    assert "max_speakers" not in place.options()


# -- What has moved --------------------------------------------------------------------------------


def test_a_release_that_moved(place: Place) -> None:
    run_inline("materialize", *place.words)
    moved = place.corpus.rename(place.corpus.with_name("moved"))
    done = run_any("materialize", "--store", place.store)
    assert done.returncode == 2
    assert (
        f"The release {place.corpus} does not exist. Check data_dir. The store {place.store} "
        "remembers it of its last run. If it was moved, name its place: 'voxblink2 materialize "
        f'--store "{place.store}" --config audio --source SOURCE --data-dir RELEASE\''
    ) in done.stderr
    assert go_on(place, "--data-dir", moved, "--source", moved / "media")["videos"] == {"done": 4}
    assert place.options()["data_dir"] == str(moved)


def test_a_file_that_is_gone(place: Place, tmp_path: Path) -> None:
    reasons = tmp_path / "reasons.toml"
    request = MaterializeRequest.of(
        data_dir="demo", source=URL, store=str(place.store), cookies=str(Path(__file__))
    )
    remembered(place, request)
    with Ledger(Store(place.store).ledger, "audio") as ledger:
        text = str(ledger.setting("request")).replace(str(Path(__file__)), str(reasons))
        ledger.set_setting("request", text)
    with pytest.raises(SourceError, match=r"reasons.toml' does not exist.* remembers options of"):
        resumed_request({"store": place.store})
    assert resumed_request({"store": place.store, "cookies": [__file__]}).fetch.cookies
    assert not resumed_request({"store": place.store}, {*EVERYTHING} - {"cookies"}).fetch.cookies
    # What is wrong by itself has nothing to do with what is remembered.
    with pytest.raises(SourceError, match=r"budget must be .* got -1\.$"):
        resumed_request({"store": place.store, "cookies": [__file__], "budget": -1})


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"speakers": ["/etc/passwd"]}', StoreError, "remembers --speakers with something"),
        ('{"exclude": "id000001"}', StoreError, "remembers --exclude with something"),
        ('{"max_speakers": "two"}', SelectionError, "max_speakers must be a whole number"),
        ('{"workers": [1]}', SelectionError, "workers must be a whole number"),
        ('{"proxy": [["x"]]}', SourceError, "proxy must be a text"),
    ],
)
def test_a_request_that_no_run_wrote_is_checked(
    place: Place, text: str, error: type[Exception], words: str
) -> None:
    with Ledger(make(place).ledger, "audio") as ledger:
        ledger.set_setting("request", text)
        ledger.set_setting("source", "youtube")
    with pytest.raises(error, match=words):
        resumed_request({"store": place.store})


@pytest.mark.parametrize(
    "text", ["{", "3", "[1]", "[" * 100_000, '{"data_dir": 3, "store": "x", "no": 1}']
)
def test_a_request_that_is_none_is_no_request(place: Place, text: str) -> None:
    with Ledger(make(place).ledger, "audio") as ledger:
        ledger.set_setting("request", text)
    assert read_last_run(Store(place.store)) == ("audio", {})


def make(place: Place) -> Store:
    place.store.mkdir(exist_ok=True)
    return Store(place.store)


# -- Any options -----------------------------------------------------------------------------------


def remembered(place: Place, request: MaterializeRequest, source: str = URL) -> None:
    store = make(place)
    with Ledger(store.ledger, request.config) as ledger:
        remember_run(request, store, ledger, source=source)


IDS = st.sets(st.sampled_from(["id000001", "id00002", "-demoSailor", "--demoSailo"]), min_size=1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "speakers": IDS.map(lambda ids: sorted({"id000001"} | {i for i in ids if i[:2] == "id"})),
    "exclude": IDS.map(sorted),
    "max_speakers": st.integers(1, 9),
    "max_videos_per_speaker": st.integers(1, 9),
    "workers": st.integers(1, 9),
    "proxy": st.lists(
        st.sampled_from(["http://10.0.0.1:8080", "socks5://b:1", "http://c"]), min_size=1
    ),
    "cookies_from_browser": st.just("firefox"),
    "budget": st.sampled_from([0.0, 1.5, 300.0]),
    "sleep": st.sampled_from([0.0, 2.0]),
    "limit_rate": st.just("500K"),
    "extractor_args": st.just(["youtube:player_client=web"]),
    "yt_dlp": st.sampled_from(["", "--sleep-requests 1 --force-ipv4"]),
    "fetches": st.integers(1, 9),
    "canary": st.just(["jNQXAC9IVRw"]),
    "no_plugins": st.just(True),
}


@fewer_examples(2)
@given(options=st.fixed_dictionaries({}, optional=VALUES), more=st.data())
def test_any_options_come_back_and_any_of_them_is_overridden(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], more: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    place = Place(folder, folder / "store")
    request = MaterializeRequest.of(data_dir="demo", source=URL, store=str(place.store), **options)
    remembered(place, request)
    assert resumed_request({"store": str(place.store)}) == request
    # Again: what is remembered of it is the same.
    before = place.options()
    remembered(place, resumed_request({"store": str(place.store)}))
    assert place.options() == before
    name = more.draw(st.sampled_from(sorted(VALUES)))
    value = more.draw(VALUES[name])
    given_now = MaterializeRequest.of(
        data_dir="demo", source=URL, store=str(place.store), **{**options, name: value}
    )
    assert resumed_request({"store": str(place.store), name: value}) == given_now
    without = {key: value for key, value in options.items() if key != name}
    assert resumed_request(
        {"store": str(place.store)}, {*EVERYTHING} - {name}
    ) == MaterializeRequest.of(data_dir="demo", source=URL, store=str(place.store), **without)


def test_a_retry_takes_no_release_and_no_selection(place: Place) -> None:
    request = MaterializeRequest.of(
        data_dir="demo", source=URL, store=str(place.store), budget=5.0, max_speakers=1
    )
    remembered(place, request)
    resumed = resumed_request({"store": str(place.store)}, FETCHING)
    assert (resumed.data_dir, resumed.selection.max_speakers) == (None, None)
    assert (resumed.source, resumed.fetch.budget) == (URL, 5.0)


def test_a_folder_takes_no_options_of_downloads(place: Place) -> None:
    request = MaterializeRequest.of(
        data_dir="demo", source=URL, store=str(place.store), budget=5.0, fetches=3
    )
    remembered(place, request)
    resumed = resumed_request({"store": str(place.store), "source": str(MEDIA)})
    assert resumed.fetch == type(resumed.fetch)(fetches=3)


def test_cookies_of_a_browser_take_the_place_of_files(place: Place) -> None:
    files = {"cookies": [str(Path(__file__))]}
    request = MaterializeRequest.of(data_dir="demo", source=URL, store=str(place.store), **files)
    remembered(place, request)
    resumed = resumed_request({"store": str(place.store), "cookies_from_browser": "firefox"})
    assert (resumed.fetch.cookies, resumed.fetch.cookies_from_browser) == ((), "firefox")


# -- Secrets ---------------------------------------------------------------------------------------

PASSWORD, TOKEN = "s3cret-passw0rd", "t0k3n-0f-mine"
SECRETS: dict[str, tuple[Any, Any]] = {
    "source": (
        f"http://me:{PASSWORD}@127.0.0.1/{{video_id}}.wav?token={TOKEN}",
        "http://***@127.0.0.1/{video_id}.wav?token=***",
    ),
    "proxy": (
        ["http://a:1", f"http://me:{PASSWORD}@b:1"],
        ["http://a:1", "http://***@b:1"],
    ),
    "extractor_args": (
        [f"youtube:po_token=web.gvs+{TOKEN}"],
        ["youtube:po_token=***"],
    ),
    "yt_dlp": (
        f"--add-headers 'X-Key: {TOKEN}' --username me --password {PASSWORD}",
        "--add-headers 'X-Key: ***' --username me --password ***",
    ),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_not_kept_and_must_be_given_again(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, kept = SECRETS[name]
    options = {"source": URL, name: value}
    request = MaterializeRequest.of(data_dir="demo", store=str(place.store), **options)
    source = kept if name == "source" else URL
    remembered(place, request, source)
    assert place.options()[name] == kept
    for path in place.store.iterdir():
        assert not any(text.encode() in path.read_bytes() for text in (PASSWORD, TOKEN)), path
    option, variable = f"--{name.replace('_', '-')}", f"VOXBLINK2_{name.upper()}"
    shown = kept if isinstance(kept, str) else " ".join(kept)
    done = run_any("materialize", "--store", place.store)
    assert done.returncode == 2
    assert (
        f"The store {place.store} remembers {option} as {shown}: secrets are not kept. Give "
        f"{option} again in full, or set the environment variable {variable} and run the same "
        "command again."
    ) in done.stderr
    assert resumed_request({"store": str(place.store), name: value}) == request
    monkeypatch.setenv(variable, value if isinstance(value, str) else " ".join(value))
    assert resumed_request({"store": str(place.store)}) == request
    # Another one is a change.
    monkeypatch.setenv(variable, "youtube")
    if name == "source":
        assert resumed_request({"store": str(place.store)}).source == "youtube"
    without = resumed_request({"store": str(place.store)}, {*EVERYTHING} - {name})
    assert not getattr(without if name == "source" else without.fetch, name)


def test_half_a_quote_is_not_kept_at_all(place: Place) -> None:
    request = MaterializeRequest.of(
        data_dir="demo", source=URL, store=str(place.store), yt_dlp=f"--password 'x {PASSWORD}"
    )
    remembered(place, request)
    assert place.options()["yt_dlp"] == "***"


@pytest.fixture
def site() -> Iterator[MediaSite]:
    with MediaSite(MEDIA) as running:
        yield running


def test_the_variables_serve_a_first_run_and_their_secrets_stay_out(
    place: Place, site: MediaSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = site.url_template.replace("://", f"://me:{PASSWORD}@") + f"?token={TOKEN}"
    monkeypatch.setenv("VOXBLINK2_SOURCE", secret)
    words = ("--data-dir", "demo", "--store", place.store, "--speakers", "id990001")
    done = run_any("materialize", *words)
    assert done.returncode == 0, done.stderr
    monkeypatch.delenv("VOXBLINK2_SOURCE")
    refused = run_any("materialize", "--store", place.store)
    assert refused.returncode == 2
    assert "--source as http://***@127.0.0.1" in refused.stderr
    monkeypatch.setenv("VOXBLINK2_SOURCE", secret)
    resumed = run_any("materialize", "--store", place.store)
    retried = run_any("retry", "--store", place.store, "--class", "transient")
    assert (resumed.returncode, retried.returncode) == (0, 0)
    texts = [f"{run.stdout}{run.stderr}".encode() for run in (done, refused, resumed, retried)]
    texts += [path.read_bytes() for path in place.store.rglob("*") if path.is_file()]
    assert not [text for text in texts if PASSWORD.encode() in text or TOKEN.encode() in text]
