"""Media are downloaded whole, as far as needed, or not at all, with the source's message."""

from __future__ import annotations

import functools
import gc
import shutil
import socket
import weakref
from pathlib import Path
from typing import Any, Literal

import av
import pytest
from support.fault_site import FAULTS, FaultSite
from support.gray_frames import faces, gray_video, rearranged, wrong_frames
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
from yt_dlp.utils import YoutubeDLError

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import Media, Source, open_source, parse_source, ytdlp
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter
from voxblink2_lib.sources.ytdlp import YtDlpSource

KEY = VideoKey(SPEAKER, VIDEO)
UTTERANCES = (utterance(0, 49), utterance(100, 174), utterance(200, 249))
NEEDED_SECONDS = 10.0
# Of several megabytes each: more than the first request takes.
MJPEG = ("-c:v", "mjpeg", "-q:v", "1")
BIG = "testsrc2=size=160x120"
LONG = MediaSpec(
    "long.mp4", 16_000, 1, "5", (*AAC, *MJPEG, *FASTSTART), duration_seconds=180, video_source=BIG
)
LONG_INDEX_LAST = MediaSpec(
    "long-last.mp4", 16_000, 1, "10", (*AAC, *MJPEG), duration_seconds=30, video_source=BIG
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
LONG_GRAY_VIDEO = gray_video("long-video.mp4", noise=60, seconds=40)
GRAY_VIDEO = gray_video()


# yt-dlp keeps connections for the life of a worker; a source lives for one test here.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


# -- A well-behaved site ---------------------------------------------------------------------------


def place_media(folder: Path, media: Path) -> Path:
    """Copy a media file to where ``MediaSite`` serves it."""
    (folder / SPEAKER).mkdir(parents=True)
    shutil.copy(media, folder / SPEAKER / f"{VIDEO}{media.suffix}")
    return folder


def fetch_bytes(source: Source, tmp: Path, *, wasted_bytes: int = 0) -> bytes:
    """Return the media that a source provides if they are needed to their end."""
    with source.fetch(KEY, needed_seconds=DURATION_SECONDS, tmp=tmp) as media:
        assert media.size_bytes == media.path.stat().st_size + wasted_bytes
        return media.path.read_bytes()


def assert_exact(audio_path: Path, *, video_path: Path | None = None) -> None:
    cut = crop_audio(audio_path, UTTERANCES, audio_format="flac", video_path=video_path)
    assert cut.missing == ()
    assert {name: delay for name, delay in delays_of(cut.clips).items() if abs(delay) > 1} == {}


def test_media_are_downloaded_whole_and_removed_afterwards(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    media, tmp = media_cache.make(M4A), tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(place_media(tmp_path / "media", media)) as site:
        source = YtDlpSource(site.url_template)
        assert fetch_bytes(source, tmp) == media.read_bytes()
        # A worker downloads many videos through one source.
        assert fetch_bytes(source, tmp) == media.read_bytes()
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((404, "gone"), (410, "gone"), (403, "transient"), (503, "transient")),
        *((429, "rate-limited"), (418, "ambiguous"), (451, "geo"), (401, "credentials")),
    ],
)
def test_the_message_of_a_refusal_is_kept(status: int, kind: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("spec", [LONG, LONG_WEBM, LONG_WAV], ids=lambda spec: spec.name)
def test_only_the_needed_beginning_is_downloaded(
    media_cache: MediaCache, spec: MediaSpec, tmp_path: Path
) -> None:
    media = media_cache.make(spec)
    whole = media.stat().st_size
    with (
        MediaSite(place_media(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert_exact(fetched.path)
        assert fetched.path.read_bytes() == media.read_bytes()[: fetched.size_bytes]
        assert fetched.size_bytes < whole / 2
        # yt-dlp reads the first bytes without a range, and closes the connection.
        ranges = [request.byte_range for request in site.requests if request.byte_range]
        assert sum(stop - start for start, stop in ranges) == fetched.size_bytes


def test_an_index_at_the_end_is_moved_to_the_beginning(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    media = media_cache.make(LONG_INDEX_LAST)
    with (
        MediaSite(place_media(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert_exact(fetched.path)
        assert fetched.size_bytes == fetched.path.stat().st_size < media.stat().st_size / 2
        # The head, the index at the end, and the rest of what is needed.
        assert len([request for request in site.requests if request.byte_range]) == 3


def test_a_server_that_does_not_answer_is_no_refusal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    source = YtDlpSource(f"http://127.0.0.1:{port}/{{video_id}}.m4a")
    with pytest.raises(UnreachableError, match=r"[Cc]onnection refused") as caught:
        fetch_bytes(source, tmp_path)
    assert caught.value.status == "transient"
    assert list(tmp_path.iterdir()) == []


# -- Video and audio -------------------------------------------------------------------------------


def assert_both_exact(media: Media) -> None:
    """Crop audio and faces of a gray video, and check that both are aligned."""
    assert_exact(media.audio, video_path=media.path)
    cut = crop_faces(media.path, faces(UTTERANCES), options=ClipOptions(video_size=32))
    assert cut.missing == ()
    assert [clip.utterance for clip in cut.clips] == list(UTTERANCES)
    for clip in cut.clips:
        assert wrong_frames(clip.data, utterance=clip.utterance) == []


def kinds_in(path: Path) -> list[str]:
    with av.open(path) as container:
        return [stream.type for stream in container.streams]


def fetched_bytes(site: MediaSite, video_id: str) -> int:
    """Return how many bytes were requested in ranges, that is by all but yt-dlp's first request."""
    requests = [request for request in site.requests if request.video_id == video_id]
    ranges = [request.byte_range for request in requests if request.byte_range]
    return sum(stop - start for start, stop in ranges)


@pytest.mark.parametrize("first", ["both", "audio", "video"])
def test_only_the_needed_beginning_of_a_video_is_downloaded(
    media_cache: MediaCache, first: Literal["both", "audio", "video"], tmp_path: Path
) -> None:
    """The prefix covers enough of both video and audio, however they are stored."""
    media, tmp = media_cache.make(LONG_GRAY_VIDEO), tmp_path / "tmp"
    tmp.mkdir()
    if first != "both":
        media = rearranged(media, tmp_path / "rearranged.mp4", first=first)
    whole = media.stat().st_size
    assert whole > 4 << 20
    with (
        MediaSite(place_media(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template, with_video=True).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as fetched,
    ):
        assert fetched.audio == fetched.path
        assert fetched.size_bytes == fetched.path.stat().st_size == fetched_bytes(site, VIDEO)
        assert fetched.path.read_bytes() == media.read_bytes()[: fetched.size_bytes]
        assert_both_exact(fetched)
        if first != "video":  # then the audio begins near the end
            assert fetched.size_bytes < 0.6 * whole
    assert list(tmp.iterdir()) == []


def test_without_video_only_audio_is_downloaded(media_cache: MediaCache, tmp_path: Path) -> None:
    """All audio is stored before the video, and the index states where its first seconds end."""
    media = rearranged(
        media_cache.make(LONG_GRAY_VIDEO), tmp_path / "rearranged.mp4", first="audio"
    )
    with (
        MediaSite(place_media(tmp_path / "media", media)) as site,
        YtDlpSource(site.url_template).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path
        ) as fetched,
    ):
        assert fetched.size_bytes < 512 << 10
        assert_exact(fetched.path)


MANIFEST = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT40S">
<Period>
<AdaptationSet mimeType="video/mp4">
<Representation id="1" codecs="avc1.64002a" bandwidth="4000000" width="1920" height="1080">
<BaseURL>{site}goneAvc1080</BaseURL></Representation>
<Representation id="2" codecs="avc1.64001f" bandwidth="{bandwidth}" width="1280" height="720">
<BaseURL>{site}videoAvc720</BaseURL></Representation>
<Representation id="3" codecs="avc1.42c00a" bandwidth="100000" width="640" height="360">
<BaseURL>{site}goneAvc0360</BaseURL></Representation>
</AdaptationSet>
<AdaptationSet mimeType="video/webm">
<Representation id="4" codecs="vp9" bandwidth="3000000" width="1280" height="720">
<BaseURL>{site}goneVp90720</BaseURL></Representation>
</AdaptationSet>
<AdaptationSet mimeType="audio/mp4">
<Representation id="5" codecs="mp4a.40.5" bandwidth="48000"><BaseURL>{site}goneAudio48</BaseURL>
</Representation>
<Representation id="6" codecs="mp4a.40.2" bandwidth="96000"><BaseURL>{site}theAudio128</BaseURL>
</Representation>
</AdaptationSet>
</Period>
</MPD>
"""


@pytest.fixture(scope="module")
def two_files(media_cache: MediaCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``MediaSite`` with the video and the audio of a gray video as two files."""
    folder = tmp_path_factory.mktemp("apart") / SPEAKER
    folder.mkdir()
    whole = str(media_cache.make(LONG_GRAY_VIDEO))
    copy = ("-c", "copy", *FASTSTART)
    ffmpeg("-i", whole, "-an", *copy, str(folder / "videoAvc720.mp4"))
    ffmpeg("-i", whole, "-vn", *copy, str(folder / "theAudio128.m4a"))
    return folder


def write_manifest(folder: Path, site: MediaSite, *, bandwidth: int) -> None:
    text = MANIFEST.format(site=site.url_template.format(video_id=""), bandwidth=bandwidth)
    (folder / f"{VIDEO}.mpd").write_text(text)


@pytest.mark.parametrize("bandwidth", [200_000, 1_200_000])
def test_video_and_audio_may_be_two_files_as_on_youtube(
    two_files: Path, bandwidth: int, tmp_path: Path
) -> None:
    """The bandwidth that a manifest states is only the first guess, and may be wrong."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(two_files.parent) as site:
        write_manifest(two_files, site, bandwidth=bandwidth)
        source = open_source(parse_source(site.url_template), with_video=True)
        with source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp) as media:
            assert media.audio != media.path
            assert kinds_in(media.path) == ["video"]
            assert kinds_in(media.audio) == ["audio"]
            sizes = media.path.stat().st_size, media.audio.stat().st_size
            assert sizes == (
                fetched_bytes(site, "videoAvc720"),
                fetched_bytes(site, "theAudio128"),
            )
            assert media.size_bytes == sum(sizes)
            assert_both_exact(media)
        names = ("videoAvc720.mp4", "theAudio128.m4a")
        wholes = [(two_files / name).stat().st_size for name in names]
        assert all(size < 0.6 * whole for size, whole in zip(sizes, wholes, strict=True))
        requested = {request.video_id for request in site.requests}
        assert requested == {VIDEO, "videoAvc720", "theAudio128"}
    assert list(tmp.iterdir()) == []


def test_audio_only_of_two_files(two_files: Path, tmp_path: Path) -> None:
    with MediaSite(two_files.parent) as site:
        write_manifest(two_files, site, bandwidth=1_000_000)
        source = YtDlpSource(site.url_template)
        with source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path) as media:
            assert media.audio == media.path
            assert kinds_in(media.path) == ["audio"]
            assert_exact(media.path)
        assert {request.video_id for request in site.requests} == {VIDEO, "theAudio128"}


@pytest.mark.parametrize("gone", ["videoAvc720", "theAudio128"])
def test_a_refusal_of_one_of_two_files_is_reported(
    two_files: Path, gone: str, tmp_path: Path
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with MediaSite(two_files.parent, faults={gone: 403}) as site:
        write_manifest(two_files, site, bandwidth=1_000_000)
        source = YtDlpSource(site.url_template, with_video=True)
        with pytest.raises(FetchError, match="HTTP Error 403: Forbidden") as caught:
            fetch_bytes(source, tmp)
    assert not isinstance(caught.value, UnreachableError)
    assert list(tmp.iterdir()) == []


def segmented(source: Path, folder: Path, how: str) -> str:
    """Split video and audio into segments; return the extension of the manifest."""
    folder.mkdir()
    copy = ("-i", str(source), "-map", "0:v", "-map", "0:a", "-c", "copy")
    if how == "dash":
        ffmpeg(*copy, "-f", "dash", "-seg_duration", "4", str(folder / f"{VIDEO}.mpd"))
        return ".mpd"
    hls = ("-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-hls_segment_type", how)
    streams = ("-var_stream_map", "v:0,agroup:snd a:0,agroup:snd", "-master_pl_name", "master")
    ffmpeg(*copy, *hls, *streams, str(folder / "%v.m3u8"))
    # FFmpeg omits the codec of copied H.264; this manifest names all codecs.
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
def test_video_and_audio_in_segments(media_cache: MediaCache, how: str, tmp_path: Path) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    suffix = segmented(media_cache.make(GRAY_VIDEO), tmp_path / "served", how)
    with (
        FaultSite(folder=tmp_path / "served") as site,
        YtDlpSource(site.template("good", suffix), with_video=True).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as media,
    ):
        assert kinds_in(media.path) == ["video"]
        assert kinds_in(media.audio) == ["audio"]
        # Playlists count as well.
        playlist_bytes = 0 if how == "dash" else 2 * 1000
        sizes = media.path.stat().st_size + media.audio.stat().st_size
        assert sizes <= media.size_bytes <= sizes + playlist_bytes
        assert_both_exact(media)
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [(("-an",), "has no audio stream"), (("-vn",), "has no video stream")],
    ids=["no audio", "no video"],
)
def test_a_file_without_one_of_both_is_reported(
    media_cache: MediaCache, options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    media = tmp_path / "half.mp4"
    ffmpeg("-i", str(media_cache.make(GRAY_VIDEO)), *options, "-c", "copy", *FASTSTART, str(media))
    with MediaSite(place_media(tmp_path / "media", media)) as site:
        source = YtDlpSource(site.url_template, with_video=True)
        with source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path) as fetched:
            # The index shows that there is none, so no more is downloaded.
            assert fetched.path.read_bytes() == media.read_bytes()[: fetched.size_bytes]
            with pytest.raises(MediaError, match=message):
                assert_both_exact(fetched)


# -- Formats that yt-dlp selects -------------------------------------------------------------------


def video_format(name: str, codec: str | None, height: int | None, **more: Any) -> dict[str, Any]:
    bitrate = {"tbr": (height or 100) / 2, "vbr": (height or 100) / 2}
    return {
        "format_id": name,
        "vcodec": codec,
        "acodec": "none",
        "height": height,
        **bitrate,
        **more,
    }


def audio_format(name: str, codec: str, kilobits: float) -> dict[str, Any]:
    return {"format_id": name, "vcodec": "none", "acodec": codec, "abr": kilobits, "tbr": kilobits}


AVC, VP9, AV1 = "avc1.4d401f", "vp09.00.31.08", "av01.0.05M.08"
AUDIO_ONLY = [audio_format("140", "mp4a.40.2", 129), audio_format("251", "opus", 140)]
BOTH_360 = video_format("18", AVC, 360, acodec="mp4a.40.2")
BOTH_1080 = video_format("37", AVC, 1080, acodec="mp4a.40.2")
# Of the same lines, H.264 has the lowest bitrate, so that it is chosen for its own sake.
H264_ONLY = [video_format(f"avc-{lines}", AVC, lines) for lines in (144, 360, 480, 720, 1080)]
VP9_ONLY = [video_format(f"vp9-{lines}", VP9, lines, tbr=9999) for lines in (360, 720, 1080)]
AV1_ONLY = [video_format(f"av1-{lines}", AV1, lines, tbr=9999) for lines in (360, 720, 1080)]
YOUTUBE = [*AUDIO_ONLY, BOTH_360, *H264_ONLY, *VP9_ONLY, *AV1_ONLY]

CHOICES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "as YouTube has them": (YOUTUBE, "avc-720+251"),
    "another order": (YOUTUBE[::-1], "avc-720+251"),
    "one audio format": (YOUTUBE[:1] + YOUTUBE[2:], "avc-720+140"),
    "H.264 of few lines": ([*AUDIO_ONLY, H264_ONLY[1], *VP9_ONLY, *AV1_ONLY], "avc-360+251"),
    "H.264 of many lines only": ([*AUDIO_ONLY, H264_ONLY[-1], *VP9_ONLY], "vp9-720+251"),
    "no H.264": ([*AUDIO_ONLY, *AV1_ONLY], "av1-720+251"),
    "both in one file": ([*AUDIO_ONLY, BOTH_360, BOTH_1080], "18"),
    "both in one file of many lines": ([*AUDIO_ONLY, BOTH_1080], "37"),
    "two files of many lines": ([*AUDIO_ONLY, H264_ONLY[-1]], "avc-1080+251"),
    "two files of unknown lines": ([*AUDIO_ONLY, video_format("hls-1", AVC, None)], "hls-1+251"),
    "a file of which nothing is known": ([{"format_id": "0"}], "0"),
}


@pytest.mark.parametrize(("formats", "chosen"), CHOICES.values(), ids=CHOICES.keys())
def test_h264_of_at_most_720_lines_is_preferred(formats: list[dict[str, Any]], chosen: str) -> None:
    """yt-dlp's own selection, from synthetic formats."""
    source = YtDlpSource("http://x/{video_id}", with_video=True)
    common = {"url": "http://x/media", "ext": "mp4"}
    served = [{**entry, **common} for entry in formats]
    video = {"id": VIDEO, "title": VIDEO, "extractor": "synthetic", "formats": served}
    info = source._ydl.process_ie_result(video, download=False)
    assert info["format_id"] == chosen
    pair = info.get("requested_formats")
    if pair:
        assert [entry["format_id"] for entry in pair] == chosen.split("+")
        assert [entry["vcodec"] != "none" for entry in pair] == [True, False]


def chosen_of(formats: list[dict[str, Any]]) -> str:
    """Return which format is chosen by a source of video and audio."""
    source = YtDlpSource("http://x/{video_id}", with_video=True)
    video = {"id": VIDEO, "title": VIDEO, "extractor": "synthetic", "formats": formats}
    return str(source._ydl.process_ie_result(video, download=False)["format_id"])


BOTH_720 = video_format("37", AVC, 720, acodec="mp4a.40.2", ext="mp4")


def test_formats_of_other_protocols_are_not_chosen() -> None:
    small = {**BOTH_360, "url": "http://x/media", "ext": "mp4"}
    other = {**BOTH_720, "url": "rtmp://x/media"}
    assert chosen_of([small, {**other, "url": "http://x/large"}]) == "37"
    assert chosen_of([small, other]) == "18"


@pytest.mark.parametrize("protocol", ["rtmp", "rtsp", "mms", "ism", "f4m", "websocket_frag"])
def test_a_video_over_other_protocols_only_is_refused(protocol: str) -> None:
    formats = [
        {**BOTH_720, "url": "http://x/media", "protocol": protocol},
        {**BOTH_360, "url": "ftp://x/media", "ext": "mp4"},
    ]
    names = ", ".join(sorted(["ftp", protocol]))
    message = f"offers this video only over {names}; http, https, HLS and DASH are read"
    with pytest.raises(FetchError, match=message) as caught:
        chosen_of(formats)
    assert caught.value.status == "not-original"


def test_a_video_with_pictures_for_previews_only_keeps_the_message_of_yt_dlp() -> None:
    """YouTube does so to clients that it does not trust: this says nothing about the video."""
    picture = {"format_id": "sb0", "url": "http://x/sb", "protocol": "mhtml", "ext": "mhtml"}
    with pytest.raises(YoutubeDLError, match="Requested format is not available"):
        chosen_of([{**picture, "acodec": "none", "vcodec": "none"}])


def test_a_source_is_freed_when_it_is_dropped(tmp_path: Path) -> None:
    """In a circle of references its connections would stay open until garbage is collected."""
    with FaultSite({VIDEO: "404"}) as site:
        source = YtDlpSource(site.template())
        with pytest.raises(FetchError, match="404"):
            fetch_bytes(source, tmp_path)
        freed = weakref.ref(source)
        gc.disable()
        try:
            del source
            assert freed() is None
        finally:
            gc.enable()


# -- A site that misbehaves ------------------------------------------------------------------------

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
    *("versioned", "versioned-weakly", "edited", "edited-unseen"),
)
# The class of the outcome, and the message.
WRONG = {
    "drop-always": ("transient", r"0 bytes read, \d+ more expected"),
    "html": ("ambiguous", "Unsupported URL"),
    "html-later": ("ambiguous", "a page of HTML instead of media"),
    "401": ("credentials", "HTTP Error 401: Unauthorized"),
    "403": ("transient", "HTTP Error 403: Forbidden"),
    "404": ("gone", "HTTP Error 404: Not Found"),
    "later 404": ("transient", "unable to download video data: HTTP Error 404: Not Found"),
    "410": ("gone", "HTTP Error 410: Gone"),
    "429": ("rate-limited", "HTTP Error 429: Too Many Requests"),
    "later 429": ("rate-limited", "HTTP Error 429: Too Many Requests"),
    "429 77": ("rate-limited", "HTTP Error 429: Too Many Requests"),
    "451": ("geo", "HTTP Error 451: Unavailable For Legal Reasons"),
    "500": ("transient", "HTTP Error 500: Internal Server Error"),
    "502": ("transient", "HTTP Error 502: Bad Gateway"),
    "503": ("transient", "HTTP Error 503: Service Unavailable"),
    "later 503": ("transient", "HTTP Error 503: Service Unavailable"),
    "later 503-once": ("transient", "HTTP Error 503: Service Unavailable"),
    "504": ("transient", "HTTP Error 504: Gateway Timeout"),
    # The server may be about to put the file in place: this says nothing about the video.
    "empty": ("transient", "The downloaded file is empty"),
    "empty-later": ("transient", "The downloaded file is empty"),
    "gzip-parts": ("ambiguous", r"compresses parts of the file \(Content-Encoding: gzip\)"),
    "redirect-loop": ("transient", "redirect loop"),
    "replaced-always": ("transient", r"changed while it was read, twice: its length was \d+ bytes"),
    "edited-always": ("transient", r'changed .* twice: its ETag was "3", then "4"'),
    "dated-always": ("transient", r"twice: its Last-Modified was .*:03 GMT, then .*:04 GMT"),
    "wrong-start": ("transient", "the server sent bytes from position 1 instead of 0"),
}
PAUSES = {"429": 600.0, "later 429": 600.0, "429 77": 77.0}


@pytest.fixture
def bad(media_cache: MediaCache, tmp_path: Path) -> FaultSite:
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(media_cache.make(M4A), folder / f"{VIDEO}.m4a")
    return FaultSite(folder=folder)


def test_every_fault_is_tested() -> None:
    others = {"hang", "reset", "noise", "drop", "later <status>"}  # also in the storm
    assert {*RIGHT, *WRONG} >= set(FAULTS) - others


@pytest.mark.parametrize("fault", RIGHT)
def test_media_of_a_bad_site_that_can_be_downloaded(
    bad: FaultSite, media_cache: MediaCache, tmp_path: Path, fault: str
) -> None:
    with bad as site:
        source = YtDlpSource(site.template(fault, ".m4a"))
        whole = media_cache.make(M4A).read_bytes()
        # Bytes that were downloaded twice, because the server had to begin again, count as well.
        wasted_bytes = dict.fromkeys(("replaced", "edited", "edited-unseen"), 128 << 10)
        wasted_bytes["no-ranges-drop"] = len(whole) // 2
        fetched = fetch_bytes(source, tmp_path, wasted_bytes=wasted_bytes.get(fault, 0))
        assert fetched == whole
        assert site.count(fault) < 40


@pytest.mark.parametrize("fault", WRONG)
def test_media_of_a_bad_site_that_cannot_be_downloaded(
    bad: FaultSite, tmp_path: Path, fault: str
) -> None:
    status, message = WRONG[fault]
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with bad as site:
        source = YtDlpSource(site.template(fault, ".m4a"))
        with pytest.raises(FetchError, match=message) as caught:
            fetch_bytes(source, tmp)
        assert caught.value.status == status
        assert caught.value.action.pause_seconds == PAUSES.get(fault)
        assert not caught.value.action.closes_route
        # The site did answer.
        assert not isinstance(caught.value, UnreachableError)
        assert site.count(fault) < 40
    assert list(tmp.iterdir()) == []


def test_an_endless_page_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first byte of media there are pages and manifests: they have a budget, too."""
    monkeypatch.setattr(ytdlp, "PAGES_BUDGET", TransferBudget(1 << 20, 600.0))
    (tmp_path / f"{VIDEO}.m3u8").write_text("#EXTM3U\n")
    with FaultSite(folder=tmp_path) as site:
        source = YtDlpSource(site.template("endless", ".m3u8"))
        message = r"the server sent \d+ bytes .* at most 1048576 bytes of this video"
        with pytest.raises(FetchError, match=message):
            fetch_bytes(source, tmp_path)
        # Later videos are not affected.
        (tmp_path / f"{VIDEO}.m3u8").write_text("#EXTM3U\n#EXTINF:4,\ngone.ts\n#EXT-X-ENDLIST\n")
        source = YtDlpSource(site.template("good", ".m3u8"))
        with pytest.raises(FetchError, match="HTTP Error 404"):
            fetch_bytes(source, tmp_path)


def test_a_page_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10**9, 20))
    meter = functools.partial(TransferMeter, clock=lambda: float(next(seconds)))
    monkeypatch.setattr(ytdlp, "TransferMeter", meter)
    (tmp_path / f"{VIDEO}.mpd").write_text("<MPD/>")
    with FaultSite(folder=tmp_path) as site:
        source = YtDlpSource(site.template("good", ".mpd"))
        with pytest.raises(FetchError, match=r"the server sends too slowly: \d+ bytes in 60 s"):
            fetch_bytes(source, tmp_path)


def test_segments_are_downloaded_with_their_playlist(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    playlist = folder / f"{VIDEO}.m3u8"
    source = media_cache.make(MediaSpec("video.ts", 44_100, 1, "25", (*AAC, *H264)))
    hls = ("-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod")
    ffmpeg("-i", str(source), "-c", "copy", *hls, str(playlist))
    with (
        FaultSite(folder=folder) as site,
        YtDlpSource(site.template("good", ".m3u8")).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as fetched,
    ):
        assert fetched.size_bytes == fetched.path.stat().st_size + playlist.stat().st_size
        assert_exact(fetched.path)
    assert list(tmp.iterdir()) == []


def test_a_playlist_whose_segments_are_gone_is_reported(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    (folder / f"{VIDEO}.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\ngone0.ts\n#EXTINF:4,\ngone1.ts\n"
        "#EXT-X-ENDLIST\n"
    )
    with FaultSite(folder=folder) as site:
        source = YtDlpSource(site.template("good", ".m3u8"))
        with pytest.raises(FetchError, match="unable to download video data: HTTP Error 404"):
            fetch_bytes(source, tmp)
    assert list(tmp.iterdir()) == []
