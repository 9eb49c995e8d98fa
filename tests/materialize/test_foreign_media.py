"""Media come from strangers: whatever lies there is its video's outcome, and the run goes on.

media/id000000/video000000.mp4     names media/id000000/secret.wav, and must not get it
               video000001.mp4
               ...
               the last            is good, and must be cropped
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
from support.gray_frames import gray_video
from support.opened_files import OpenedFiles
from support.plain_corpus import make_release, video_ids, wav
from support.synthetic_audio import MediaCache

from voxblink2_lib.errors import DependencyError, MediaError, SelectionError
from voxblink2_lib.materialize import pipeline
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.media import damage, shared_stamps
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.container import demuxed, open_media
from voxblink2_lib.media.damage import memory_doubted, named_if_damaged
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.status import missing_videos, read_status

pytestmark = pytest.mark.usefixtures("inline_workers")

SPEAKER = "id000000"
SECRET = "secret.wav"
UNUSABLE = "media-unusable"


def image(kind: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), (9, 99, 199)).save(file, kind)
    return file.getvalue()


def many_channels() -> bytes:
    """Return what no layout of channels fits: 255 of them, extensible WAV at 8 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((8000 * 3, 255)), 8000, format="WAVEX", subtype="PCM_16")
    return file.getvalue()


def endless_box() -> bytes:
    """Return an MP4 file whose second box states the greatest size."""
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(
        ">I4sQ", 1, b"free", 2**64 - 1
    )


def playlist(*lines: str) -> bytes:
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:10", *lines, "#EXT-X-ENDLIST", ""]).encode()


def manifest(address: str) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        '<Period><AdaptationSet mimeType="audio/wav"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ).encode()


# By what they are; HERE is the folder they lie in.
FOREIGN: dict[str, bytes] = {
    "ffconcat": f"ffconcat version 1.0\nfile {SECRET}\n".encode(),
    "ffconcat of an address": b"ffconcat version 1.0\nfile 'file:HERE/secret.wav'\n",
    "ffconcat of itself": b"ffconcat version 1.0\nfile video000002.mp4\n",
    "playlist of HLS": playlist("#EXTINF:3,", SECRET),
    "playlist of a path": playlist("#EXTINF:3,", "file:HERE/secret.wav"),
    "playlist of a key": playlist(
        '#EXT-X-KEY:METHOD=AES-128,URI="secret.wav"', "#EXTINF:3,", "a.ts"
    ),
    "manifest of DASH": manifest(SECRET),
    "manifest of a path": manifest("file:HERE/secret.wav"),
    "session": b"v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "playlist of ASX": b'<asx version="3.0"><entry><ref href="secret.wav"/></entry></asx>',
    "concat": b"concat:secret.wav|secret.wav",
    "graph of lavfi": b"amovie=secret.wav",
    "synthesis of lavfi": b"sine=frequency=440:duration=9",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="secret.wav"/></svg>',
    "subtitles": b"1\n00:00:00,000 --> 00:00:09,000\n<img src=secret.wav>\n",
    "PNG": image("png"),
    "JPEG": image("jpeg"),
    "GIF": image("gif"),
    "WebP": image("webp"),
    "255 channels": many_channels(),
    "endless box": endless_box(),
    "nothing": b"",
    "zeros": bytes(5000),
    "HTML": b"<html>Log in</html>",
}


class Corpus:
    """A release, and a folder of media with the files above and a good one at the end."""

    def __init__(self, root: Path, good: Path) -> None:
        self.videos = video_ids(len(FOREIGN) + 1)
        self.release = make_release(root / "release", self.videos, per_speaker=len(self.videos))
        self.media = root / "media"
        self.folder = self.media / SPEAKER
        self.folder.mkdir(parents=True)
        self.store = root / "store"
        for video, data in zip(self.videos, FOREIGN.values(), strict=False):
            here = os.fsencode(self.folder)
            (self.folder / f"{video}.mp4").write_bytes(data.replace(b"HERE", here))
        self.good = self.folder / f"{self.videos[-1]}.mp4"
        shutil.copyfile(good, self.good)

    def run(self, **options: Any) -> tuple[Store, dict[str, tuple[str, str]]]:
        """Materialize; return the store, and each missing video's class and reason."""
        request = MaterializeRequest(
            data_dir=str(self.release),
            store=str(self.store),
            source=str(self.media),
            workers=1,
            **options,
        )
        store = materialize(request, retry=True, wait=False)
        missing = missing_videos(store, request.config)
        return store, {video.video_id: (video.status, video.reason) for video in missing}


@pytest.fixture
def corpus(tmp_path: Path, media_cache: MediaCache) -> Corpus:
    return Corpus(tmp_path, media_cache.make(gray_video(seconds=4)))


@pytest.mark.parametrize("config", ["audio", "audio-visual"])
def test_what_is_no_medium_is_its_videos_outcome(corpus: Corpus, config: str) -> None:
    (corpus.folder / SECRET).write_bytes(wav())
    with OpenedFiles(corpus.folder) as opened:
        store, missing = corpus.run(config=config)
    assert read_status(store, config).videos == {"done": 1, UNUSABLE: len(FOREIGN)}
    statuses = {
        what: missing[video][0] for what, video in zip(FOREIGN, corpus.videos, strict=False)
    }
    assert statuses == dict.fromkeys(FOREIGN, UNUSABLE)
    assert all(reason for _, reason in missing.values())
    assert opened.names == {f"{video}.mp4" for video in corpus.videos}, "another file was opened"
    # The next run does not stumble over them either.
    assert corpus.run(config=config)[1] == missing


@pytest.mark.parametrize("what", ["ffconcat", "playlist of HLS"])
def test_without_the_list_of_formats_other_files_would_be_opened(corpus: Corpus, what: str) -> None:
    """Shows that the test above would see it, and that limiting protocols alone is too little."""
    (corpus.folder / SECRET).write_bytes(wav())
    path = corpus.folder / f"{corpus.videos[list(FOREIGN).index(what)]}.mp4"
    if "HLS" in what:  # refused by its name alone, if FFmpeg is new enough
        path = path.rename(path.with_suffix(".m3u8"))
    only_files = {"protocol_whitelist": "file"}
    with OpenedFiles(corpus.folder) as opened:
        try:
            with av.open(str(path), options=only_files) as container:
                next(container.decode(audio=0))
        except av.error.FFmpegError:
            pass  # HLS does not take WAV, once it has opened it
    assert opened.names == {path.name, SECRET}


def test_names_that_ffmpeg_could_take_for_more_than_a_name(
    tmp_path: Path, media_cache: MediaCache
) -> None:
    """A sequence of images, a protocol, a pattern; and links, also to what is no file."""
    good = media_cache.make(gray_video(seconds=4))
    videos = video_ids(6)
    make_release(tmp_path / "release", videos, per_speaker=len(videos))
    media = tmp_path / "%03d:concat:[a-z]|*" / "pipe:0"
    folder = media / SPEAKER
    folder.mkdir(parents=True)
    shutil.copyfile(good, folder / f"{videos[0]}.mp4")
    (folder / f"{videos[1]}.mp4").symlink_to(good)
    (folder / f"{videos[2]}.mp4").symlink_to(folder / f"{videos[2]}.mp4")
    (folder / f"{videos[3]}.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / f"{videos[4]}.mp4")  # opening it would wait for ever
    (folder / f"{videos[5]}.mp4").mkdir()
    request = MaterializeRequest(
        data_dir=str(tmp_path / "release"),
        store=str(tmp_path / "store"),
        source=str(media),
        workers=1,
    )
    store = materialize(request, retry=True, wait=False)
    assert read_status(store, "audio").videos == {"done": 2, "gone": 4}
    for video in missing_videos(store, "audio"):
        assert f"; {video.video_id}.mp4 lies there, which is no such file" in video.reason


# -- The boundary ----------------------------------------------------------------------------------


def av_error(number: int) -> Exception:
    try:
        av.error.err_check(-number)
    except av.error.FFmpegError as error:
        return error
    raise AssertionError


DAMAGE = [
    (av_error(errno.EINVAL), "ArgumentError: Invalid argument"),
    (av_error(errno.ENOSYS), "NotImplementedError: "),
    # Asked for again while nothing else runs, memory is refused again.
    (av_error(errno.ENOMEM), "MemoryError: "),
    (av.error.InvalidDataError(0, "Invalid data found"), "InvalidDataError: "),
    (ValueError("255 channels\nand more"), "ValueError: 255 channels"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "UnicodeDecodeError: 'utf-8' codec"),
    (OverflowError("too large"), "OverflowError: too large"),
    (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    (FloatingPointError(), "FloatingPointError"),
    (IndexError("list index out of range"), "IndexError: list index"),
    (EOFError(), "EOFError"),
    (struct.error("unpack requires"), "error: unpack requires"),
    (soundfile.LibsndfileError(1), "LibsndfileError: Format not recognised"),
    (RuntimeError("soxr: invalid rate"), "RuntimeError: soxr: invalid rate"),
]

# The machine's, or the program's: by these every video would be called unusable.
NOT_DAMAGE = [
    MemoryError(),
    av_error(errno.EMFILE),
    av_error(errno.ENOSPC),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    DependencyError("FFmpeg is missing"),
    av.codec.codec.UnknownCodecError("libx264"),
    av.error.EncoderNotFoundError(0, "Encoder not found"),
    KeyboardInterrupt(),
    SystemExit(3),
    TypeError("unsupported operand"),
    AttributeError("no attribute"),
    NameError("not defined"),
    AssertionError(),
    KeyError("name"),
    NotImplementedError(),
    RecursionError(),
    ImportError("no module"),
]


@pytest.mark.parametrize(("error", "words"), DAMAGE, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("function", ["crop_audio", "crop_faces"])
def test_whatever_a_decoder_raises_is_that_videos_outcome(
    corpus: Corpus, function: str, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two videos, one is damaged in this way; the run crops the other."""
    for video in corpus.videos[1:-1]:
        (corpus.folder / f"{video}.mp4").unlink()
    damaged = corpus.folder / f"{corpus.videos[0]}.mp4"
    shutil.copyfile(corpus.good, damaged)
    original = getattr(pipeline, function)

    def crop(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == damaged:
            raise error
        return original(path, *arguments, **options)

    monkeypatch.setattr(pipeline, function, crop)
    selection = Selection.of(videos=[corpus.videos[0], corpus.videos[-1]])
    config = "audio" if function == "crop_audio" else "audio-visual"
    store, missing = corpus.run(config=config, selection=selection)
    assert read_status(store, config).videos == {"done": 1, UNUSABLE: 1}
    status, reason = missing[corpus.videos[0]]
    assert status == UNUSABLE
    assert reason.startswith(f"{damaged.name} cannot be decoded: {words}")
    assert "\n" not in reason


@pytest.mark.parametrize("error", NOT_DAMAGE, ids=lambda value: repr(value)[:40])
def test_faults_of_the_machine_and_of_the_program_are_no_verdict(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)) as caught, named_if_damaged(tmp_path / "x.mp4"):
        raise error
    assert caught.value is error


def test_memory_that_ffmpeg_lacks_is_the_files_fault_where_the_machine_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wav())

    def fail() -> None:
        with open_media(path):
            raise av_error(errno.ENOMEM)

    with pytest.raises(MediaError, match="cannot be read: Cannot allocate memory"):
        fail()
    words = r"x\.wav cannot be decoded: MemoryError: .*allocate"
    with pytest.raises(MediaError, match=words), named_if_damaged(path):
        raise av_error(errno.ENOMEM)
    # Another process may have taken it and given it back.
    with pytest.raises(MemoryError), memory_doubted(), named_if_damaged(path):
        fail()
    monkeypatch.setattr(damage, "_PLENTY_BYTES", 1 << 60)
    with pytest.raises(MemoryError), named_if_damaged(path):
        fail()


class Refused:
    """A packet, a decoder and a container whose every call fails."""

    pts = None

    def __init__(self, number: int) -> None:
        self._number = number

    def decode(self, *_: object) -> list[object]:
        raise av_error(self._number)

    def demux(self, _: object) -> Iterator[object]:
        yield self
        raise av_error(self._number)


SITES: dict[str, Callable[[Path, Any], object]] = {
    "container": lambda _, refused: list(demuxed(refused, None)),
    "audio": lambda path, _: decode_audio(path, end_seconds=1.0),
    "stamps": lambda _, refused: shared_stamps._decoded(refused, refused),
    "video": lambda _, refused: list(VideoFrameDecoder._decode(Mock(), refused, refused, 0)),
}


@pytest.mark.parametrize("site", SITES)
def test_what_the_machine_lacks_in_the_middle_is_not_passed_over_as_damage(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clips would lack what could not be decoded."""
    path = tmp_path / "x.wav"
    path.write_bytes(wav())

    def read(number: int) -> None:
        packets = [Refused(number)]
        monkeypatch.setattr("voxblink2_lib.media.audio_decoder.demuxed", lambda *_: iter(packets))
        with contextlib.suppress(MediaError):  # no audio
            SITES[site](path, Refused(number))

    for number in (errno.EMFILE, errno.ENOMEM):
        with pytest.raises(av.error.FFmpegError) as caught, memory_doubted():
            read(number)
        assert caught.value.errno == number
    for number in (errno.EINVAL, errno.ENOMEM):
        read(number)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC])
def test_what_the_machine_has_run_out_of_is_no_verdict_either(tmp_path: Path, number: int) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wav())
    error = av_error(number)
    with pytest.raises(av.error.FFmpegError) as caught, named_if_damaged(path), open_media(path):
        raise error
    assert caught.value is error


def test_errors_of_this_library_are_left_as_they_are(tmp_path: Path) -> None:
    for error in (MediaError("no audio"), SelectionError("not there")):
        with pytest.raises(type(error)) as caught, named_if_damaged(tmp_path / "x.mp4"):
            raise error
        assert caught.value is error
    with named_if_damaged(tmp_path / "x.mp4"):
        pass


def test_a_fault_of_the_program_ends_the_run(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("unsupported operand")

    monkeypatch.setattr(pipeline, "crop_audio", fail)
    with pytest.raises(TypeError, match="unsupported operand"):
        corpus.run()
