"""Audio clips are accurate to the sample or missing, whatever the file."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.synthetic_audio import (
    AAC,
    FASTSTART,
    H264,
    M4A,
    MP4,
    OPUS,
    SPEAKER,
    VIDEO,
    VP9,
    WAV,
    WEBM,
    MediaCache,
    MediaSpec,
    delays_of,
    drop_audio,
    ffmpeg,
    measure_delay,
    samples_of,
    truth,
    utterance,
)

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.audio import MAX_FILLED_SAMPLES, Cut, crop_audio
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.container import open_media
from voxblink2_lib.media.tracks import has_video
from voxblink2_lib.records import SAMPLE_RATE_HZ, AudioFormat

# At the start, in the middle, overlapping, near the end, and up to the end itself.
UTTERANCES = tuple(
    utterance(first, last)
    for first, last in ((0, 49), (100, 174), (150, 224), (240, 290), (270, 299))
)
EXACT = (
    *(
        MediaSpec(
            f"{fps.replace('/', '-')}fps-{rate}-{channels}.mp4",
            rate,
            channels,
            fps,
            (*AAC, *H264, *FASTSTART),
        )
        for fps, rate, channels in itertools.product(
            ("25", "30", "30000/1001"), (44_100, 48_000), (1, 2)
        )
    ),
    M4A,
    MediaSpec("moov-last.mp4", 44_100, 1, "25", (*AAC, *H264)),
    MediaSpec("fragments.m4a", 44_100, 1, "", (*AAC, "-movflags", "+frag_keyframe+delay_moov")),
    MediaSpec(
        "fragments.mp4", 48_000, 1, "30", (*AAC, *H264, "-movflags", "frag_keyframe+delay_moov")
    ),
    WEBM,
    MediaSpec("vp9.webm", 48_000, 2, "30000/1001", (*OPUS, *VP9)),
    MediaSpec("video.mkv", 44_100, 1, "25", (*AAC, *H264)),
    MediaSpec("video-48000.mkv", 48_000, 2, "30", (*AAC, *H264)),
    MediaSpec("opus.mkv", 48_000, 1, "30", (*OPUS, *H264)),
    MediaSpec("video.ts", 44_100, 1, "25", (*AAC, *H264)),
    MediaSpec("video-48000.ts", 48_000, 2, "30", (*AAC, *H264)),
    MediaSpec("b-frames.ts", 44_100, 1, "25", (*AAC, "-c:v", "libx264", "-bf", "2")),
    WAV,
    MediaSpec("44100.wav", 44_100, 2),
    MediaSpec("audio.mp3", 44_100, 1, "", ("-c:a", "libmp3lame")),
    MediaSpec("audio.ogg", 44_100, 1, "", ("-c:a", "libvorbis")),
    MediaSpec("audio.opus", 48_000, 1, "", OPUS),
    MediaSpec("audio.flac", 44_100, 1),
)
# The container's time scale is fine enough for the shift of the audio.
FINE_CLOCK = ("-movie_timescale", "44100")


def assert_exact(cut: Cut, *, at_most_samples: float = 1.0, audio_late_samples: int = 0) -> None:
    for clip in cut.clips:
        start, stop = clip.utterance.samples
        samples = samples_of(clip)
        assert len(samples) == stop - start
        delay = measure_delay(samples, start_sample=start - audio_late_samples)
        assert abs(delay) <= at_most_samples, f"{clip.utterance.name} is {delay:.2f} samples late"


def names(cut: Cut) -> tuple[list[str], list[str]]:
    """Return the names of the clips, and of the missing utterances."""
    clips = [clip.utterance.utterance_id for clip in cut.clips]
    return clips, [missing.utterance_id for missing in cut.missing]


@pytest.mark.parametrize("spec", EXACT, ids=lambda spec: spec.name)
def test_clips_are_exact_to_one_sample(media_cache: MediaCache, spec: MediaSpec) -> None:
    cut = crop_audio(media_cache.make(spec), UTTERANCES, audio_format="flac")
    assert [clip.utterance for clip in cut.clips] == list(UTTERANCES)
    assert cut.missing == ()
    assert_exact(cut)


@pytest.mark.parametrize("audio_format", ["flac", "wav", "opus"])
def test_every_encoding_of_clips_is_exact(
    media_cache: MediaCache, audio_format: AudioFormat
) -> None:
    cut = crop_audio(media_cache.make(MP4), UTTERANCES, audio_format=audio_format)
    assert len(cut.clips) == len(UTTERANCES)
    assert_exact(cut)


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, npt.NDArray[np.int16]]:
    """4 s of 16 kHz noise over the whole range of 16 bits."""
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    samples = np.random.default_rng(1).integers(-32768, 32768, 4 * SAMPLE_RATE_HZ, np.int16)
    samples[:4] = (-32768, 32767, -1, 0)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return path, samples


@given(
    ranges=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=4),
    audio_format=st.sampled_from(["flac", "wav"]),
)
def test_16_khz_wav_is_cropped_bit_for_bit(
    noise: tuple[Path, npt.NDArray[np.int16]],
    ranges: list[tuple[int, int]],
    audio_format: AudioFormat,
) -> None:
    path, samples = noise
    utterances = [utterance(min(pair), max(pair), f"u{n}") for n, pair in enumerate(ranges)]
    cut = crop_audio(path, utterances, audio_format=audio_format)
    assert [clip.utterance for clip in cut.clips] == utterances
    for clip in cut.clips:
        start, stop = clip.utterance.samples
        decoded, rate_hz = soundfile.read(io.BytesIO(clip.data), dtype="int16")
        assert rate_hz == SAMPLE_RATE_HZ
        np.testing.assert_array_equal(decoded, samples[start:stop])


def test_clips_are_in_the_order_of_the_utterances(media_cache: MediaCache) -> None:
    utterances = UTTERANCES[::-1]
    cut = crop_audio(media_cache.make(WAV), utterances, audio_format="wav")
    assert [clip.utterance for clip in cut.clips] == list(utterances)


def test_loud_media_do_not_overflow(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    samples = 3 * np.sin(np.arange(SAMPLE_RATE_HZ) / 10)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="FLOAT")
    (clip,) = crop_audio(path, [utterance(0, 24)], audio_format="flac").clips
    np.testing.assert_allclose(samples_of(clip), np.clip(samples, -1, 1), atol=1e-4)


# -- Audio that is short or late, or has a gap -----------------------------------------------------


@fewer_examples(2)
@given(missing_samples=st.integers(0, 2 * MAX_FILLED_SAMPLES) | st.sampled_from([640, 641]))
def test_up_to_one_missing_frame_becomes_silence(
    missing_samples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "short.wav"
    samples = np.full(2 * SAMPLE_RATE_HZ - missing_samples, 1000, np.int16)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    early, late = utterance(0, 24), utterance(25, 49)
    cut = crop_audio(path, [late, early], audio_format="wav")
    if missing_samples > MAX_FILLED_SAMPLES:
        assert names(cut) == ([early.utterance_id], [late.utterance_id])
        return
    assert names(cut) == ([late.utterance_id, early.utterance_id], [])
    decoded, _ = soundfile.read(io.BytesIO(cut.clips[0].data), dtype="int16")
    expected = np.full(SAMPLE_RATE_HZ, 1000)
    expected[SAMPLE_RATE_HZ - missing_samples :] = 0
    np.testing.assert_array_equal(decoded, expected)


def test_the_reason_states_what_is_missing(media_cache: MediaCache) -> None:
    whole, short, outside = utterance(0, 49), utterance(280, 324), utterance(400, 449)
    cut = crop_audio(media_cache.make(WAV), [whole, short, outside], audio_format="wav")
    assert names(cut) == ([whole.utterance_id], [short.utterance_id, outside.utterance_id])
    assert [missing.reason for missing in cut.missing] == [
        "spans 11.20-13.00 s, of which 1.00 s is missing from the audio (it covers 0.00-12.00 s)",
        "spans 16.00-18.00 s, of which 2.00 s is missing from the audio (it covers 0.00-12.00 s)",
    ]


LATE = (
    MediaSpec("late.mp4", 44_100, 1, "25", (*AAC, *H264, *FINE_CLOCK), audio_late_seconds=0.5),
    MediaSpec("late.ts", 44_100, 1, "25", (*AAC, *H264), audio_late_seconds=0.5),
    MediaSpec("late.m4a", 44_100, 1, "", (*AAC, *FINE_CLOCK), audio_late_seconds=0.5),
)


@pytest.mark.parametrize("spec", LATE, ids=lambda spec: spec.name)
def test_audio_that_begins_late_is_aligned(media_cache: MediaCache, spec: MediaSpec) -> None:
    early = utterance(0, 24)
    cut = crop_audio(media_cache.make(spec), [early, *UTTERANCES[1:]], audio_format="flac")
    assert names(cut)[1] == [early.utterance_id]
    assert cut.missing[0].reason.startswith("spans 0.00-1.00 s, of which 0.4")
    assert len(cut.clips) == len(UTTERANCES) - 1
    assert_exact(cut, audio_late_samples=SAMPLE_RATE_HZ // 2)


@pytest.mark.parametrize(
    # Matroska counts whole milliseconds: the frame's time is rounded by up to half of one.
    ("name", "at_most"),
    [("early.mp4", 1.0), ("early.ts", 1.0), ("early.mkv", 9.0)],
)
def test_time_starts_with_the_first_video_frame(
    media_cache: MediaCache, name: str, at_most: float
) -> None:
    spec = MediaSpec(
        name, 48_000, 1, "25", (*AAC, *H264, "-vsync", "passthrough"), video_late_seconds=0.48
    )
    cut = crop_audio(media_cache.make(spec), UTTERANCES[:3], audio_format="flac")
    assert len(cut.clips) == 3
    assert_exact(cut, audio_late_samples=round(-0.48 * SAMPLE_RATE_HZ), at_most_samples=at_most)


#                 5 s     6 s
#   |==============|       |==============|
#      [before)  [across)      [after)
BEFORE, ACROSS, BESIDE, AFTER = (
    utterance(50, 109),
    utterance(120, 139),
    utterance(126, 145),
    utterance(155, 210),
)
GAPS = (
    # The specification, and by how many samples the clock of its container is uncertain.
    (MP4, 1.0),
    (
        MediaSpec(
            "gap-fragments.mp4", 48_000, 1, "", (*AAC, "-movflags", "frag_keyframe+delay_moov")
        ),
        1.0,
    ),
    (MediaSpec("gap.ts", 44_100, 1, "25", (*AAC, *H264)), 1.0),
    # Matroska counts whole milliseconds: each time after a gap is rounded by up to half of one.
    (MediaSpec("gap.mkv", 44_100, 1, "25", (*AAC, *H264)), 9.0),
    (WEBM, 9.0),
    (MediaSpec("gap-vp9.webm", 48_000, 1, "30", (*OPUS, *VP9)), 9.0),
)


@pytest.mark.parametrize(("spec", "at_most"), GAPS, ids=[spec.name for spec, _ in GAPS])
def test_a_gap_costs_only_the_utterances_in_it(
    media_cache: MediaCache, spec: MediaSpec, at_most: float, tmp_path: Path
) -> None:
    path = tmp_path / spec.name
    drop_audio(media_cache.make(spec), path, from_seconds=5, to_seconds=6)
    cut = crop_audio(path, [BEFORE, ACROSS, BESIDE, AFTER], audio_format="flac")
    assert names(cut) == (
        [BEFORE.utterance_id, AFTER.utterance_id],
        [ACROSS.utterance_id, BESIDE.utterance_id],
    )
    assert_exact(cut, at_most_samples=at_most)


# -- Damaged media ---------------------------------------------------------------------------------


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "media"
    path.write_bytes(b"")
    with pytest.raises(MediaError, match="the media file is empty"):
        crop_audio(path, UTTERANCES, audio_format="flac")


@pytest.mark.parametrize(
    "content",
    [
        b"404 Not Found\n",
        b"<!DOCTYPE html><html><body>Sign in to go on</body></html>" * 50,
        bytes(5000),
        random.Random(3).randbytes(5000),
    ],
    ids=["text", "html", "zeros", "noise"],
)
def test_a_file_that_is_not_media_is_reported(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "media"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"cannot be read: \w+|no audio stream|no decodable audio"):
        crop_audio(path, UTTERANCES, audio_format="flac")


def test_a_video_without_audio_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=1", *H264, str(path))
    with pytest.raises(MediaError, match="has no audio stream"):
        crop_audio(path, UTTERANCES, audio_format="flac")


@pytest.mark.parametrize(
    "spec",
    [MP4, M4A, WEBM, MediaSpec("vp9.webm", 48_000, 2, "30000/1001", (*OPUS, *VP9))],
    ids=lambda spec: spec.name,
)
def test_the_beginning_of_a_truncated_file_is_used(
    media_cache: MediaCache, spec: MediaSpec, tmp_path: Path
) -> None:
    data = media_cache.make(spec).read_bytes()
    path = tmp_path / spec.name
    path.write_bytes(data[: len(data) // 2])
    cut = crop_audio(path, UTTERANCES, audio_format="flac")
    done, missing = names(cut)
    assert done[:1] == [UTTERANCES[0].utterance_id]
    assert missing[-2:] == [utterance.utterance_id for utterance in UTTERANCES[-2:]]
    assert len(done) + len(missing) == len(UTTERANCES)
    assert_exact(cut)


def test_a_truncated_file_without_its_index_is_reported(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    data = media_cache.make(MediaSpec("moov-last.mp4", 44_100, 1, "25", (*AAC, *H264))).read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cannot be read: Invalid data found"):
        crop_audio(path, UTTERANCES, audio_format="flac")


@pytest.mark.parametrize("spec", [M4A, WEBM, WAV], ids=lambda spec: spec.name)
def test_noise_in_the_middle_leaves_the_rest_aligned(
    media_cache: MediaCache, spec: MediaSpec, tmp_path: Path
) -> None:
    data = bytearray(media_cache.make(spec).read_bytes())
    start, stop = int(len(data) * 0.45), int(len(data) * 0.50)
    data[start:stop] = random.Random(4).randbytes(stop - start)
    path = tmp_path / spec.name
    path.write_bytes(data)
    # After noise Matroska continues with its next cluster; audio only begins one each 5 s.
    before, after = utterance(0, 99), utterance(256, 290)
    cut = crop_audio(path, [before, utterance(130, 150), after], audio_format="flac")
    done, _ = names(cut)
    assert before.utterance_id in done
    assert after.utterance_id in done
    delays = delays_of(cut.clips)
    assert abs(delays[before.utterance_id]) <= 1
    assert abs(delays[after.utterance_id]) <= (9 if spec is WEBM else 1)


FLIP = """
import collections, json, pathlib, random, sys
from support.synthetic_audio import damaged, utterance
from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.audio import crop_audio
source, work, head = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
data = source.read_bytes()
ends = collections.Counter()
for seed in range(50):
    rng = random.Random(seed)
    count = rng.choice((1, 3, 10, 100))
    # The index breaks in more ways than the audio: every second file is damaged there only.
    size = head if seed % 2 else len(data)
    positions = [rng.randrange(size) for _ in range(count)]
    path = work / f"{seed}{source.suffix}"
    path.write_bytes(damaged(data, positions, [rng.randrange(256) for _ in range(count)]))
    try:
        cut = crop_audio(path, [utterance(0, 24), utterance(30, 60)], audio_format="wav")
        ends["cut" if cut.clips else "missing"] += 1
    except MediaError as error:
        assert len(str(error)) > 10
        ends["MediaError"] += 1
    except BaseException as error:
        ends[f"seed {seed}: {error!r}"] += 1
print(json.dumps(ends))
"""


@pytest.mark.parametrize(
    "spec",
    [
        MediaSpec("small.mp4", 44_100, 1, "25", (*AAC, *H264, *FASTSTART), duration_seconds=3),
        MediaSpec("small.webm", 48_000, 1, "25", (*OPUS, *VP9), duration_seconds=3),
    ],
    ids=lambda spec: spec.name,
)
def test_changed_bytes_end_in_clips_or_a_media_error(
    media_cache: MediaCache, spec: MediaSpec, tmp_path: Path
) -> None:
    # In a process of its own: a crash in a C library would take pytest with it.
    source = media_cache.make(spec)
    command = [sys.executable, "-c", FLIP, str(source), str(tmp_path), "4000"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ":".join(["tests", *sys.path[1:]]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ends = json.loads(done.stdout)
    assert set(ends) <= {"cut", "missing", "MediaError"}, ends
    assert sum(ends.values()) == 50


# -- Only what is needed ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def minute() -> npt.NDArray[np.float64]:
    return truth(np.arange(60 * 48_000) / 48_000)


def write_drifting(path: Path, samples: npt.NDArray[np.float64], pace: float) -> Path:
    """Write packets of 20 ms whose time stamps advance by ``pace`` times as much."""
    size = 960
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for number in range(len(samples) // size):
            content = np.rint(samples[number * size : (number + 1) * size] * 32_767)
            packet = av.Packet(content.astype("<i2").tobytes())
            packet.stream, packet.time_base = stream, Fraction(1, 1_000_000)
            packet.pts = packet.dts = round(number * 20_000 * pace)
            packet.duration = 20_000
            container.mux(packet)
    return path


@pytest.mark.parametrize("pace", [0.999, 1.001, 0.99, 1.01])
def test_a_clock_that_drifts_is_followed(
    pace: float, minute: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    path = write_drifting(tmp_path / "drift.mka", minute, pace)
    wanted = utterance(1_300, 1_349)
    (clip,) = crop_audio(path, [wanted], audio_format="flac").clips
    begins = round(wanted.samples[0] / pace)  # what is said at this time stamp
    first_tenth = samples_of(clip)[:1_600]
    assert abs(measure_delay(first_tenth, start_sample=begins)) <= 0.01 * SAMPLE_RATE_HZ


def test_a_reason_does_not_name_hundreds_of_parts(
    minute: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    path = write_drifting(tmp_path / "sparse.mka", minute[: 48_000 * 10], 1.5)
    (missing,) = crop_audio(path, [utterance(100, 149)], audio_format="flac").missing
    assert re.search(r"\(it covers \d+ parts of 0\.00-\d\.\d\d s\)$", missing.reason)


@pytest.mark.parametrize("pace", [0.5, 0.92])
def test_a_rate_that_is_wrong_is_no_drift(
    pace: float, minute: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    path = write_drifting(tmp_path / "wrong.mka", minute, pace)
    with pytest.raises(MediaError, match=r"pieces that overlap by \d+\.\d\d s in all; its codec"):
        crop_audio(path, [utterance(300, 349)], audio_format="flac")


def test_channels_that_change_places_count_as_they_do_there(tmp_path: Path) -> None:
    """The third channel is in front of the listener, then behind."""
    parts = []
    for layout in ("3.0", "3.0(back)"):
        path = tmp_path / f"{layout}.ac3"
        silence = "aevalsrc=0|0|0.5*sin(2*PI*440*t)"
        ffmpeg("-f", "lavfi", "-i", f"{silence}:c={layout}:d=2:s=48000", "-c:a", "ac3", str(path))
        parts.append(path.read_bytes())
    both = tmp_path / "both.ac3"
    both.write_bytes(b"".join(parts))
    samples = decode_audio(both, end_seconds=4).samples
    peaks = [np.abs(samples[start : start + 8_000]).max() for start in (12_000, 44_000)]
    assert peaks == pytest.approx([0.5 * 0.414, 0.5 / 3], rel=0.02)


def test_a_plain_file_has_no_second_track(media_cache: MediaCache) -> None:
    path = media_cache.make(WAV)
    asked = [utterance(0, 20)]
    assert crop_audio(path, asked, audio_format="flac", track=0).clips
    with pytest.raises(MediaError, match="has 1 audio track, so none has the number 1"):
        crop_audio(path, asked, audio_format="flac", track=1)


def test_a_long_file_is_decoded_only_as_far_as_needed(media_cache: MediaCache) -> None:
    audio = decode_audio(media_cache.make(MP4), end_seconds=2)
    assert 2 * SAMPLE_RATE_HZ <= len(audio.samples) < 3 * SAMPLE_RATE_HZ
    assert audio.covered == ((0, len(audio.samples)),)


def test_a_long_file_with_a_gap_is_decoded_only_as_far_as_needed(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    path = tmp_path / "long.m4a"
    spec = MediaSpec("long.m4a", 16_000, 1, "", ("-c:a", "aac"), duration_seconds=60)
    drop_audio(media_cache.make(spec), path, from_seconds=0.5, to_seconds=1)
    audio = decode_audio(path, end_seconds=2)
    assert len(audio.covered) == 2
    assert len(audio.samples) < 15 * SAMPLE_RATE_HZ


def test_a_cover_does_not_count_as_video(media_cache: MediaCache, tmp_path: Path) -> None:
    plain, cover, path = media_cache.make(M4A), tmp_path / "cover.png", tmp_path / "cover.m4a"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=16x16", "-frames:v", "1", str(cover))
    maps: Sequence[str] = ("-map", "0:a", "-map", "1:v", "-c", "copy")
    ffmpeg("-i", str(plain), "-i", str(cover), *maps, "-disposition:v", "attached_pic", str(path))
    with open_media(path) as container:
        assert not has_video(container)
    cut = crop_audio(path, UTTERANCES, audio_format="flac")
    assert len(cut.clips) == len(UTTERANCES)
    assert_exact(cut)


def test_clips_have_the_names_of_the_utterances(media_cache: MediaCache) -> None:
    (clip,) = crop_audio(media_cache.make(WAV), [utterance(0, 24)], audio_format="wav").clips
    assert clip.utterance.name == f"{SPEAKER}/{VIDEO}/00000-00024"


def test_a_worker_crops_without_pytorch(media_cache: MediaCache) -> None:
    """It would start ten times as slowly, and need three times the memory."""
    code = (
        "import sys; from pathlib import Path; import voxblink2_lib.materialize.pipeline; "
        "from voxblink2_lib.media.audio import crop_audio; "
        "from voxblink2_lib.records import Utterance; "
        "cut = [Utterance('id000001', '-truth_0001', '1', 0, 50)]; "
        "print(len(crop_audio(Path(sys.argv[1]), cut, audio_format='flac').clips), "
        "sorted({'torch', 'torchcodec', 'transformers', 'yt_dlp'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(media_cache.make(MP4))],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "1 []"
