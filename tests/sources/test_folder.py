"""A folder of media that were downloaded before, as yt-dlp leaves them."""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path

import pytest
from support import plain_corpus
from support.gray_frames import gray_video
from support.synthetic_audio import DURATION_SECONDS, SPEAKER, VIDEO, MediaCache, ffmpeg
from yt_dlp import YoutubeDL
from yt_dlp.downloader.common import FileDownloader
from yt_dlp.utils import prepend_extension

from voxblink2_lib.errors import FetchError
from voxblink2_lib.media.container import FORMATS, open_media
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import Media
from voxblink2_lib.sources.folder import MediaFolder
from voxblink2_lib.sources.folder_listing import (
    AUDIO_EXTENSIONS,
    MEDIA_EXTENSIONS,
    VIDEO_EXTENSIONS,
    FolderListings,
    is_unfinished,
    parse_name,
)

KEY = VideoKey(SPEAKER, VIDEO)
ROOT = Path(__file__).parents[2]


class Folder:
    """A folder of media of one video."""

    def __init__(self, root: Path, cache: MediaCache) -> None:
        self.root = root
        self.speaker = root / SPEAKER
        self.speaker.mkdir()
        film = cache.make(gray_video(seconds=1))
        self._film = film.read_bytes()
        self._sources = {
            "film": film,
            "pictures": self._copied(cache, film, "pictures.mp4", "-an"),
            "sound": self._copied(cache, film, "sound.m4a", "-vn"),
        }

    @staticmethod
    def _copied(cache: MediaCache, film: Path, name: str, *options: str) -> Path:
        return cache.keep(
            name, options, lambda path: ffmpeg("-i", str(film), *options, "-c", "copy", str(path))
        )

    def put(self, rest: str, content: str = "film", *, more_bytes: int = 0) -> Path:
        """Put a file of the video into the folder; return its path.

        Args:
            rest: of its name, after the id.
            content: one of the media above, or empty for none.
            more_bytes: that it is larger by, where all players skip them.
        """
        path = self.speaker / f"{VIDEO}{rest}"
        shutil.copyfile(self._sources[content], path) if content else path.touch()
        if more_bytes:
            with open(path, "ab") as file:
                file.write(struct.pack(">I4s", more_bytes, b"free") + bytes(more_bytes - 8))
        return path

    def fetch(self, *, video: bool = False) -> Media:
        """Return what a new source provides; check the size that it states."""
        with MediaFolder(self.root, with_video=video).fetch(
            KEY, needed_seconds=DURATION_SECONDS, tmp=self.root
        ) as media:
            paths = {media.path, media.audio}
            assert media.size_bytes == sum(path.stat().st_size for path in paths)
            return media

    def names(self, *, video: bool = False) -> tuple[str, str]:
        """Return what follows the id in the names of the files with the pictures and the sound."""
        media = self.fetch(video=video)
        return media.path.name.removeprefix(VIDEO), media.audio.name.removeprefix(VIDEO)

    def refusal(self, *, video: bool = False) -> str:
        """Return why nothing is provided."""
        with pytest.raises(FetchError) as caught:
            self.fetch(video=video)
        assert caught.value.status == "gone"
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, media_cache: MediaCache) -> Folder:
    return Folder(tmp_path, media_cache)


# -- One file --------------------------------------------------------------------------------------


def test_files_are_served_unchanged(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    path = tmp_path / SPEAKER / f"{VIDEO}.m4a"
    path.write_bytes(b"media")
    assert VIDEO.startswith("-")
    assert "_" in VIDEO
    source = MediaFolder(tmp_path)
    with source.fetch(KEY, needed_seconds=DURATION_SECONDS, tmp=tmp_path) as media:
        assert media == Media(path, 5)
    assert path.read_bytes() == b"media"


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("extension", MEDIA_EXTENSIONS)
def test_extensions_are_found_in_any_case(folder: Folder, extension: str, video: bool) -> None:
    for rest in (f".{extension}", f".{extension.upper()}", f".{extension.title()}"):
        path = folder.put(rest)
        if video and extension in AUDIO_EXTENSIONS:
            assert f"{VIDEO}{rest} lies there, without pictures" in folder.refusal(video=True)
        else:
            assert folder.names(video=video) == (rest, rest)
        path.unlink()


def test_the_order_of_preference(folder: Folder) -> None:
    for extension in reversed(MEDIA_EXTENSIONS):
        folder.put(f".{extension}")
        assert folder.names() == (f".{extension}",) * 2
    for extension in VIDEO_EXTENSIONS:
        path = folder.speaker / f"{VIDEO}.{extension}"
        assert folder.fetch(video=True) == Media(path, path.stat().st_size)
        path.unlink()


def test_a_file_that_cannot_be_read_is_the_last_choice(folder: Folder) -> None:
    folder.put(".m4a", "")
    assert folder.names() == (".m4a", ".m4a"), "its decoder reports what is wrong with it"
    folder.put(".mkv", "")
    assert folder.names() == (".m4a", ".m4a")
    assert folder.names(video=True) == (".mkv", ".mkv")
    folder.put(".flv")
    assert folder.names() == folder.names(video=True) == (".flv", ".flv")


def test_links_are_followed_and_other_things_are_not_taken(folder: Folder, tmp_path: Path) -> None:
    (folder.speaker / f"{VIDEO}.wav").mkdir()
    os.mkfifo(folder.speaker / f"{VIDEO}.flac")
    link = folder.speaker / f"{VIDEO}.m4a"
    link.symlink_to(tmp_path / "elsewhere.mp4")
    refusal = folder.refusal()
    assert refusal.endswith(
        f"{VIDEO}.flac, {VIDEO}.m4a, {VIDEO}.wav lie there, which is no such file"
    )
    folder.put(".mp4").rename(tmp_path / "elsewhere.mp4")
    assert folder.fetch() == Media(link, link.stat().st_size)


# -- Two files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pictures", "sound"),
    [
        (".f137.mp4", ".f140.m4a"),
        (".f137.mp4", ".f140-drc.m4a"),
        (".f247.webm", ".f251-1.webm"),
        (".fhls-720.mp4", ".fhls-audio-0-en.mp4"),
        (".f616-sr.mp4", ".f234.mp4"),
        (".mp4", ".m4a"),
        (".mp4", ".webm"),
        (".mp4", ".opus"),
        (".mp4", ".f140.m4a"),
        (".f137.mp4", ".m4a"),
        (".f137.MP4", ".M4A"),
        (".fhls-1.5M.mp4", ".fhttp-audio.mp4"),
    ],
)
def test_pictures_and_sound_in_two_files_are_one_video(
    folder: Folder, pictures: str, sound: str
) -> None:
    film, heard = folder.put(pictures, "pictures"), folder.put(sound, "sound")
    expected = Media(film, film.stat().st_size + heard.stat().st_size, heard)
    # For audio as well: where the video begins is seen from the pictures.
    assert folder.fetch() == folder.fetch(video=True) == expected


def test_a_whole_video_needs_none_of_its_parts(folder: Folder) -> None:
    folder.put(".f137.mp4", "pictures")
    folder.put(".f140.m4a", "sound")
    folder.put(".mkv")
    assert folder.names() == folder.names(video=True) == (".mkv", ".mkv")


def test_sound_alone_serves_audio_and_a_whole_video_serves_both(folder: Folder) -> None:
    folder.put(".wav", "sound")
    folder.put(".mp4")
    assert folder.names() == (".wav", ".wav")
    assert folder.names(video=True) == (".mp4", ".mp4")


def test_of_several_formats_the_choice_is_always_the_same(folder: Folder) -> None:
    folder.put(".f140-drc.m4a", "sound", more_bytes=64)
    folder.put(".f251.webm", "sound", more_bytes=128)
    folder.put(".f139.m4a", "sound")
    assert folder.names() == (".f139.m4a", ".f139.m4a"), "M4A comes before WebM, -drc last"
    folder.put(".f140.m4a", "sound", more_bytes=32)
    assert folder.names() == (".f140.m4a", ".f140.m4a"), "the larger is the better"
    folder.put(".f1400.m4a", "sound", more_bytes=32)
    assert folder.names() == (".f140.m4a", ".f140.m4a"), "of equal ones the first by name"
    folder.put(".f136.mp4", "pictures", more_bytes=32)
    folder.put(".f135.mp4", "pictures")
    assert folder.names(video=True) == (".f136.mp4", ".f140.m4a")


def test_pictures_without_sound_are_left_to_the_decoder(folder: Folder) -> None:
    folder.put(".mp4", "pictures")
    folder.put(".f137.mp4", "pictures")
    assert folder.names() == folder.names(video=True) == (".mp4", ".mp4")


# -- What is not taken -----------------------------------------------------------------------------

# What yt-dlp and its helpers leave beside a video, or instead of it.
LEFT = (
    *(".mp4.part", ".f137.mp4.part", ".f140.m4a.part-Frag3", ".f140.m4a.part-Frag3.part"),
    *(".f140.m4a.ytdl", ".temp.mp4", ".f137.temp.mp4", ".mp4.temp", ".info.json"),
    *(".live_chat.json", ".description", ".jpg", ".webp", ".png", ".en.vtt", ".en-orig.srt"),
    *(".de.m4a", ".fr.m4a", ".fr-CA.m4a", ".fil.m4a", ".fil-PH.m4a", ".f.mp4", ".orig.m4a"),
    *("", ".", ".txt", ".mp4x", "x.mp4", ".m3u8", ".mpd", ".sdp", ".svg"),
)


@pytest.mark.parametrize("rest", LEFT)
def test_what_is_not_a_whole_file_is_never_taken(folder: Folder, rest: str) -> None:
    folder.put(rest)
    for video in (False, True):
        assert folder.refusal(video=video).startswith(f"no file {SPEAKER}/{VIDEO}.<ext> in ")
    for other in LEFT:
        folder.put(other)
    folder.put(".webm")
    assert folder.names() == folder.names(video=True) == (".webm", ".webm")


@pytest.mark.parametrize(
    ("names", "end"),
    [
        ((), ")"),
        (("x.m4a",), ")"),
        ((".mp4.part",), f"; {VIDEO}.mp4.part lies there: the download did not finish"),
        (
            (".f137.mp4.part", ".f140.m4a.ytdl"),
            f"; {VIDEO}.f137.mp4.part, {VIDEO}.f140.m4a.ytdl lie there: the download did not "
            "finish",
        ),
        ((".en.vtt",), f"; {VIDEO}.en.vtt lies there, which is no such file"),
        (("",), f"; {VIDEO} lies there, which is no such file"),
        (
            (".a", ".b", ".c", ".d"),
            f"; {VIDEO}.a, {VIDEO}.b, {VIDEO}.c and 1 more lie there, which is no such file",
        ),
    ],
)
def test_the_message_says_what_was_looked_for_and_what_is_there(
    folder: Folder, names: tuple[str, ...], end: str
) -> None:
    for name in names:
        folder.put(name)
    looked_for = f"no file {SPEAKER}/{VIDEO}.<ext> in {folder.root} (extensions tried: "
    for video, extensions in ((False, "wav, flac, m4a, "), (True, "mp4, mkv, mov, ")):
        message = folder.refusal(video=video)
        assert message.startswith(looked_for + extensions)
        assert message.endswith(f"more, see docs/usage.md){end.removeprefix(')')}")


def test_the_message_names_sound_without_pictures(folder: Folder) -> None:
    folder.put(".wav", "sound")
    assert folder.refusal(video=True).endswith(f"; {VIDEO}.wav lies there, without pictures")


def test_a_half_that_is_not_downloaded_is_named(folder: Folder) -> None:
    film = folder.put(".f137.mp4", "pictures")
    folder.put(".f140.m4a.part", "sound")
    for video in (False, True):
        assert folder.refusal(video=video) == (
            f"{film} has no sound; {VIDEO}.f140.m4a.part lies there: the download did not finish"
        )
    film.rename(folder.speaker / f"{VIDEO}.f140.webm")
    folder.put(".f140.webm", "sound")
    assert "f140.webm has no pictures; " in folder.refusal(video=True)
    assert folder.names() == (".f140.webm", ".f140.webm")


def test_a_video_of_another_speaker_is_not_used(folder: Folder) -> None:
    (folder.root / "id000009").mkdir()
    folder.put(".m4a").rename(folder.root / "id000009" / f"{VIDEO}.m4a")
    assert folder.refusal().startswith(f"no file {SPEAKER}/")


@pytest.mark.parametrize("is_file", [False, True])
def test_a_speaker_without_a_folder_has_no_file(folder: Folder, is_file: bool) -> None:
    folder.speaker.rmdir()
    if is_file:
        folder.speaker.touch()
    assert folder.refusal().endswith("see docs/usage.md)")


def test_permission_that_is_denied_is_named(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.put(".m4a")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert folder.refusal() == f"{path} cannot be read: permission denied"
    folder.put(".mp4")  # nor is another one taken instead
    assert folder.refusal() == f"{path} cannot be read: permission denied"

    def deny(_: object) -> list[str]:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", deny)
    assert folder.refusal() == f"{folder.speaker} cannot be listed: permission denied"


# -- Listings --------------------------------------------------------------------------------------


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed."""
    paths: list[str] = []
    original = os.listdir

    def listdir(path: str) -> list[str]:
        paths.append(os.path.basename(path))
        return original(path)

    monkeypatch.setattr(os, "listdir", listdir)
    return paths


def age(folder: Path, *, seconds: int = 100) -> None:
    """Make a folder look as if it had not changed for so long."""
    then = folder.stat().st_mtime - seconds
    os.utime(folder, (then, then))


def make_speakers(root: Path, count: int) -> list[str]:
    speakers = [f"id{number:06}" for number in range(count)]
    for speaker in speakers:
        (root / speaker).mkdir()
        for video in plain_corpus.video_ids(5):
            (root / speaker / f"{video}.wav").touch()
        age(root / speaker)
    return speakers


def test_a_speaker_is_listed_once(tmp_path: Path, listed: list[str]) -> None:
    speakers = make_speakers(tmp_path, 3)
    listings = FolderListings(tmp_path)
    for _ in range(2):
        for speaker in speakers:
            for video in plain_corpus.video_ids(5):
                assert listings.names(VideoKey(speaker, video)) == [f"{video}.wav"]
    assert listed == speakers


def test_only_some_listings_are_kept(tmp_path: Path, listed: list[str]) -> None:
    speakers = make_speakers(tmp_path, 20)
    listings = FolderListings(tmp_path)
    (video,) = plain_corpus.video_ids(1)
    for speaker in (*speakers, speakers[-1], speakers[0], speakers[-1]):
        assert listings.names(VideoKey(speaker, video)) == [f"{video}.wav"]
    assert listed == [*speakers, speakers[0]]


def test_a_folder_that_changes_is_listed_again(tmp_path: Path, listed: list[str]) -> None:
    (speaker,) = make_speakers(tmp_path, 1)
    folder, key = tmp_path / speaker, VideoKey(speaker, "video000001")
    listings = FolderListings(tmp_path)
    assert listings.names(key) == ["video000001.wav"]
    (folder / "video000001.wav").rename(folder / "video000001.mp4")
    # Just now: whatever happens within one tick of the clock is seen as well.
    assert listings.names(key) == ["video000001.mp4"]
    at = folder.stat().st_mtime_ns
    (folder / "video000001.flac").touch()
    os.utime(folder, ns=(at, at))
    assert listings.names(key) == ["video000001.flac", "video000001.mp4"]
    age(folder)
    assert len(listings.names(key)) == 2
    assert len(listings.names(key)) == 2
    assert len(listed) == 4


def test_a_video_is_missing_only_if_it_is_not_there_now(tmp_path: Path) -> None:
    """Not every file system tells when a folder has changed."""
    (speaker,) = make_speakers(tmp_path, 1)
    folder, key = tmp_path / speaker, VideoKey(speaker, "video000009")
    listings = FolderListings(tmp_path)
    at = folder.stat().st_mtime_ns
    assert listings.names(key) == []
    (folder / "video000009.wav").touch()
    os.utime(folder, ns=(at, at))
    assert listings.names(key) == ["video000009.wav"]


# -- Extensions ------------------------------------------------------------------------------------

# FFmpeg's demuxer of each extension. Of MPEG-TS and MPEG-PS, which have many, the usual one.
DEMUXERS = {
    **dict.fromkeys(("mp4", "m4a", "m4v", "mov", "3gp", "3g2", "f4v", "m4b"), "mp4"),
    **dict.fromkeys(("mkv", "webm", "mka", "weba"), "matroska"),
    **dict.fromkeys(("ogg", "oga", "ogv", "opus", "spx"), "ogg"),
    **dict.fromkeys(("ts", "m2ts", "mts"), "mpegts"),
    **dict.fromkeys(("mpg", "mpeg", "vob"), "mpeg"),
    **dict.fromkeys(("wmv", "asf", "wma"), "asf"),
    **dict.fromkeys(("mp3", "mp2"), "mp3"),
    **dict.fromkeys(("amr", "awb"), "amr"),
    **dict.fromkeys(("aiff", "aif"), "aiff"),
    **dict.fromkeys(("rm", "rmvb"), "rm"),
    "sph": "nistsphere",
}


def test_every_extension_is_of_a_format_that_may_be_opened() -> None:
    allowed = {name for names in FORMATS for name in names.split(",")}
    assert {DEMUXERS.get(extension, extension) for extension in MEDIA_EXTENSIONS} <= allowed
    assert len(set(MEDIA_EXTENSIONS)) == len(MEDIA_EXTENSIONS)
    assert set(MEDIA_EXTENSIONS) == {*AUDIO_EXTENSIONS, *VIDEO_EXTENSIONS}


def test_the_documentation_lists_every_extension_in_order() -> None:
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    for extensions in (AUDIO_EXTENSIONS, VIDEO_EXTENSIONS):
        listed = r",\s+".join(f"`{extension}`" for extension in extensions)
        assert re.search(listed, text), extensions


@pytest.mark.parametrize(
    ("extension", "options"),
    [
        ("m2ts", ()),
        ("mts", ()),
        ("mpeg", ("-c:v", "mpeg2video", "-c:a", "mp2")),
        ("vob", ("-c:v", "mpeg2video", "-c:a", "ac3")),
        ("ogv", ("-c:v", "libtheora", "-c:a", "libvorbis")),
        ("wmv", ()),
        ("asf", ()),
        ("3g2", ("-c:v", "mpeg4", "-c:a", "aac")),
        ("f4v", ()),
        ("nut", ()),
        ("ac3", ("-vn",)),
        ("eac3", ("-vn",)),
        ("dts", ("-vn", "-strict", "-2", "-c:a", "dca")),
        ("mp2", ("-vn",)),
        ("wma", ("-vn",)),
        ("aif", ("-vn",)),
        ("au", ("-vn",)),
        ("w64", ("-vn",)),
        ("wv", ("-vn",)),
        ("tta", ("-vn",)),
        ("weba", ("-vn", "-c:a", "libopus", "-f", "webm")),
    ],
)
def test_files_of_rarer_formats_are_opened(
    folder: Folder, media_cache: MediaCache, extension: str, options: tuple[str, ...]
) -> None:
    film = media_cache.make(gray_video(seconds=1))
    path = media_cache.keep(
        f"rare.{extension}", options, lambda path: ffmpeg("-i", str(film), *options, str(path))
    )
    with open_media(path) as container:
        assert container.streams.audio
        assert bool(container.streams.video) == ("-vn" not in options)
    shutil.copyfile(path, folder.speaker / f"{VIDEO}.{extension}")
    assert folder.fetch(video="-vn" not in options).path.suffix == f".{extension}"


@pytest.mark.parametrize(
    "format_id", ["137", "140-drc", "251-1", "hls-720", "hls_mp4-1500", "dash-1.5M", "616-sr"]
)
def test_names_are_those_of_yt_dlp(format_id: str) -> None:
    """yt-dlp puts the format, and what it has not finished, before the extension."""
    whole = f"{VIDEO}.mp4"
    name = prepend_extension(whole, f"f{format_id}")
    parsed = parse_name(name)
    assert parsed is not None
    assert (parsed.name, parsed.extension, parsed.format_id) == (name, "mp4", format_id)
    downloader = FileDownloader(YoutubeDL({"quiet": True}), {})
    for path in (whole, name):
        for left in (prepend_extension(path, "temp"), downloader.temp_name(path)):
            assert parse_name(left) is None
            assert is_unfinished(left)
        assert parse_name(downloader.ytdl_filename(path)) is None
        assert is_unfinished(downloader.ytdl_filename(path))


def test_names_are_taken_apart() -> None:
    parsed = parse_name("-_abcdefghi.f251-drc.WEBM")
    assert parsed is not None
    assert (parsed.extension, parsed.format_id, parsed.is_boosted) == ("webm", "251-drc", True)
    plain = parse_name("drc_abcdefg.webm")
    assert plain is not None
    assert (plain.format_id, plain.is_boosted) == ("", False)
