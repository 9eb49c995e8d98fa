"""Streams in segments: the needed ones are downloaded and joined, and nothing goes on for ever.

Media are made by FFmpeg and served on loopback; playlists that list more segments than there are
prove that the others are never requested.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clocks import SteppingClock
from support.fault_site import FaultSite, SiteRequest
from support.synthetic_audio import (
    AAC,
    H264,
    SPEAKER,
    VIDEO,
    MediaCache,
    MediaSpec,
    delays_of,
    ffmpeg,
    utterance,
)
from yt_dlp import YoutubeDL
from yt_dlp.networking.exceptions import HTTPError

from voxblink2_lib.errors import FetchError
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import range_reader
from voxblink2_lib.sources.prefix import Requirement
from voxblink2_lib.sources.segments import are_served, download_segments
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter
from voxblink2_lib.sources.ytdlp import YtDlpSource

KEY = VideoKey(SPEAKER, VIDEO)
SECONDS = 60
NEEDED_SECONDS = 40.0
UTTERANCES = (utterance(0, 49), utterance(500, 574), utterance(925, 999))
# Only with video a file of MPEG-TS says where its audio begins.
MINUTE = MediaSpec(
    "minute.mp4", 44_100, 1, "25", (*AAC, *H264, "-g", "50"), duration_seconds=SECONDS
)
FLAC = MediaSpec("minute.flac", 16_000, 1, "", ("-c:a", "flac"), duration_seconds=SECONDS)
SECRET = bytes(range(16))
LISTED = 2000
SEGMENT_SECONDS = 2
AUDIO = Requirement(NEEDED_SECONDS, audio=True, video=False)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@contextlib.contextmanager
def no_process() -> Iterator[None]:
    """Let no program start, however it is called."""

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a program is started: {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        yield


# -- The right bytes, and how many -----------------------------------------------------------------


def make_hls(media: Path, folder: Path, *options: str) -> Path:
    """Split the audio of a medium into segments; return the playlist."""
    playlist = folder / f"{VIDEO}.m3u8"
    hls = ("-f", "hls", "-hls_time", f"{SEGMENT_SECONDS}", "-hls_playlist_type", "vod")
    # Names are relative to the folder that FFmpeg works in.
    ffmpeg("-i", str(media), "-c", "copy", *hls, *options, str(playlist))
    return playlist


def lengthen(playlist: Path, *, byte_range: str = "") -> None:
    """List segments that do not exist, up to 2,000."""
    text = playlist.read_text()
    rest = LISTED - text.count("#EXTINF")
    more = "".join(
        f"#EXTINF:{SEGMENT_SECONDS}.000000,\n{byte_range}absent{number:04}.ts\n"
        for number in range(rest)
    )
    playlist.write_text(text.replace("#EXT-X-ENDLIST", f"{more}#EXT-X-ENDLIST"))
    assert playlist.read_text().count("#EXTINF") == LISTED


def encrypted(folder: Path) -> tuple[str, ...]:
    (folder / "secret.key").write_bytes(SECRET)
    (folder / "info").write_text(f"secret.key\n{folder / 'secret.key'}\n")
    return ("-hls_key_info_file", str(folder / "info"))


FORMS = {
    "ts": ("-hls_segment_type", "mpegts"),
    "fmp4": ("-hls_segment_type", "fmp4"),
    "ts in one file": ("-hls_segment_type", "mpegts", "-hls_flags", "single_file"),
    "fmp4 in one file": ("-hls_segment_type", "fmp4", "-hls_flags", "single_file"),
    "ts by AES-128": ("-hls_segment_type", "mpegts"),
}


@pytest.mark.parametrize("form", FORMS)
def test_of_2000_segments_only_the_needed_ones_are_downloaded(
    media_cache: MediaCache, tmp_path: Path, form: str
) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    media = media_cache.make(MINUTE)
    keys = encrypted(folder) if "AES" in form else ()
    playlist = make_hls(media, folder, *FORMS[form], *keys)
    lengthen(playlist, byte_range="#EXT-X-BYTERANGE:1000@0\n" if "one file" in form else "")
    with (
        no_process(),
        FaultSite(folder=folder) as site,
        YtDlpSource(site.template(suffix=".m3u8")).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as fetched,
    ):
        assert_sound(fetched.path)
        covered = covered_seconds(fetched.path, audio=True, video=False)
        assert NEEDED_SECONDS + 1 <= covered <= NEEDED_SECONDS + 1 + 2 * SEGMENT_SECONDS
        whole = sum(path.stat().st_size for path in folder.glob("*[0-9].[mt]*[4s]"))
        whole = whole or media.stat().st_size
        assert fetched.size_bytes <= 1.3 * whole * NEEDED_SECONDS / SECONDS
        assert not [name for name in requested(site) if name.startswith("absent")]
    assert list(tmp.iterdir()) == []


def assert_sound(media: Path) -> None:
    """Check that each utterance is where the truth has it, to a sample."""
    cut = crop_audio(media, UTTERANCES, audio_format="flac")
    assert cut.missing == ()
    assert {name: delay for name, delay in delays_of(cut.clips).items() if abs(delay) > 1} == {}


def requested(site: FaultSite) -> list[str]:
    return [request.video_id for request in site.journal]


def test_lossless_segments_have_the_samples_of_the_medium(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    media = media_cache.make(FLAC)
    make_hls(media, tmp_path, "-hls_segment_type", "fmp4", "-strict", "-2")
    with FaultSite(folder=tmp_path) as site:
        fetched = download(site, tmp_path, AUDIO)
    clips = [crop_audio(path, UTTERANCES, audio_format="flac").clips for path in (fetched, media)]
    assert len(clips[0]) == len(UTTERANCES)
    assert [clip.data for clip in clips[0]] == [clip.data for clip in clips[1]]


def test_of_a_long_dash_manifest_only_the_needed_segments_are_downloaded(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    folder, tmp = tmp_path / "served", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    manifest = folder / f"{VIDEO}.mpd"
    dash = ("-f", "dash", "-seg_duration", f"{SEGMENT_SECONDS}", "-use_timeline", "0")
    ffmpeg("-i", str(media_cache.make(MINUTE)), "-c", "copy", *dash, str(manifest))
    text = manifest.read_text()
    manifest.write_text(re.sub(r'(Duration)="PT(1M)?[0-9.]+S"', rf'\1="PT{LISTED * 2}S"', text))
    with (
        no_process(),
        FaultSite(folder=folder) as site,
        YtDlpSource(site.template(suffix=".mpd")).fetch(
            KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp
        ) as fetched,
    ):
        assert_sound(fetched.path)
        whole = sum(path.stat().st_size for path in folder.glob("*.m4s"))
        assert fetched.size_bytes <= 1.3 * whole * NEEDED_SECONDS / SECONDS
        assert len(requested(site)) < 30


# -- Below yt-dlp's extraction ---------------------------------------------------------------------


def download(
    site: FaultSite,
    folder: Path,
    requirement: Requirement = AUDIO,
    *,
    clock: SteppingClock | None = None,
    fault: str = "",
    budget: TransferBudget | None = None,
    **info: Any,
) -> Path:
    """Download what a playlist lists, by a clock that only the test moves."""
    clock, target = clock or SteppingClock(), folder / "fetched"
    meter = TransferMeter(
        budget or TransferBudget.of(requirement.seconds), clock=clock, sleep=clock.sleep
    )
    described = {
        "url": site.template(fault, ".m3u8").format(video_id=VIDEO),
        "protocol": "m3u8_native",
        **info,
    }
    with downloader() as ydl:
        download_segments(ydl, described, target, requirement, meter=meter)
    return target


@contextlib.contextmanager
def downloader() -> Iterator[YoutubeDL]:
    options = {"quiet": True, "socket_timeout": 30, "fragment_retries": 3}
    with YoutubeDL(options, auto_init=False) as ydl:
        yield ydl


@pytest.fixture
def site(media_cache: MediaCache, tmp_path: Path) -> Iterator[FaultSite]:
    """A site with a minute in 30 segments of MPEG-TS."""
    folder = tmp_path / "served"
    folder.mkdir()
    make_hls(media_cache.make(MINUTE), folder)
    with FaultSite(folder=folder) as served:
        yield served


def playlist_of(site: FaultSite) -> Path:
    assert site.folder is not None
    return site.folder / f"{VIDEO}.m3u8"


def entries(site: FaultSite) -> tuple[str, list[str]]:
    """Return the head of a playlist and its segments, each with its duration."""
    head, *found = playlist_of(site).read_text().split("#EXTINF")
    return head, [f"#EXTINF{text.removesuffix('#EXT-X-ENDLIST' + chr(10))}" for text in found]


def test_a_broadcast_ends_at_what_is_needed(site: FaultSite, tmp_path: Path) -> None:
    """Its playlist grows by a segment at each request, and keeps the last ten."""
    head, listed = entries(site)
    shown = 10

    def go_on(request: SiteRequest) -> None:
        nonlocal shown
        if request.video_id != VIDEO:
            return
        first = max(0, shown - 10)
        sequence = f"#EXT-X-MEDIA-SEQUENCE:{first}"
        playlist_of(site).write_text(
            re.sub("#EXT-X-MEDIA-SEQUENCE:0|#EXT-X-PLAYLIST-TYPE:VOD", sequence, head)
            + "".join(listed[first:shown])
        )
        shown += 1

    go_on(SiteRequest(0, VIDEO, "", True, 0))
    site.before = go_on
    clock = SteppingClock()
    target = download(site, tmp_path, clock=clock)
    assert_sound(target)
    assert requested(site).count(VIDEO) == pytest.approx(12, abs=2)
    # Between two requests passes half of a segment, as RFC 8216 has it.
    assert 0 < clock.now < NEEDED_SECONDS
    names = [name for name in requested(site) if name != VIDEO]
    assert len(names) == len(set(names)) == pytest.approx(NEEDED_SECONDS / SEGMENT_SECONDS, abs=2)


def test_a_broadcast_that_goes_on_too_fast_is_reported(site: FaultSite, tmp_path: Path) -> None:
    head, listed = entries(site)
    head = head.replace("#EXT-X-PLAYLIST-TYPE:VOD\n", "")
    playlist_of(site).write_text(head + "".join(listed[:3]))

    def go_on(request: SiteRequest) -> None:
        if request.video_id == VIDEO and request.number > 1:
            later = head.replace("SEQUENCE:0", "SEQUENCE:7")
            playlist_of(site).write_text(later + "".join(listed[7:10]))

    site.before = go_on
    # The answer that is being made was read before.
    go_on(SiteRequest(0, VIDEO, "", True, 1))
    with pytest.raises(
        FetchError, match="segment 3 is needed, and its playlist now begins with segment 7"
    ) as caught:
        download(site, tmp_path)
    assert caught.value.status == "transient"


def test_a_playlist_without_an_end_is_read_until_it_no_longer_grows(
    site: FaultSite, tmp_path: Path
) -> None:
    head, listed = entries(site)
    playlist_of(site).write_text(
        head.replace("#EXT-X-PLAYLIST-TYPE:VOD\n", "") + "".join(listed[:5])
    )
    clock = SteppingClock()
    target = download(site, tmp_path, clock=clock)
    assert covered_seconds(target, audio=True, video=False) == pytest.approx(10, abs=0.2)
    assert 60 <= clock.now <= 70


def test_a_broadcast_that_grows_by_nothing_ends_at_the_deadline(
    site: FaultSite, tmp_path: Path
) -> None:
    head, listed = entries(site)
    head = head.replace("#EXT-X-PLAYLIST-TYPE:VOD\n", "")
    # Each segment is said to be 0 seconds long, and a new one is listed at each request.
    still = listed[0].replace("#EXTINF:2", "#EXTINF:0")
    count = 1

    def go_on(request: SiteRequest) -> None:
        nonlocal count
        if request.video_id == VIDEO:
            playlist_of(site).write_text(
                head.replace("SEQUENCE:0", f"SEQUENCE:{count}") + still * 2
            )
            count += 1

    go_on(SiteRequest(0, VIDEO, "", True, 0))
    site.before = go_on
    clock = SteppingClock()
    needed = Requirement(5.0, audio=True, video=False)
    with pytest.raises(FetchError, match=r"not done after \d+ s and \d+ bytes; .* 100 s") as caught:
        download(site, tmp_path, needed, clock=clock, budget=TransferBudget(1 << 30, 100.0))
    assert caught.value.status == "transient"
    assert clock.now <= 102


def test_a_broadcast_needs_no_program(site: FaultSite, tmp_path: Path) -> None:
    """yt-dlp would call ffmpeg for it, which reads on for ever."""
    head, listed = entries(site)
    head = head.replace("#EXT-X-PLAYLIST-TYPE:VOD\n", "")
    playlist_of(site).write_text(head.replace("SEQUENCE:0", "SEQUENCE:7") + "".join(listed))
    source = YtDlpSource(site.template(suffix=".m3u8"))
    with no_process(), source.fetch(KEY, needed_seconds=NEEDED_SECONDS, tmp=tmp_path) as fetched:
        assert_sound(fetched.path)


# -- Breaks ----------------------------------------------------------------------------------------


def with_break(site: FaultSite, *, order: list[int]) -> None:
    """List segments in an order, with a discontinuity before the last ten."""
    head, listed = entries(site)
    chosen = [listed[index] for index in order]
    chosen.insert(len(order) - 10, "#EXT-X-DISCONTINUITY\n")
    playlist_of(site).write_text(head + "".join(chosen) + "#EXT-X-ENDLIST\n")


def test_a_break_with_the_same_clock_is_none(site: FaultSite, tmp_path: Path) -> None:
    with_break(site, order=list(range(30)))
    assert_sound(download(site, tmp_path, Requirement(50.0, audio=True, video=False)))


def test_what_follows_a_break_of_the_clock_is_left_out(site: FaultSite, tmp_path: Path) -> None:
    """At its time stamps there would be other audio."""
    with_break(site, order=[*range(15), *range(10)])
    target = download(site, tmp_path)
    assert covered_seconds(target, audio=True, video=False) == pytest.approx(30, abs=0.2)
    cut = crop_audio(target, UTTERANCES, audio_format="flac")
    assert [clip.utterance for clip in cut.clips] == list(UTTERANCES[:2])
    assert all(abs(delay) < 1 for delay in delays_of(cut.clips).values())


@pytest.mark.parametrize("is_same", [True, False])
def test_a_later_initialization_must_be_the_same(
    media_cache: MediaCache, tmp_path: Path, is_same: bool
) -> None:
    """Segments of two streams cannot be joined; the same one may have two addresses."""
    playlist = make_hls(media_cache.make(MINUTE), tmp_path, *FORMS["fmp4"])
    init = next(tmp_path.glob("*init*"))
    (tmp_path / "again.mp4").write_bytes(init.read_bytes() + (b"" if is_same else bytes(8)))
    head, *listed = playlist.read_text().split("#EXTINF")
    listed[10] = f'{listed[10]}#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="again.mp4"\n'
    playlist.write_text("#EXTINF".join([head, *listed]))
    with FaultSite(folder=tmp_path) as served:
        target = download(served, tmp_path)
    covered = covered_seconds(target, audio=True, video=False)
    assert covered == pytest.approx(41 if is_same else 22, abs=1.2)
    if is_same:
        assert_sound(target)


def test_durations_that_are_wrong_are_not_relied_on(site: FaultSite, tmp_path: Path) -> None:
    head, listed = entries(site)
    longer = [re.sub(r"#EXTINF:[\d.]+", "#EXTINF:3.5", text) for text in listed]
    playlist_of(site).write_text(head + "".join(longer) + "#EXT-X-ENDLIST\n")
    target = download(site, tmp_path)
    assert_sound(target)
    assert covered_seconds(target, audio=True, video=False) < NEEDED_SECONDS * 1.2


def test_without_the_needed_stream_no_more_is_downloaded_than_stated(
    site: FaultSite, tmp_path: Path
) -> None:
    target = download(site, tmp_path, Requirement(10.0, audio=True, video=True))
    assert covered_seconds(target, audio=True, video=False) == pytest.approx(11, abs=1.5)


# -- Servers that misbehave ------------------------------------------------------------------------


@pytest.mark.parametrize("dripping", ["m3u8", "ts", "key"])
def test_a_server_that_drips_is_given_up(
    site: FaultSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dripping: str
) -> None:
    """Byte by byte, at one a second: playlist, key or segment."""
    assert site.folder is not None
    (site.folder / "secret.key").write_bytes(bytes(1000))
    if dripping == "key":
        head, listed = entries(site)
        key = '#EXT-X-KEY:METHOD=AES-128,URI="secret.key"\n'
        playlist_of(site).write_text(head + key + "".join(listed) + "#EXT-X-ENDLIST\n")
    clock = SteppingClock()
    urlopen = YoutubeDL.urlopen

    class Drip:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def read1(self, _: int, **options: Any) -> Any:
            clock.now += 1
            return self._stream.read1(1, **options)

    def drip(ydl: YoutubeDL, request: Any) -> Any:
        response = urlopen(ydl, request)
        if request.url.endswith(dripping):
            response.fp = Drip(response.fp)
        return response

    monkeypatch.setattr(YoutubeDL, "urlopen", drip)
    with pytest.raises(
        FetchError, match=r"the server sends too slowly: \d+ bytes in 60 s"
    ) as caught:
        download(site, tmp_path, clock=clock)
    assert caught.value.status == "transient"
    assert clock.now <= 61


def test_a_server_that_is_just_fast_enough_has_a_deadline(
    site: FaultSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SteppingClock()
    read = range_reader.AvailableBytes.read

    def slow(stream: Any, amount: int | None = None, **options: Any) -> Any:
        block = read(stream, min(amount or 1100, 1100), **options)
        clock.now += len(block) / 1100
        return block

    monkeypatch.setattr(range_reader.AvailableBytes, "read", slow)
    needed = Requirement(600.0, audio=True, video=False)
    with pytest.raises(FetchError, match=r"not done after \d+ s and \d+ bytes; .* take 300 s"):
        download(site, tmp_path, needed, clock=clock, budget=TransferBudget(1 << 30, 300.0))
    assert clock.now <= 302


def test_a_stream_of_too_many_bytes_is_given_up(site: FaultSite, tmp_path: Path) -> None:
    message = r"the server sent \d+ bytes without covering .* at most 100000 bytes of this video"
    with pytest.raises(FetchError, match=message) as caught:
        download(site, tmp_path, budget=TransferBudget(100_000, math.inf))
    assert caught.value.status == "media-unusable"
    assert (tmp_path / "fetched").stat().st_size <= 100_000


def test_a_segment_that_is_endless_is_given_up(site: FaultSite, tmp_path: Path) -> None:
    _, listed = entries(site)
    segment = listed[0].split("\n")[1]
    text = playlist_of(site).read_text().replace(segment, f"/endless/{segment}")
    playlist_of(site).write_text(text)
    with pytest.raises(FetchError, match="at most 5000000 bytes"):
        download(site, tmp_path, budget=TransferBudget(5_000_000, math.inf))


@pytest.mark.parametrize("status", [500, 503])
def test_an_error_of_the_server_is_waited_out(site: FaultSite, tmp_path: Path, status: int) -> None:
    text = playlist_of(site).read_text()
    names = re.findall(r"^\S+\.ts$", text, re.MULTILINE)
    site.faults = {Path(name).stem: f"{status}-once" for name in names[1:4]}
    clock = SteppingClock()
    assert_sound(download(site, tmp_path, clock=clock))
    assert clock.now == 3


@pytest.mark.parametrize(("status", "tries"), [(503, 4), (404, 1), (403, 1), (429, 1)])
def test_a_refusal_is_reported(site: FaultSite, tmp_path: Path, status: int, tries: int) -> None:
    text = playlist_of(site).read_text()
    name = Path(re.findall(r"^\S+\.ts$", text, re.MULTILINE)[1]).stem
    site.faults = {name: str(status)}
    with pytest.raises(HTTPError, match=str(status)):
        download(site, tmp_path)
    assert site.count(name) == tries


@pytest.mark.parametrize("fault", ["drop-probe", "length-too-short", "no-length", "gzip", "moved"])
def test_broken_answers_are_continued(site: FaultSite, tmp_path: Path, fault: str) -> None:
    text = playlist_of(site).read_text()
    names = re.findall(r"^\S+\.ts$", text, re.MULTILINE)
    site.faults = {Path(name).stem: fault for name in names[1:4]}
    assert_sound(download(site, tmp_path))


def test_ranges_of_one_file_are_of_one_version(media_cache: MediaCache, tmp_path: Path) -> None:
    """The segments before the change are read again as well."""
    playlist = make_hls(media_cache.make(MINUTE), tmp_path, *FORMS["ts in one file"])
    sizes = [int(size) for size in re.findall(r"BYTERANGE:(\d+)@", playlist.read_text())]
    with FaultSite(folder=tmp_path) as served:
        target = download(served, tmp_path, fault="edited")
        assert_sound(target)
        count = [sum(sizes[:end]) for end in range(len(sizes))].index(target.stat().st_size)
        # Twice the playlist, one segment before the change, one answer that shows it.
        assert served.count("edited") == 2 + 1 + 1 + count
        # As nodes of a network that do not agree: not for ever.
        with pytest.raises(FetchError, match=r"changed .*, twice: its ETag was") as caught:
            download(served, tmp_path, fault="edited-always")
        assert served.count("edited-always") == 2 * 3
    assert caught.value.status == "transient"


WRONG = {
    "html": ("ambiguous", "a page of HTML instead of media"),
    "empty": ("transient", "The downloaded file is empty"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_segment_that_is_no_media_is_reported(
    site: FaultSite, tmp_path: Path, fault: str
) -> None:
    text = playlist_of(site).read_text()
    name = Path(re.findall(r"^\S+\.ts$", text, re.MULTILINE)[1]).stem
    site.faults = {name: fault}
    status, message = WRONG[fault]
    with pytest.raises(FetchError, match=message) as caught:
        download(site, tmp_path)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("key", "status", "message"),
    [
        (b"short", "ambiguous", "the server sent 5 bytes for the key of the segments, 16 are"),
        (bytes(2000), "media-unusable", "the playlist or key is longer than 1024 bytes"),
        (bytes(16), "media-unusable", r"a segment of \d+ bytes cannot be decrypted"),
    ],
    ids=["short", "long", "wrong"],
)
def test_a_key_that_does_not_fit_is_reported(
    media_cache: MediaCache, tmp_path: Path, key: bytes, status: str, message: str
) -> None:
    make_hls(media_cache.make(MINUTE), tmp_path, *encrypted(tmp_path))
    (tmp_path / "secret.key").write_bytes(key)
    with FaultSite(folder=tmp_path) as served, pytest.raises(FetchError, match=message) as caught:
        download(served, tmp_path)
    assert caught.value.status == status


def test_a_key_that_the_site_states_is_used(media_cache: MediaCache, tmp_path: Path) -> None:
    make_hls(media_cache.make(MINUTE), tmp_path, *encrypted(tmp_path))
    (tmp_path / "secret.key").unlink()
    with FaultSite(folder=tmp_path) as served:
        assert_sound(download(served, tmp_path, hls_aes={"key": f"0x{SECRET.hex()}"}))


def test_a_doubtful_format_is_tested_by_its_first_segment(site: FaultSite) -> None:
    url = site.template(suffix=".m3u8").format(video_id=VIDEO)
    info = {"url": url, "protocol": "m3u8_native"}
    with downloader() as ydl:
        assert are_served(ydl, info, TransferMeter(TransferBudget.of(0)))
        assert len(requested(site)) == 2
        for fault in ("403", "html"):
            text = playlist_of(site).read_text()
            name = Path(re.findall(r"^\S+\.ts$", text, re.MULTILINE)[0]).stem
            site.faults = {name: fault}
            assert not are_served(ydl, info, TransferMeter(TransferBudget.of(0)))


@pytest.mark.parametrize("doubt", [{"has_drm": "maybe"}, {"__needs_testing": True}])
def test_a_doubtful_format_is_tested_without_a_program(
    site: FaultSite, doubt: dict[str, Any]
) -> None:
    url = site.template(suffix=".m3u8").format(video_id=VIDEO)
    form = {"url": url, "protocol": "m3u8", "format_id": "1", "ext": "mp4", **doubt}
    source = YtDlpSource(site.template(suffix=".m3u8"))
    with no_process():
        assert source._ydl.can_play(form)
        assert not source._ydl.can_play({**form, "url": f"{url}.absent"})


def test_video_and_audio_of_one_stream(site: FaultSite, tmp_path: Path) -> None:
    target = download(site, tmp_path, Requirement(20.5, audio=True, video=True))
    assert covered_seconds(target, audio=True, video=True) == pytest.approx(22, abs=0.2)
    assert len(requested(site)) == 1 + 11
