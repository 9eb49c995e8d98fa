"""A prefix contains what is needed of a remote file, and little more."""

from __future__ import annotations

import functools
import gzip
import itertools
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from hypothesis import example, given
from hypothesis import strategies as st
from support.clocks import SteppingClock
from support.fault_site import FaultSite
from support.gray_frames import faces, gray_video, rearranged
from support.synthetic_audio import (
    AAC,
    FASTSTART,
    FRAGMENTS,
    M4A,
    SPEAKER,
    VIDEO,
    VP9,
    MediaCache,
    MediaSpec,
    ffmpeg,
    utterance,
)
from yt_dlp import YoutubeDL
from yt_dlp.networking.exceptions import TransportError

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import FetchError
from voxblink2_lib.media import coverage
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.sources import mp4_index, prefix, range_reader
from voxblink2_lib.sources.mp4_index import Box, moved_index, needed_bytes, read_layout
from voxblink2_lib.sources.prefix import Requirement, download_prefix
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter

SECONDS = 60.0
UTTERANCES = (utterance(0, 49), utterance(700, 774), utterance(1400, 1474))
AUDIO = Requirement(SECONDS + 1, audio=True, video=False)
BOTH = Requirement(SECONDS + 1, audio=True, video=True)
REQUIREMENTS = (AUDIO, BOTH)
# H.264 with B-frames, 100 KB a second.
BIG = gray_video("big.mp4", noise=60, seconds=200)
PCM = MediaSpec("big.mov", 48_000, 2, "", ("-c:a", "pcm_s16le"), duration_seconds=300)
TALK = MediaSpec("talk.m4a", 44_100, 1, "", (*AAC, *FASTSTART), duration_seconds=300)
OPUS_AND_VP9 = MediaSpec(
    "big.webm",
    48_000,
    1,
    "25",
    ("-c:a", "libopus", "-b:a", "96k", *VP9, "-b:v", "300k"),
    duration_seconds=180,
)

# yt-dlp keeps connections until it is closed.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def fetch(
    url: str,
    folder: Path,
    requirement: Requirement = AUDIO,
    *,
    clock: SteppingClock | None = None,
    patience_seconds: float = 30,
    **keywords: Any,
) -> tuple[Path, int]:
    """Return the local file and the number of bytes downloaded.

    A site that answers does so within the patience, on a busy machine too.
    """
    clock = clock or SteppingClock()
    target = folder / "fetched"
    with YoutubeDL({"quiet": True, "socket_timeout": patience_seconds}, auto_init=False) as ydl:
        info = {"url": url, **keywords.pop("info", {})}
        budget = keywords.pop("budget", TransferBudget.of(requirement.seconds))
        meter = TransferMeter(budget, clock=clock, sleep=clock.sleep, **keywords)
        download_prefix(ydl, info, target, requirement, meter=meter)
        return target, meter.received


def place_media(folder: Path, media: Path) -> Path:
    """Link a media file to where ``MediaSite`` serves it."""
    (folder / SPEAKER).mkdir(parents=True)
    (folder / SPEAKER / f"{VIDEO}{media.suffix}").symlink_to(media)
    return folder


def fetch_from_good_site(
    media: Path, folder: Path, requirement: Requirement = AUDIO, **keywords: Any
) -> tuple[Path, int]:
    """Download from a well-behaved site, and check that all requested bytes are counted."""
    with MediaSite(place_media(folder / "media", media)) as site:
        target, received = fetch(
            site.url_template.format(video_id=VIDEO), folder, requirement, **keywords
        )
        ranges = [request.byte_range for request in site.requests if request.byte_range]
    assert received == sum(stop - start for start, stop in ranges)
    assert max(stop - start for start, stop in ranges) <= 8 << 20
    return target, received


def ideal_bytes(media: Path, requirement: Requirement, *, seconds: float = SECONDS) -> int:
    """Return the end of the packets of the first seconds, plus the index if it is last.

    It is computed from the packets themselves, since the file is complete.
    """
    kinds = {"audio"} if not requirement.video else {"audio", "video"}
    with av.open(media) as container:
        ends = [
            packet.pos + packet.size
            for packet in container.demux()
            if packet.pos is not None
            and packet.stream.type in kinds
            and packet.pts is not None
            and packet.pts * packet.time_base < seconds
        ]
    return max(ends) + (index_bytes(media) if has_index_last(media) else 0)


def has_index_last(media: Path) -> bool:
    layout = layout_of(media)
    return layout is not None and layout.data is not None


def index_bytes(media: Path) -> int:
    layout = layout_of(media)
    assert layout is not None
    assert layout.data is not None
    return media.stat().st_size - layout.data.end


def layout_of(media: Path) -> mp4_index.Layout | None:
    with open(media, "rb") as file:
        return read_layout(file, media.stat().st_size)


def clips_of(media: Path, *, video: bool) -> list[tuple[str, bytes]]:
    """Crop audio and faces of the first minute."""
    audio = crop_audio(media, UTTERANCES, audio_format="flac")
    assert audio.missing == ()
    clips = [(clip.utterance.name, clip.data) for clip in audio.clips]
    if video:
        cut = crop_faces(media, faces(UTTERANCES), options=ClipOptions(video_size=32))
        assert cut.missing == ()
        clips += [(clip.utterance.name, clip.data) for clip in cut.clips]
    return clips


def remuxed(source: Path, target: Path, *options: str) -> Path:
    ffmpeg("-i", str(source), "-c", "copy", *options, str(target))
    return target


def index_last(media_cache: MediaCache, folder: Path) -> Path:
    return remuxed(media_cache.make(BIG), folder / "last.mp4")


# -- The right bytes, and how many -----------------------------------------------------------------


def long_medium(media_cache: MediaCache, folder: Path, name: str) -> Path:
    """Make one of several long media files."""
    match name:
        case "first":
            return media_cache.make(BIG)
        case "last":
            return index_last(media_cache, folder)
        case "fragments":
            return remuxed(media_cache.make(BIG), folder / "fragments.mp4", *FRAGMENTS)
        case "pcm-first":
            return remuxed(media_cache.make(PCM), folder / "first.mov", *FASTSTART)
        case _:
            return media_cache.make({"talk": TALK, "pcm": PCM, "webm": OPUS_AND_VP9}[name])


@pytest.mark.parametrize(
    ("name", "requirement"),
    [
        *(
            (name, requirement)
            for name in ("first", "last", "fragments", "webm")
            for requirement in REQUIREMENTS
        ),
        *((name, AUDIO) for name in ("talk", "pcm", "pcm-first")),
    ],
)
def test_the_first_minute_costs_little_more_than_its_bytes(
    media_cache: MediaCache, tmp_path: Path, name: str, requirement: Requirement
) -> None:
    media = long_medium(media_cache, tmp_path, name)
    target, received = fetch_from_good_site(media, tmp_path, requirement)
    ideal = ideal_bytes(media, requirement)
    assert media.stat().st_size > 2.5 * ideal
    assert received <= (1.3 if name in {"fragments", "webm"} else 1.05) * ideal
    assert covered_seconds(target, audio=requirement.audio, video=requirement.video) >= SECONDS + 1
    assert clips_of(target, video=requirement.video) == clips_of(media, video=requirement.video)


def test_an_index_at_the_end_is_downloaded_once_and_stored_first(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    media = index_last(media_cache, tmp_path)
    with MediaSite(place_media(tmp_path / "media", media)) as site:
        target, received = fetch(site.url_template.format(video_id=VIDEO), tmp_path, BOTH)
        ranges = [request.byte_range for request in site.requests if request.byte_range]
    size = media.stat().st_size
    assert [start for start, _ in ranges[:2]] == [0, size - index_bytes(media)]
    assert sum(stop == size for _, stop in ranges) == 1
    assert received == target.stat().st_size
    layout = layout_of(target)
    assert layout is not None
    assert layout.index is not None
    assert layout.data is None


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_a_file_of_several_gigabytes_with_its_index_behind(
    media_cache: MediaCache, tmp_path: Path, requirement: Requirement
) -> None:
    """Its offsets have 64 bits, or 32 bits without room for the length of the index."""
    media, near_most = tmp_path / "huge.mp4", 0xFFFFFFF0
    with_hole(index_last(media_cache, tmp_path), media, hole_bytes=5 << 30, last_chunk=near_most)
    assert media.stat().st_size > 5 << 30
    target, received = fetch_from_good_site(media, tmp_path, requirement)
    assert received < 8_000_000
    assert clips_of(target, video=requirement.video) == clips_of(
        media_cache.make(BIG), video=requirement.video
    )


def with_hole(source: Path, target: Path, *, hole_bytes: int, last_chunk: int) -> None:
    """Make the data of a file longer by a hole, and move the last chunk into it."""
    layout, data = layout_of(source), source.read_bytes()
    assert layout is not None
    box = layout.data
    assert box is not None
    # FFmpeg writes an empty box before the data, as room for a length of 64 bits.
    assert data[box.start - 4 : box.start] == b"free"
    index = bytearray(data[box.end :])
    place_media = index.find(b"stco") + 8
    count = struct.unpack_from(">I", index, place_media)[0]
    struct.pack_into(">I", index, place_media + 4 * count, last_chunk)
    with open(target, "wb") as file:
        file.write(data[: box.start - 8])
        file.write(struct.pack(">I4sQ", 1, b"mdat", box.end - box.start + 8 + hole_bytes))
        file.write(data[box.content : box.end])
        file.seek(hole_bytes, 1)
        file.write(index)


@pytest.mark.parametrize("first", ["audio", "video"])
def test_video_and_audio_may_be_stored_apart(
    media_cache: MediaCache, tmp_path: Path, first: Any
) -> None:
    media = rearranged(media_cache.make(BIG), tmp_path / "apart.mp4", first=first)
    for folder, requirement in ((tmp_path / "audio", AUDIO), (tmp_path / "both", BOTH)):
        folder.mkdir()
        target, received = fetch_from_good_site(media, folder, requirement)
        assert received <= 1.3 * ideal_bytes(media, requirement)
        assert clips_of(target, video=requirement.video) == clips_of(media, video=requirement.video)


@pytest.mark.parametrize("late", ["audio", "video"])
def test_a_stream_that_begins_late_is_needed_longer(
    media_cache: MediaCache, tmp_path: Path, late: str
) -> None:
    """The container's clock starts earlier than the video: an edit list says so."""
    media = media_cache.make(
        MediaSpec(
            f"late-{late}.mp4",
            44_100,
            1,
            "25",
            (*AAC, "-c:v", "mjpeg", "-q:v", "2", *FASTSTART),
            audio_late_seconds=5.0 if late == "audio" else 0.0,
            video_late_seconds=5.0 if late == "video" else 0.0,
            duration_seconds=200,
        )
    )
    target, received = fetch_from_good_site(media, tmp_path, BOTH)
    assert received < media.stat().st_size / 2
    assert covered_seconds(target, audio=True, video=True) >= SECONDS + 1
    utterances = UTTERANCES[1:]
    cut, whole = (crop_audio(path, utterances, audio_format="flac") for path in (target, media))
    assert [clip.data for clip in cut.clips] == [clip.data for clip in whole.clips]
    assert len(cut.clips) == 2


def test_a_video_that_ends_early_is_not_downloaded_to_the_end(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    """The index lists all packets: what follows the last one is of no use."""
    media = tmp_path / "padded.m4a"
    with open(media, "wb") as file:
        file.write(media_cache.make(M4A).read_bytes())
        file.write(struct.pack(">I4s", 50_000_008, b"free"))
        file.truncate(file.tell() + 50_000_000)
    target, received = fetch_from_good_site(media, tmp_path)
    assert received < media_cache.make(M4A).stat().st_size + (128 << 10)
    assert covered_seconds(target, audio=True, video=False) == pytest.approx(12, abs=0.1)


def test_with_an_older_pyav_all_is_estimated(
    media_cache: MediaCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every version exposes the index."""

    class Stream:
        time_base = 1

    assert mp4_index._stream_end(Stream(), 10.0) is None
    monkeypatch.setattr(prefix, "needed_bytes", lambda *_, **__: None)
    media = index_last(media_cache, tmp_path)
    target, received = fetch_from_good_site(media, tmp_path, BOTH)
    assert received <= 1.3 * ideal_bytes(media, BOTH)
    assert clips_of(target, video=True) == clips_of(media, video=True)


def test_metadata_of_a_file_give_a_first_guess(media_cache: MediaCache, tmp_path: Path) -> None:
    media = media_cache.make(OPUS_AND_VP9)
    size = media.stat().st_size
    for number, info in enumerate(
        ({"filesize": size, "duration": 180}, {"tbr": size / 180 / 125}, {"tbr": 8})
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        target, received = fetch_from_good_site(media, folder, info=info)
        assert covered_seconds(target, audio=True, video=False) >= SECONDS + 1
        assert received <= 1.3 * ideal_bytes(media, AUDIO)


# -- Unusual indexes -------------------------------------------------------------------------------


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def offsets(*values: int, kind: bytes = b"stco") -> bytes:
    form = ">I" if kind == b"stco" else ">Q"
    table = b"".join(struct.pack(form, value) for value in values)
    return box(kind, struct.pack(">II", 0, len(values)) + table)


def index(*tables: bytes) -> bytes:
    tracks = (box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))) for table in tables)
    return box(b"moov", b"".join(tracks))


DATA = Box(b"mdat", 100, 108, 6 << 30)


def test_offsets_are_increased_by_the_length_of_the_index() -> None:
    least, most = 108, 0xFFFFFFFF
    plain = index(offsets(least, 5000, most - 1, most), offsets(least, 5 << 30, kind=b"co64"))
    by = len(plain)
    expected = index(
        offsets(least + by, 5000 + by, most, most),
        offsets(least + by, (5 << 30) + by, kind=b"co64"),
    )
    assert moved_index(plain, DATA) == expected
    assert moved_index(box(b"free", b"abc") + plain + box(b"udta"), DATA) == expected


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"abc",
        box(b"free"),
        index() + index(),
        index() + b"\0",
        index()[:-1] + b"",
        index(offsets(5000)) + box(b"mdat"),
        index(offsets(5000)) + box(b"moof"),
        box(b"moov", box(b"cmov", b"packed")),
        box(b"moov", box(b"mvex")),
        index(offsets(107)),
        index(offsets(6 << 30, kind=b"co64")),
        index(offsets(5000)[:-1]),
        index(box(b"stco", struct.pack(">III", 0, 2, 5000))),
        index(box(b"stco", b"\0\0\0\0")),
        box(b"moov", struct.pack(">I4s", 99, b"trak")),
        box(b"moov", struct.pack(">I4s", 3, b"trak")),
        functools.reduce(lambda inner, _: box(b"trak", inner), range(3000), b"x"),
        box(b"moov", functools.reduce(lambda inner, _: box(b"trak", inner), range(3000), b"x")),
    ],
    ids=range(19),
)
def test_unusual_indexes_are_left_alone(tail: bytes) -> None:
    assert moved_index(tail, DATA) is None


@given(st.binary(max_size=200), st.sampled_from([b"", index(offsets(5000)), index()]))
def test_any_tail_is_accepted(noise: bytes, moov: bytes) -> None:
    moved = moved_index(noise + moov, DATA)
    assert moved is None or moved[4:8] == b"moov"


@given(st.binary(max_size=100), st.sampled_from([b"", box(b"ftyp"), box(b"ftyp", b"mp42")]))
@example(b"[", b"")  # FFmpeg recognizes it as subtitles
@example(struct.pack(">I4sQ", 1, b"free", 2**64 - 1), b"")  # ends beyond what a file can have
@example(struct.pack(">I4sQ", 1, b"free", 2**63), box(b"ftyp"))
def test_any_head_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "head"
    path.write_bytes(start + noise)
    with open(path, "rb") as file:
        layout = read_layout(file, len(start + noise))
    assert layout is None or layout.index or layout.data
    assert needed_bytes(path, seconds=1.0, audio=True, video=True) is None


@pytest.mark.parametrize("default", [0, 1])
def test_every_audio_track_is_in_a_prefix(
    media_cache: MediaCache, tmp_path: Path, default: int
) -> None:
    """The one that is cropped is known later: the user's choice, or the one that is not silent."""
    path = tmp_path / "two.mp4"
    options = {"movflags": "faststart", "max_interleave_delta": "1"}
    talk = media_cache.make(TALK)
    with av.open(str(path), "w", options=options) as film, av.open(str(talk)) as source:
        tracks = [film.add_stream_from_template(source.streams.audio[0]) for _ in range(2)]
        for number, track in enumerate(tracks):
            track.disposition = Disposition.default if number == default else Disposition(0)
            source.seek(0)
            for packet in source.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = track
                    film.mux(packet)
    needed = needed_bytes(path, seconds=SECONDS, audio=True, video=False)
    assert needed is not None
    with av.open(str(path)) as film:
        for track in film.streams.audio:
            first, *_ = [
                entry
                for entry in track.index_entries
                if entry.timestamp * float(track.time_base or 0) > SECONDS
            ]
            assert first.pos <= needed.end_bytes


@pytest.mark.parametrize("error", [ValueError("255 channels"), OverflowError(), IndexError()])
def test_nothing_is_known_of_a_file_at_which_a_reader_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What is wrong with it is found when it is decoded, from all that can be downloaded."""

    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "x.mp4").write_bytes(box(b"ftyp", b"mp42"))
    for module, name in (
        (coverage, "open_media"),
        (coverage, "read_frame_times"),
        (mp4_index, "open_media"),
    ):
        monkeypatch.setattr(module, name, fail)
    for audio, video in ((True, False), (False, True)):
        assert covered_seconds(tmp_path / "x.mp4", audio=audio, video=video) == 0.0
        assert needed_bytes(tmp_path / "x.mp4", seconds=1.0, audio=audio, video=video) is None


@pytest.mark.parametrize("how", ["two parts", "index cut off", "open end"])
def test_a_file_with_an_unusual_end_is_downloaded_whole(
    media_cache: MediaCache, tmp_path: Path, how: str
) -> None:
    media, whole = tmp_path / "odd.mp4", index_last(media_cache, tmp_path).read_bytes()
    layout = layout_of(tmp_path / "last.mp4")
    assert layout is not None
    data = layout.data
    assert data is not None
    if how == "two parts":
        whole += box(b"mdat", bytes(1000))
    elif how == "index cut off":
        whole = whole[:-100]
    else:
        whole = whole[: data.start] + bytes(4) + whole[data.start + 4 :]
    media.write_bytes(whole)
    target, received = fetch_from_good_site(media, tmp_path)
    tails = len(whole) - data.end if how != "open end" else 0
    assert target.read_bytes() == whole
    assert len(whole) <= received <= len(whole) + tails


# -- Servers that misbehave ------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[FaultSite, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with FaultSite(folder=folder) as site:
        yield site, folder


def url_of(site: FaultSite, fault: str, name: str) -> str:
    return site.template(fault, "").format(video_id=name)


@pytest.mark.parametrize("name", ["big.mp4", "big.webm", "fragments.mp4"])
@pytest.mark.parametrize("fault", ["no-ranges", "no-length", "endless"])
def test_without_ranges_reading_stops_after_enough_bytes(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path, fault: str, name: str
) -> None:
    site, folder = served
    if name == "fragments.mp4":
        media = remuxed(media_cache.make(BIG), folder / name, *FRAGMENTS)
    else:
        media = media_cache.make(BIG if name == "big.mp4" else OPUS_AND_VP9)
        (folder / name).symlink_to(media)
    target, received = fetch(url_of(site, fault, name), tmp_path)
    # All in one answer.
    assert site.count(fault) == (1 if fault != "no-length" else site.count(fault))
    assert received <= 1.3 * ideal_bytes(media, AUDIO)
    assert received == target.stat().st_size
    assert clips_of(target, video=False) == clips_of(media, video=False)


@pytest.mark.parametrize("fault", ["no-ranges", "endless"])
def test_without_ranges_a_file_with_its_index_last_is_downloaded_whole(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path, fault: str
) -> None:
    site, folder = served
    media = index_last(media_cache, folder)
    target, received = fetch(url_of(site, fault, "last.mp4"), tmp_path)
    assert received <= (2 if fault == "endless" else 1) * media.stat().st_size
    assert clips_of(target, video=False) == clips_of(media, video=False)


def test_an_endless_body_that_cannot_be_played_is_given_up(
    served: tuple[FaultSite, Path], tmp_path: Path
) -> None:
    site, folder = served
    (folder / "noise.webm").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(FetchError, match=r"nothing can be played of the first \d+ bytes") as caught:
        fetch(url_of(site, "endless", "noise.webm"), tmp_path)
    assert caught.value.status == "media-unusable"
    assert 64 << 20 <= (tmp_path / "fetched").stat().st_size <= 160 << 20


def test_an_endless_body_whose_media_have_ended_is_accepted(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path
) -> None:
    site, folder = served
    shutil.copy(
        media_cache.make(MediaSpec("short.webm", 48_000, 1, "", ("-c:a", "libopus"))), folder
    )
    target, received = fetch(url_of(site, "endless", "short.webm"), tmp_path)
    assert 64 << 20 <= received <= 160 << 20
    assert covered_seconds(target, audio=True, video=False) == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Log in", b"\xef\xbb\xbf \n<HTML lang=en>"])
def test_a_page_is_recognized_by_its_beginning(
    served: tuple[FaultSite, Path], tmp_path: Path, page: bytes
) -> None:
    site, folder = served
    (folder / "page.m4a").write_bytes(page)
    for fault in ("good", "no-ranges", "endless"):
        with pytest.raises(FetchError, match="a page of HTML instead of media") as caught:
            fetch(url_of(site, fault, "page.m4a"), tmp_path)
        assert caught.value.status == "ambiguous"


def test_an_archive_is_refused(served: tuple[FaultSite, Path], tmp_path: Path) -> None:
    site, folder = served
    (folder / "packed.m4a").write_bytes(gzip.compress(bytes(1000)))
    with pytest.raises(FetchError, match="a gzip archive instead of media") as caught:
        fetch(url_of(site, "good", "packed.m4a"), tmp_path)
    assert caught.value.status == "ambiguous"


@pytest.mark.parametrize("fault", ["drip", "drop-once", "length-too-short", "length-too-long"])
def test_broken_answers_are_continued(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path, fault: str
) -> None:
    site, folder = served
    media = media_cache.make(TALK)
    (folder / "talk.m4a").symlink_to(media)
    target, received = fetch(url_of(site, fault, "talk.m4a"), tmp_path)
    assert received == target.stat().st_size <= 1.3 * ideal_bytes(media, AUDIO)
    assert target.read_bytes() == media.read_bytes()[:received]


def test_a_server_that_stops_sending_is_given_up(
    served: tuple[FaultSite, Path],
    media_cache: MediaCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, folder = served
    (folder / "talk.m4a").symlink_to(media_cache.make(TALK))
    whole, calls = url_of(site, "good", "talk.m4a"), itertools.count()
    urlopen = YoutubeDL.urlopen

    def break_later(ydl: YoutubeDL, request: Any) -> Any:
        if next(calls):
            raise TransportError("Connection reset by peer")
        return urlopen(ydl, request)

    monkeypatch.setattr(YoutubeDL, "urlopen", break_later)
    message = "the server stopped sending after 131072 bytes: Connection reset by peer"
    with pytest.raises(FetchError, match=message) as caught:
        fetch(whole, tmp_path)
    assert caught.value.status == "transient"
    assert next(calls) == 1 + 3


def test_a_server_that_never_answers_is_an_error_of_transport(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path
) -> None:
    site, folder = served
    (folder / "talk.m4a").symlink_to(media_cache.make(TALK))
    with pytest.raises(TransportError, match="timed out"):
        fetch(url_of(site, "hang", "talk.m4a"), tmp_path, patience_seconds=0.3)
    assert site.count("hang") == 3


def test_a_file_that_changes_once_is_read_again(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path
) -> None:
    site, folder = served
    media = media_cache.make(TALK)
    (folder / "talk.m4a").symlink_to(media)
    target, received = fetch(url_of(site, "replaced", "talk.m4a"), tmp_path)
    assert target.read_bytes() == media.read_bytes()[: target.stat().st_size]
    assert received == target.stat().st_size + (128 << 10)
    with pytest.raises(FetchError, match="the file on the server changed") as caught:
        fetch(url_of(site, "replaced-always", "talk.m4a"), tmp_path)
    assert caught.value.status == "transient"
    assert site.count("replaced-always") == 4


# -- Budgets ---------------------------------------------------------------------------------------


def test_an_index_decides_how_many_bytes_are_needed(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    """A medium of more than the usual bytes a second is no error if its index says so."""
    media = long_medium(media_cache, tmp_path, "pcm-first")
    budget = TransferBudget(1_000_000, 60.0)
    _, received = fetch_from_good_site(media, tmp_path, budget=budget)
    assert received > 10_000_000


@pytest.mark.parametrize("name", ["webm", "fragments"])
def test_without_an_index_bytes_have_a_bound(
    media_cache: MediaCache, tmp_path: Path, name: str
) -> None:
    media = long_medium(media_cache, tmp_path, name)
    message = r"the server sent \d+ bytes without covering .* at most 200000 bytes of this video"
    with pytest.raises(FetchError, match=message) as caught:
        fetch_from_good_site(media, tmp_path, budget=TransferBudget(200_000, 60.0))
    assert caught.value.status == "media-unusable"
    assert (tmp_path / "fetched").stat().st_size <= 200_000


def test_a_deadline_holds_for_a_server_that_is_just_fast_enough(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path
) -> None:
    site, folder = served
    (folder / "talk.m4a").symlink_to(media_cache.make(TALK))
    clock = SteppingClock(1.0)
    # The index adds what it states: here a second.
    with pytest.raises(FetchError, match=r"not done after 3\d s and \d+ bytes; .* 31 s") as caught:
        fetch(
            url_of(site, "good", "talk.m4a"),
            tmp_path,
            clock=clock,
            budget=TransferBudget(1 << 30, 30.0),
        )
    assert caught.value.status == "transient"


# -- Time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["good", "no-ranges"])
def test_a_server_that_drips_is_given_up(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path, fault: str
) -> None:
    site, folder = served
    (folder / "talk.m4a").symlink_to(media_cache.make(TALK))
    with pytest.raises(
        FetchError, match=r"the server sends too slowly: \d+ bytes in \d+ s"
    ) as caught:
        fetch(url_of(site, fault, "talk.m4a"), tmp_path, clock=SteppingClock(20.0))
    assert caught.value.status == "transient"


def test_single_bytes_are_read_as_they_arrive(
    served: tuple[FaultSite, Path],
    media_cache: MediaCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading waits for available bytes, not for a whole block: else time would not be measured."""
    site, folder = served
    (folder / "talk.m4a").symlink_to(media_cache.make(TALK))
    amounts: list[int] = []

    class Trickle:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def read1(self, amount: int, **options: Any) -> Any:
            amounts.append(amount)
            return self._stream.read1(1, **options)

    wrapper = range_reader.AvailableBytes
    monkeypatch.setattr(range_reader, "AvailableBytes", lambda stream: wrapper(Trickle(stream)))
    with pytest.raises(FetchError, match="the server sends too slowly: 59 bytes in 60 s"):
        fetch(url_of(site, "good", "talk.m4a"), tmp_path, clock=SteppingClock(1.0))
    assert len(amounts) == 59


@pytest.mark.parametrize("limit_rate", [1000.0, 100_000.0, 1e9])
def test_a_rate_limit_is_obeyed(
    served: tuple[FaultSite, Path], media_cache: MediaCache, tmp_path: Path, limit_rate: float
) -> None:
    """The limit is the user's, so even a low rate does not count as a slow server."""
    site, folder = served
    (folder / "talk.m4a").symlink_to(media_cache.make(TALK))
    clock = SteppingClock()
    url = url_of(site, "good", "talk.m4a")
    _, received = fetch(url, tmp_path, clock=clock, limit_rate=limit_rate)
    assert clock.slept == pytest.approx(received / limit_rate)
