"""Media come whole, or as far as needed, or not at all with the source's own words."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

import pytest
from badsite import MANNERS, BadSite
from truth import (
    AAC,
    FASTSTART,
    H264,
    M4A,
    SPEAKER,
    VIDEO,
    Recipe,
    Studio,
    delays_of,
    ffmpeg,
    utterance,
)

from voxblink2_lib.crop import crop_audio
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import FetchError, MediaError, SourceError, UnreachableError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import Source, SourceSpec, open_source, parse_source
from voxblink2_lib.sources.media import EXTENSIONS, MediaFolder
from voxblink2_lib.sources.youtube import YtDlpSource

KEY = VideoKey(SPEAKER, VIDEO)
UTTERANCES = (utterance(0, 49), utterance(100, 174), utterance(200, 249))
NEEDED_SECONDS = 10.0
# Of several megabytes each: more than the first request takes.
MJPEG = ("-c:v", "mjpeg", "-q:v", "1")
BIG = "testsrc2=size=160x120"
LONG = Recipe(
    "long.mp4", 16_000, 1, "5", (*AAC, *MJPEG, *FASTSTART), duration_seconds=180, picture=BIG
)
LONG_INDEX_LAST = Recipe(
    "long-last.mp4", 16_000, 1, "10", (*AAC, *MJPEG), duration_seconds=30, picture=BIG
)
LONG_WEBM = Recipe(
    "long.webm",
    48_000,
    2,
    "",
    ("-c:a", "libopus", "-vbr", "off", "-b:a", "510k"),
    duration_seconds=50,
)
LONG_WAV = Recipe("long.wav", 44_100, 1, duration_seconds=60)


# yt-dlp keeps connections for the life of a worker, and sources here live for one test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


# What a user may name


def test_youtube_is_the_source_when_none_is_named() -> None:
    assert parse_source(None) == parse_source("youtube")
    assert parse_source(None).kind == "youtube"
    assert parse_source(None).place.startswith("https://www.youtube.com/")
    assert "{video_id}" in parse_source(None).place


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_template_is_a_source(scheme: str) -> None:
    named = f"{scheme}://media.example.org/{{video_id}}.m4a"
    assert parse_source(named) == SourceSpec("url", named)


def test_a_folder_is_a_source_wherever_the_program_runs_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "media").mkdir()
    expected = SourceSpec("folder", str(tmp_path / "media"))
    assert parse_source("media") == expected
    assert parse_source("~/media") == expected
    assert parse_source(str(tmp_path / "media")) == expected


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("https://media.example.org/all.m4a", r"hold \{video_id\} where the video's id goes"),
        ("ftp://media.example.org/{video_id}", "must begin with http:// or https://"),
        ("file:///etc/{video_id}", "must begin with http:// or https://"),
        ("/no/such/folder", "no folder that is there"),
        ("YouTube", "is not 'youtube'"),
        ("media.example.org/{video_id}", "no folder that is there"),
    ],
)
def test_anything_else_is_refused_and_said_why(named: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        parse_source(named)
    assert repr(named) in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "media.tar"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="no folder that is there"):
        parse_source(str(path))


def test_a_worker_opens_its_source_once(tmp_path: Path) -> None:
    folder, address = SourceSpec("folder", str(tmp_path)), SourceSpec("url", "http://x/{video_id}")
    assert isinstance(open_source(folder), MediaFolder)
    source = open_source(address)
    assert isinstance(source, YtDlpSource)
    assert open_source(address) is source


# A folder


def fetch_bytes(source: Source, tmp: Path, key: VideoKey = KEY) -> bytes:
    with source.fetch(key, needed_seconds=NEEDED_SECONDS, tmp=tmp) as media:
        assert media.size_bytes == media.path.stat().st_size
        return media.path.read_bytes()


def test_folder_serves_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    path = tmp_path / SPEAKER / f"{VIDEO}.m4a"
    path.write_bytes(b"media")
    assert VIDEO.startswith("-")
    assert fetch_bytes(MediaFolder(tmp_path), tmp_path) == b"media"
    assert path.exists()


def test_folder_prefers_sound_alone(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    for extension in reversed(EXTENSIONS):
        (tmp_path / SPEAKER / f"{VIDEO}.{extension}").write_bytes(extension.encode())
        assert fetch_bytes(MediaFolder(tmp_path), tmp_path) == extension.encode()


@pytest.mark.parametrize("name", [f"{VIDEO}.txt", f"{VIDEO}.m4a.part", f"x{VIDEO}.m4a", VIDEO])
def test_folder_says_which_file_it_looked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / name).write_bytes(b"")
    words = re.escape(f"no file {SPEAKER}/{VIDEO}.<ext> in {tmp_path} (endings looked for: wav,")
    with pytest.raises(FetchError, match=words):
        fetch_bytes(MediaFolder(tmp_path), tmp_path)


def test_folder_takes_no_video_of_another_speaker(tmp_path: Path) -> None:
    (tmp_path / "id000009").mkdir()
    (tmp_path / "id000009" / f"{VIDEO}.m4a").write_bytes(b"media")
    with pytest.raises(FetchError, match=f"no file {SPEAKER}/"):
        fetch_bytes(MediaFolder(tmp_path), tmp_path)


# An honest site, through yt-dlp


def placed(folder: Path, media: Path) -> Path:
    """Put a medium where `MediaSite` looks for it."""
    (folder / SPEAKER).mkdir(parents=True)
    shutil.copy(media, folder / SPEAKER / f"{VIDEO}{media.suffix}")
    return folder


def assert_cut_exactly(media: Path) -> None:
    cut = crop_audio(media, UTTERANCES, audio_format="flac")
    assert cut.missing == ()
    assert {name: delay for name, delay in delays_of(cut.clips).items() if abs(delay) > 1} == {}


def test_site_media_come_whole_and_leave_nothing(studio: Studio, tmp_path: Path) -> None:
    media, tmp = studio.make(M4A), tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(placed(tmp_path / "media", media)) as site:
        source = YtDlpSource(site.url_template)
        assert fetch_bytes(source, tmp) == media.read_bytes()
        # A worker asks for many videos through one source.
        assert fetch_bytes(source, tmp) == media.read_bytes()
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "words"), [(404, "404"), (403, "403"), (410, "410"), (503, "503"), (429, "429")]
)
def test_the_words_of_a_refusal_are_kept(status: int, words: str, tmp_path: Path) -> None:
    media, tmp = tmp_path / "media", tmp_path / "tmp"
    media.mkdir()
    tmp.mkdir()
    with MediaSite(media, faults={VIDEO: status}) as site:
        source = YtDlpSource(site.url_template)
        with pytest.raises(FetchError, match=f"HTTP Error {words}: ") as caught:
            fetch_bytes(source, tmp)
    assert not isinstance(caught.value, UnreachableError)
    assert "\x1b" not in str(caught.value)
    assert not str(caught.value).startswith("ERROR")
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize("recipe", [LONG, LONG_WEBM, LONG_WAV], ids=lambda recipe: recipe.name)
def test_only_the_needed_beginning_is_fetched(
    studio: Studio, recipe: Recipe, tmp_path: Path
) -> None:
    media = studio.make(recipe)
    whole = media.stat().st_size
    with (
        MediaSite(placed(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert_cut_exactly(fetched.path)
        assert fetched.path.read_bytes() == media.read_bytes()[: fetched.size_bytes]
        assert fetched.size_bytes < whole / 2
        # yt-dlp looks at the first bytes without asking for a range, and hangs up.
        asked = [one.byte_range for one in site.requests if one.byte_range]
        assert sum(stop - start for start, stop in asked) == fetched.size_bytes


def test_a_file_whose_index_is_last_comes_whole(studio: Studio, tmp_path: Path) -> None:
    media = studio.make(LONG_INDEX_LAST)
    with (
        MediaSite(placed(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert_cut_exactly(fetched.path)
        assert fetched.size_bytes == media.stat().st_size > 2 << 20
        # Found out after the first request, and then no time is lost with small ones.
        assert len([one for one in site.requests if one.byte_range]) == 2


def test_no_answer_at_all_is_told_from_a_refusal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    source = YtDlpSource(f"http://127.0.0.1:{port}/{{video_id}}.m4a")
    with pytest.raises(UnreachableError, match=r"[Cc]onnection refused"):
        fetch_bytes(source, tmp_path)
    assert list(tmp_path.iterdir()) == []


# A site that misbehaves

RIGHT = (
    *("good", "no-ranges", "drop-once", "drop-probe", "drip", "gzip", "redirect"),
    *("length-too-long", "length-too-short", "no-length"),
)
WRONG = {
    "drop-always": (FetchError, r"0 bytes read, \d+ more expected"),
    "html": (FetchError, "Unsupported URL"),
    "html-later": (MediaError, "the media file cannot be read"),
    "503": (FetchError, "HTTP Error 503: Service Unavailable"),
    "503-later": (FetchError, "HTTP Error 503: Service Unavailable"),
    "503-once": (FetchError, "HTTP Error 503: Service Unavailable"),
    "empty": (MediaError, "the media file is empty"),
    "empty-later": (MediaError, "the media file is empty"),
    "redirect-loop": (FetchError, "redirect loop"),
}


@pytest.fixture
def bad(studio: Studio, tmp_path: Path) -> BadSite:
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(studio.make(M4A), folder / f"{VIDEO}.m4a")
    return BadSite(folder)


def test_every_manner_is_tested() -> None:
    assert {*RIGHT, *WRONG} == set(MANNERS)


@pytest.mark.parametrize("manners", RIGHT)
def test_a_bad_site_whose_media_can_be_had(
    bad: BadSite, studio: Studio, tmp_path: Path, manners: str
) -> None:
    with bad as site:
        source = YtDlpSource(site.template(manners, ".m4a"))
        assert fetch_bytes(source, tmp_path) == studio.make(M4A).read_bytes()
        assert site.count(manners) < 40


@pytest.mark.parametrize("manners", WRONG)
def test_a_bad_site_whose_media_cannot_be_had(bad: BadSite, tmp_path: Path, manners: str) -> None:
    expected, words = WRONG[manners]
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with bad as site:
        source = YtDlpSource(site.template(manners, ".m4a"))
        with (
            pytest.raises(expected, match=words) as caught,
            source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp) as media,
        ):
            crop_audio(media.path, UTTERANCES, audio_format="flac")
        # The site did answer.
        assert not isinstance(caught.value, UnreachableError)
        assert site.count(manners) < 40
    assert list(tmp.iterdir()) == []


def test_hls_goes_through_the_native_downloader(studio: Studio, tmp_path: Path) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    playlist = folder / f"{VIDEO}.m3u8"
    source = studio.make(Recipe("picture.ts", 44_100, 1, "25", (*AAC, *H264)))
    hls = ("-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod")
    ffmpeg("-i", str(source), "-c", "copy", *hls, str(playlist))
    with (
        BadSite(folder) as site,
        YtDlpSource(site.template("good", ".m3u8")).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as fetched,
    ):
        assert fetched.size_bytes == fetched.path.stat().st_size
        assert_cut_exactly(fetched.path)
    assert list(tmp.iterdir()) == []


def test_a_playlist_whose_segments_are_gone_says_so(studio: Studio, tmp_path: Path) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    (folder / f"{VIDEO}.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\ngone0.ts\n#EXTINF:4,\ngone1.ts\n"
        "#EXT-X-ENDLIST\n"
    )
    with BadSite(folder) as site:
        source = YtDlpSource(site.template("good", ".m3u8"))
        with pytest.raises(FetchError, match=r"404|downloaded file is empty|could not download"):
            fetch_bytes(source, tmp)
    assert list(tmp.iterdir()) == []
