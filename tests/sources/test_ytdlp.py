"""Media come whole, or as far as needed, or not at all with the source's own words."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from typing import Any, Literal

import av
import pytest
from support.bad_site import MANNERS, BadSite
from support.gray_frames import faces, film, rearranged, wrong_pictures
from support.synthetic_audio import (
    AAC,
    DURATION_SECONDS,
    FASTSTART,
    H264,
    M4A,
    SPEAKER,
    VIDEO,
    MediaCache,
    MediaSpec,
    delays_of,
    ffmpeg,
    utterance,
)

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import FetchError, MediaError, SourceError, UnreachableError
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import Media, Source, SourceSpec, open_source, parse_source
from voxblink2_lib.sources.folder import EXTENSIONS, WITH_PICTURES, MediaFolder
from voxblink2_lib.sources.ytdlp import YtDlpSource

KEY = VideoKey(SPEAKER, VIDEO)
UTTERANCES = (utterance(0, 49), utterance(100, 174), utterance(200, 249))
NEEDED_SECONDS = 10.0
# Of several megabytes each: more than the first request takes.
MJPEG = ("-c:v", "mjpeg", "-q:v", "1")
BIG = "testsrc2=size=160x120"
LONG = MediaSpec(
    "long.mp4", 16_000, 1, "5", (*AAC, *MJPEG, *FASTSTART), duration_seconds=180, picture=BIG
)
LONG_INDEX_LAST = MediaSpec(
    "long-last.mp4", 16_000, 1, "10", (*AAC, *MJPEG), duration_seconds=30, picture=BIG
)
LONG_WEBM = MediaSpec(
    "long.webm",
    48_000,
    2,
    "",
    ("-c:a", "libopus", "-vbr", "off", "-b:a", "510k"),
    duration_seconds=50,
)
LONG_WAV = MediaSpec("long.wav", 44_100, 1, duration_seconds=60)
LONG_FILM = film("long-film.mp4", noise=60, seconds=40)
FILM = film()


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


@pytest.mark.parametrize("kind", [MediaFolder, YtDlpSource])
def test_a_source_of_pictures_is_another_one(
    tmp_path: Path, kind: type[MediaFolder] | type[YtDlpSource]
) -> None:
    named = str(tmp_path) if kind is MediaFolder else "http://x/{video_id}"
    spec = parse_source(named)
    source = open_source(spec, pictures=True)
    assert isinstance(source, kind)
    assert open_source(spec, pictures=True) is source
    assert open_source(spec) is not source


# A folder


def fetch_bytes(source: Source, tmp: Path, *, wasted_bytes: int = 0) -> bytes:
    """Return what a source brings of a medium that is needed to its end."""
    with source.fetch(KEY, needed_seconds=DURATION_SECONDS, tmp=tmp) as media:
        assert media.size_bytes == media.path.stat().st_size + wasted_bytes
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
    with pytest.raises(FetchError, match=f"no file {SPEAKER}/") as caught:
        fetch_bytes(MediaFolder(tmp_path), tmp_path)
    assert caught.value.status == "gone"


def test_folder_with_pictures_passes_over_sound_alone(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    source = MediaFolder(tmp_path, pictures=True)
    for extension in EXTENSIONS:
        (tmp_path / SPEAKER / f"{VIDEO}.{extension}").write_bytes(extension.encode())
    for extension in WITH_PICTURES:
        assert fetch_bytes(source, tmp_path) == extension.encode()
        (tmp_path / SPEAKER / f"{VIDEO}.{extension}").unlink()
    assert list((tmp_path / SPEAKER).iterdir()), "nothing but sound is left"
    with pytest.raises(FetchError, match=f"no file {SPEAKER}/{VIDEO}.<ext> in "):
        fetch_bytes(source, tmp_path)
    assert fetch_bytes(MediaFolder(tmp_path), tmp_path) == b"wav"


def test_folder_with_pictures_finds_names_in_capitals(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / f"{VIDEO}.MKV").write_bytes(b"pictures")
    assert fetch_bytes(MediaFolder(tmp_path, pictures=True), tmp_path) == b"pictures"


@pytest.mark.parametrize("extension", [".wav", ".m4a", ".opus", ".mp4.part", ""])
def test_folder_with_pictures_says_which_endings_it_looked_for(
    tmp_path: Path, extension: str
) -> None:
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / f"{VIDEO}{extension}").write_bytes(b"")
    words = re.escape(
        f"no file {SPEAKER}/{VIDEO}.<ext> in {tmp_path} "
        "(endings looked for: mp4, mkv, mov, m4v, webm, ts, avi, flv, 3gp, mpg)"
    )
    with pytest.raises(FetchError, match=f"^{words}$"):
        fetch_bytes(MediaFolder(tmp_path, pictures=True), tmp_path)


# An honest site, through yt-dlp


def placed(folder: Path, media: Path) -> Path:
    """Put a medium where `MediaSite` looks for it."""
    (folder / SPEAKER).mkdir(parents=True)
    shutil.copy(media, folder / SPEAKER / f"{VIDEO}{media.suffix}")
    return folder


def assert_cut_exactly(media: Path, *, pictures: Path | None = None) -> None:
    cut = crop_audio(media, UTTERANCES, audio_format="flac", pictures=pictures)
    assert cut.missing == ()
    assert {name: delay for name, delay in delays_of(cut.clips).items() if abs(delay) > 1} == {}


def test_site_media_come_whole_and_leave_nothing(studio: MediaCache, tmp_path: Path) -> None:
    media, tmp = studio.make(M4A), tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(placed(tmp_path / "media", media)) as site:
        source = YtDlpSource(site.url_template)
        assert fetch_bytes(source, tmp) == media.read_bytes()
        # A worker asks for many videos through one source.
        assert fetch_bytes(source, tmp) == media.read_bytes()
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((404, "gone"), (410, "gone"), (403, "transient"), (503, "transient")),
        *((429, "rate-limited"), (418, "ambiguous"), (451, "geo"), (401, "credentials")),
    ],
)
def test_the_words_of_a_refusal_are_kept(status: int, kind: str, tmp_path: Path) -> None:
    media, tmp = tmp_path / "media", tmp_path / "tmp"
    media.mkdir()
    tmp.mkdir()
    with MediaSite(media, faults={VIDEO: status}) as site:
        source = YtDlpSource(site.url_template)
        with pytest.raises(FetchError, match=f"HTTP Error {status}: ") as caught:
            fetch_bytes(source, tmp)
    assert caught.value.status == kind
    assert not isinstance(caught.value, UnreachableError)
    assert "\x1b" not in str(caught.value)
    assert not str(caught.value).startswith("ERROR")
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize("recipe", [LONG, LONG_WEBM, LONG_WAV], ids=lambda recipe: recipe.name)
def test_only_the_needed_beginning_is_fetched(
    studio: MediaCache, recipe: MediaSpec, tmp_path: Path
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


def test_a_file_whose_index_is_last_comes_as_if_it_were_first(
    studio: MediaCache, tmp_path: Path
) -> None:
    media = studio.make(LONG_INDEX_LAST)
    with (
        MediaSite(placed(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert_cut_exactly(fetched.path)
        assert fetched.size_bytes == fetched.path.stat().st_size < media.stat().st_size / 2
        # The head, the index at the end, and the rest of what is needed.
        assert len([one for one in site.requests if one.byte_range]) == 3


def test_no_answer_at_all_is_told_from_a_refusal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    source = YtDlpSource(f"http://127.0.0.1:{port}/{{video_id}}.m4a")
    with pytest.raises(UnreachableError, match=r"[Cc]onnection refused") as caught:
        fetch_bytes(source, tmp_path)
    assert caught.value.status == "transient"
    assert list(tmp_path.iterdir()) == []


# Pictures and sound, through yt-dlp


def assert_film_cut_exactly(media: Media) -> None:
    """Cut sound and faces of a film, and check that both are where they should be."""
    assert_cut_exactly(media.sound, pictures=media.path)
    cut = crop_faces(media.path, faces(UTTERANCES), options=ClipOptions(video_size=32))
    assert cut.missing == ()
    assert [clip.utterance for clip in cut.clips] == list(UTTERANCES)
    for clip in cut.clips:
        assert wrong_pictures(clip.data, utterance=clip.utterance) == []


def kinds_in(path: Path) -> list[str]:
    with av.open(path) as container:
        return [stream.type for stream in container.streams]


def fetched_bytes(site: MediaSite, video_id: str) -> int:
    """Return how many bytes were asked for in ranges, which is all but yt-dlp's first look."""
    ranges = [one.byte_range for one in site.requests if one.video_id == video_id]
    return sum(one[1] - one[0] for one in ranges if one)


@pytest.mark.parametrize("first", ["both", "audio", "video"])
def test_only_the_needed_beginning_of_a_film_is_fetched(
    studio: MediaCache, first: Literal["both", "audio", "video"], tmp_path: Path
) -> None:
    """The prefix reaches far enough in pictures as well as in sound, however they are stored."""
    media, tmp = studio.make(LONG_FILM), tmp_path / "tmp"
    tmp.mkdir()
    if first != "both":
        media = rearranged(media, tmp_path / "rearranged.mp4", first=first)
    whole = media.stat().st_size
    assert whole > 4 << 20
    with (
        MediaSite(placed(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template, pictures=True).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as fetched,
    ):
        assert fetched.sound == fetched.path
        assert fetched.size_bytes == fetched.path.stat().st_size == fetched_bytes(site, VIDEO)
        assert fetched.path.read_bytes() == media.read_bytes()[: fetched.size_bytes]
        assert_film_cut_exactly(fetched)
        if first != "video":  # then the sound begins near the end
            assert fetched.size_bytes < 0.6 * whole
    assert list(tmp.iterdir()) == []


def test_sound_alone_is_still_fetched_as_before(studio: MediaCache, tmp_path: Path) -> None:
    """The sound of a film lies all in front: that is enough for the audio configuration.

    So is its beginning: the index says where the first seconds end.
    """
    media = rearranged(studio.make(LONG_FILM), tmp_path / "rearranged.mp4", first="audio")
    with (
        MediaSite(placed(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert fetched.size_bytes < 512 << 10
        assert_cut_exactly(fetched.path)


MANIFEST = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT40S">
<Period>
<AdaptationSet mimeType="video/mp4">
<Representation id="1" codecs="avc1.64002a" bandwidth="4000000" width="1920" height="1080">
<BaseURL>{site}goneAvc1080</BaseURL></Representation>
<Representation id="2" codecs="avc1.64001f" bandwidth="{bandwidth}" width="1280" height="720">
<BaseURL>{site}pictures720</BaseURL></Representation>
<Representation id="3" codecs="avc1.42c00a" bandwidth="100000" width="640" height="360">
<BaseURL>{site}goneAvc0360</BaseURL></Representation>
</AdaptationSet>
<AdaptationSet mimeType="video/webm">
<Representation id="4" codecs="vp9" bandwidth="3000000" width="1280" height="720">
<BaseURL>{site}goneVp90720</BaseURL></Representation>
</AdaptationSet>
<AdaptationSet mimeType="audio/mp4">
<Representation id="5" codecs="mp4a.40.5" bandwidth="48000"><BaseURL>{site}goneSound48</BaseURL>
</Representation>
<Representation id="6" codecs="mp4a.40.2" bandwidth="96000"><BaseURL>{site}theSound128</BaseURL>
</Representation>
</AdaptationSet>
</Period>
</MPD>
"""


@pytest.fixture(scope="module")
def apart(studio: MediaCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `MediaSite` with the pictures and the sound of a film as two files."""
    folder = tmp_path_factory.mktemp("apart") / SPEAKER
    folder.mkdir()
    whole = str(studio.make(LONG_FILM))
    copy = ("-c", "copy", *FASTSTART)
    ffmpeg("-i", whole, "-an", *copy, str(folder / "pictures720.mp4"))
    ffmpeg("-i", whole, "-vn", *copy, str(folder / "theSound128.m4a"))
    return folder


def write_manifest(folder: Path, site: MediaSite, *, bandwidth: int) -> None:
    text = MANIFEST.format(site=site.url_template.format(video_id=""), bandwidth=bandwidth)
    (folder / f"{VIDEO}.mpd").write_text(text)


@pytest.mark.parametrize("bandwidth", [200_000, 1_200_000])
def test_pictures_and_sound_may_be_two_files_as_on_youtube(
    apart: Path, bandwidth: int, tmp_path: Path
) -> None:
    """What a manifest says of the bandwidth is the first guess only, and may be far off."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(apart.parent) as site:
        write_manifest(apart, site, bandwidth=bandwidth)
        source = open_source(parse_source(site.url_template), pictures=True)
        with source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp) as media:
            assert media.sound != media.path
            assert kinds_in(media.path) == ["video"]
            assert kinds_in(media.sound) == ["audio"]
            sizes = media.path.stat().st_size, media.sound.stat().st_size
            assert sizes == (
                fetched_bytes(site, "pictures720"),
                fetched_bytes(site, "theSound128"),
            )
            assert media.size_bytes == sum(sizes)
            assert_film_cut_exactly(media)
        wholes = [(apart / name).stat().st_size for name in ("pictures720.mp4", "theSound128.m4a")]
        assert all(size < 0.6 * whole for size, whole in zip(sizes, wholes, strict=True))
        assert {one.video_id for one in site.requests} == {VIDEO, "pictures720", "theSound128"}
    assert list(tmp.iterdir()) == []


def test_sound_alone_of_two_files(apart: Path, tmp_path: Path) -> None:
    with MediaSite(apart.parent) as site:
        write_manifest(apart, site, bandwidth=1_000_000)
        source = YtDlpSource(site.url_template)
        with source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path) as media:
            assert media.sound == media.path
            assert kinds_in(media.path) == ["audio"]
            assert_cut_exactly(media.path)
        assert {one.video_id for one in site.requests} == {VIDEO, "theSound128"}


@pytest.mark.parametrize("gone", ["pictures720", "theSound128"])
def test_one_of_two_files_that_is_refused_is_told(apart: Path, gone: str, tmp_path: Path) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(apart.parent, faults={gone: 403}) as site:
        write_manifest(apart, site, bandwidth=1_000_000)
        source = YtDlpSource(site.url_template, pictures=True)
        with pytest.raises(FetchError, match="HTTP Error 403: Forbidden") as caught:
            fetch_bytes(source, tmp)
    assert not isinstance(caught.value, UnreachableError)
    assert list(tmp.iterdir()) == []


def segmented(source: Path, folder: Path, how: str) -> str:
    """Cut a film into segments, pictures and sound apart; return the manifest's ending."""
    folder.mkdir()
    copy = ("-i", str(source), "-map", "0:v", "-map", "0:a", "-c", "copy")
    if how == "dash":
        ffmpeg(*copy, "-f", "dash", "-seg_duration", "4", str(folder / f"{VIDEO}.mpd"))
        return ".mpd"
    hls = ("-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-hls_segment_type", how)
    streams = ("-var_stream_map", "v:0,agroup:snd a:0,agroup:snd", "-master_pl_name", "master")
    ffmpeg(*copy, *hls, *streams, str(folder / "%v.m3u8"))
    # FFmpeg leaves the codecs of copied H.264 out; a manifest that names none says nothing.
    (folder / f"{VIDEO}.m3u8").write_text(
        "#EXTM3U\n"
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="snd",NAME="en",DEFAULT=YES,URI="1.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=200000,RESOLUTION=64x48,CODECS="avc1.42c00a,mp4a.40.2",'
        'AUDIO="snd"\n0.m3u8\n'
        "#EXT-X-STREAM-INF:BANDWIDTH=900000,RESOLUTION=1920x1080,"
        'CODECS="avc1.64002a,mp4a.40.2",AUDIO="snd"\ngone.m3u8\n'
    )
    return ".m3u8"


@pytest.mark.parametrize("how", ["dash", "fmp4", "mpegts"])
def test_pictures_and_sound_in_segments(studio: MediaCache, how: str, tmp_path: Path) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    suffix = segmented(studio.make(FILM), tmp_path / "served", how)
    with (
        BadSite(tmp_path / "served") as site,
        YtDlpSource(site.template("good", suffix), pictures=True).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as media,
    ):
        assert kinds_in(media.path) == ["video"]
        assert kinds_in(media.sound) == ["audio"]
        assert media.size_bytes == media.path.stat().st_size + media.sound.stat().st_size
        assert_film_cut_exactly(media)
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [(("-an",), "has no audio stream"), (("-vn",), "has no pictures")],
    ids=["no sound", "no pictures"],
)
def test_a_film_that_lacks_one_of_both_is_told(
    studio: MediaCache, options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    media = tmp_path / "half.mp4"
    ffmpeg("-i", str(studio.make(FILM)), *options, "-c", "copy", *FASTSTART, str(media))
    with MediaSite(placed(tmp_path / "media", media)) as site:
        source = YtDlpSource(site.url_template, pictures=True)
        with source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path) as fetched:
            # The index says that there is none, so that no more need be fetched.
            assert fetched.path.read_bytes() == media.read_bytes()[: fetched.size_bytes]
            with pytest.raises(MediaError, match=words):
                assert_film_cut_exactly(fetched)


# Which formats yt-dlp chooses


def picture_format(name: str, codec: str | None, height: int | None, **more: Any) -> dict[str, Any]:
    bitrate = {"tbr": (height or 100) / 2, "vbr": (height or 100) / 2}
    return {
        "format_id": name,
        "vcodec": codec,
        "acodec": "none",
        "height": height,
        **bitrate,
        **more,
    }


def sound_format(name: str, codec: str, kilobits: float) -> dict[str, Any]:
    return {"format_id": name, "vcodec": "none", "acodec": codec, "abr": kilobits, "tbr": kilobits}


AVC, VP9, AV1 = "avc1.4d401f", "vp09.00.31.08", "av01.0.05M.08"
SOUNDS = [sound_format("140", "mp4a.40.2", 129), sound_format("251", "opus", 140)]
BOTH_360 = picture_format("18", AVC, 360, acodec="mp4a.40.2")
BOTH_1080 = picture_format("37", AVC, 1080, acodec="mp4a.40.2")
# Of the same lines, H.264 has the lowest bitrate, so that it is chosen for its own sake.
H264_APART = [picture_format(f"avc-{lines}", AVC, lines) for lines in (144, 360, 480, 720, 1080)]
VP9_APART = [picture_format(f"vp9-{lines}", VP9, lines, tbr=9999) for lines in (360, 720, 1080)]
AV1_APART = [picture_format(f"av1-{lines}", AV1, lines, tbr=9999) for lines in (360, 720, 1080)]
YOUTUBE = [*SOUNDS, BOTH_360, *H264_APART, *VP9_APART, *AV1_APART]

CHOICES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "as YouTube has them": (YOUTUBE, "avc-720+251"),
    "another order": (YOUTUBE[::-1], "avc-720+251"),
    "one sound": (YOUTUBE[:1] + YOUTUBE[2:], "avc-720+140"),
    "H.264 of few lines": ([*SOUNDS, H264_APART[1], *VP9_APART, *AV1_APART], "avc-360+251"),
    "H.264 of many lines only": ([*SOUNDS, H264_APART[-1], *VP9_APART], "vp9-720+251"),
    "no H.264": ([*SOUNDS, *AV1_APART], "av1-720+251"),
    "both in one file": ([*SOUNDS, BOTH_360, BOTH_1080], "18"),
    "both in one file of many lines": ([*SOUNDS, BOTH_1080], "37"),
    "two files of many lines": ([*SOUNDS, H264_APART[-1]], "avc-1080+251"),
    "two files of unknown lines": ([*SOUNDS, picture_format("hls-1", AVC, None)], "hls-1+251"),
    "a file of which nothing is known": ([{"format_id": "0"}], "0"),
}


@pytest.mark.parametrize(("formats", "chosen"), CHOICES.values(), ids=CHOICES.keys())
def test_h264_of_at_most_720_lines_is_preferred(formats: list[dict[str, Any]], chosen: str) -> None:
    """yt-dlp's own selection, on formats that are made up."""
    source = YtDlpSource("http://x/{video_id}", pictures=True)
    served = [{**one, "url": f"http://x/{one['format_id']}", "ext": "mp4"} for one in formats]
    video = {"id": VIDEO, "title": VIDEO, "extractor": "made-up", "formats": served}
    info = source._ydl.process_ie_result(video, download=False)
    assert info["format_id"] == chosen
    pair = info.get("requested_formats")
    if pair:
        assert [one["format_id"] for one in pair] == chosen.split("+")
        assert [one["vcodec"] != "none" for one in pair] == [True, False]


# A site that misbehaves

RIGHT = (
    *(
        "good",
        "no-ranges",
        "no-ranges-drop",
        "drop-once",
        "drop-probe",
        "drip",
        "gzip",
        "redirect",
        "moved",
    ),
    *("length-too-long", "length-too-short", "no-length", "endless", "replaced"),
)
# The class of the outcome, and the words.
WRONG = {
    "drop-always": ("transient", r"0 bytes read, \d+ more expected"),
    "html": ("ambiguous", "Unsupported URL"),
    "html-later": ("ambiguous", "a page of HTML instead of media"),
    "401": ("credentials", "HTTP Error 401: Unauthorized"),
    "403": ("transient", "HTTP Error 403: Forbidden"),
    "404": ("gone", "HTTP Error 404: Not Found"),
    "404-later": ("transient", "unable to download video data: HTTP Error 404: Not Found"),
    "410": ("gone", "HTTP Error 410: Gone"),
    "429": ("rate-limited", "HTTP Error 429: Too Many Requests"),
    "429-later": ("rate-limited", "HTTP Error 429: Too Many Requests"),
    "429-retry-after": ("rate-limited", "HTTP Error 429: Too Many Requests"),
    "451": ("geo", "HTTP Error 451: Unavailable For Legal Reasons"),
    "500": ("transient", "HTTP Error 500: Internal Server Error"),
    "502": ("transient", "HTTP Error 502: Bad Gateway"),
    "503": ("transient", "HTTP Error 503: Service Unavailable"),
    "503-later": ("transient", "HTTP Error 503: Service Unavailable"),
    "503-once": ("transient", "HTTP Error 503: Service Unavailable"),
    "504": ("transient", "HTTP Error 504: Gateway Timeout"),
    # The server may be about to put the file in place: nothing is said of the video.
    "empty": ("transient", "The downloaded file is empty"),
    "empty-later": ("transient", "The downloaded file is empty"),
    "gzip-parts": ("ambiguous", r"packs parts of the file \(Content-Encoding: gzip\)"),
    "redirect-loop": ("transient", "redirect loop"),
    "replaced-always": ("transient", "the file on the server changed while it was read"),
    "wrong-start": ("transient", "the server sent bytes from 1 on, not from 0 on"),
}
PAUSES = {"429": 600.0, "429-later": 600.0, "429-retry-after": 77.0}


@pytest.fixture
def bad(studio: MediaCache, tmp_path: Path) -> BadSite:
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(studio.make(M4A), folder / f"{VIDEO}.m4a")
    return BadSite(folder)


def test_every_manner_is_tested() -> None:
    assert {*RIGHT, *WRONG, "hang"} == set(MANNERS)


@pytest.mark.parametrize("manners", RIGHT)
def test_a_bad_site_whose_media_can_be_had(
    bad: BadSite, studio: MediaCache, tmp_path: Path, manners: str
) -> None:
    with bad as site:
        source = YtDlpSource(site.template(manners, ".m4a"))
        whole = studio.make(M4A).read_bytes()
        # What came twice, since the server had to begin again, counts as well.
        wasted_bytes = {"replaced": 128 << 10, "no-ranges-drop": len(whole) // 2}
        fetched = fetch_bytes(source, tmp_path, wasted_bytes=wasted_bytes.get(manners, 0))
        assert fetched == whole
        assert site.count(manners) < 40


@pytest.mark.parametrize("manners", WRONG)
def test_a_bad_site_whose_media_cannot_be_had(bad: BadSite, tmp_path: Path, manners: str) -> None:
    status, words = WRONG[manners]
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with bad as site:
        source = YtDlpSource(site.template(manners, ".m4a"))
        with pytest.raises(FetchError, match=words) as caught:
            fetch_bytes(source, tmp)
        assert caught.value.status == status
        assert caught.value.action.pause_seconds == PAUSES.get(manners)
        assert not caught.value.action.closes_route
        # The site did answer.
        assert not isinstance(caught.value, UnreachableError)
        assert site.count(manners) < 40
    assert list(tmp.iterdir()) == []


def test_hls_goes_through_the_native_downloader(studio: MediaCache, tmp_path: Path) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    playlist = folder / f"{VIDEO}.m3u8"
    source = studio.make(MediaSpec("picture.ts", 44_100, 1, "25", (*AAC, *H264)))
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


def test_a_playlist_whose_segments_are_gone_says_so(studio: MediaCache, tmp_path: Path) -> None:
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
