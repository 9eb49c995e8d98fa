"""The self-naming files of the matrix: containers, codecs, clocks, tracks, levels and damage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.self_naming import COPIED, NAMES, Recipe, Track

# Its fast coder takes a third of the time of the other.
AAC = ("-c:a", "aac", "-aac_coder", "fast", "-b:a", "128k")
OPUS = ("-c:a", "libopus", "-b:a", "64k")
VORBIS = ("-c:a", "libvorbis", "-q:a", "5")
MP3 = ("-c:a", "libmp3lame", "-b:a", "128k")
MP2 = ("-c:a", "mp2", "-b:a", "192k")
AC3 = ("-c:a", "ac3", "-b:a", "384k")
EAC3 = ("-c:a", "eac3", "-b:a", "192k")
DTS = ("-c:a", "dca", "-strict", "-2", "-b:a", "768k")
FLAC = ("-c:a", "flac", "-sample_fmt", "s16")
ALAC = ("-c:a", "alac")
PCM = ("-c:a", "pcm_s16le")
FLOAT = ("-c:a", "pcm_f32le")
WMA = ("-c:a", "wmav2", "-b:a", "128k")

MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "2", "-bf", "0")
WMV = ("-c:v", "wmv2", "-q:v", "2")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M")

FASTSTART = ("-movflags", "+faststart")
FRAGMENTS = ("-movflags", "+frag_keyframe+delay_moov+default_base_moof")
AS_FLAGGED = ("-default_mode", "passthrough")
NO_DELAY = ("-muxdelay", "0", "-muxpreload", "0")
# MPEG-TS counts 2^33 ticks of 1/90000 s and then begins again.
_WRAP_SECONDS = 2**33 / 90_000

# Containers that count milliseconds round each stamp by up to half of one: 8 samples.
MILLISECONDS = 9.0
# HE-AAC: 1 ms.
HE = 16.0
# Delays that no file states: a frame of AAC at 44.1 kHz, AC-3's overlap, the encoder of DTS.
AAC_LATE, AC3_LATE, DTS_LATE, MP3_LATE = 372, 85, 171, 401
# A frame of WMA at 44.1 kHz, which FFmpeg's decoder drops: its file is early.
WMA_LATE = 743
# FFmpeg 5 writes Opus so much too early when it encodes it and has nothing to shift for it.
_OPUS_EARLY = 96
# Two B-frames delay the pictures of H.264; without an edit list they begin so late.
_B_FRAMES_LATE = 1280


def _audio(
    name: str, codec: tuple[str, ...], rate_hz: int = 44_100, sound: str = "stereo", **more: Any
) -> Recipe:
    """Return a recipe; the name ends with the extension."""
    track = Track(codec, sound, rate_hz, more.pop("late_seconds", "0"))
    return Recipe(name, (track,), **more)


def _film(name: str, codec: tuple[str, ...], rate_hz: int = 48_000, **more: Any) -> Recipe:
    return _audio(name, codec, rate_hz, **{"video": COPIED, **more})


def _wav(sample: str, rate_hz: int, sound: str = "mono") -> Recipe:
    return _audio(f"{sound}-{rate_hz}-{sample}.wav", ("-c:a", f"pcm_{sample}"), rate_hz, sound)


def _damaged(recipe: Recipe, patch: str, **more: Any) -> Recipe:
    return replace(recipe, name=f"{patch}-{recipe.name}", patch=patch, **more)


# -- Audio only ------------------------------------------------------------------------------------

M4A = _audio("aac-44100.m4a", AAC)
WEBM = _audio("opus.webm", OPUS, 48_000)
OGG = _audio("vorbis.ogg", VORBIS)
MP3_XING = _audio("xing.mp3", MP3)
WAV = _wav("s16le", 16_000)
HE_V1 = Recipe("he-v1.m4a", source="he_aac_v1.m4a", within=HE)

AUDIO = (
    M4A,
    _audio("aac-48000-mono.m4a", AAC, 48_000, "mono"),
    _audio("aac-5.1.m4a", AAC, 48_000, "5.1"),
    _audio("no-edit-list.m4a", AAC, patch="drop_edit_list", lag=AAC_LATE),
    _audio("adts.aac", AAC, lag=AAC_LATE),
    HE_V1,
    Recipe("he-v2.m4a", source="he_aac_v2.m4a", within=HE),
    Recipe("he-v1-adts.aac", source="he_aac_v1.m4a", lag=1835, within=HE),
    Recipe("he-v2-adts.aac", source="he_aac_v2.m4a", lag=2578, within=HE),
    WEBM,
    _audio("pyav.webm", OPUS, 48_000, patch="remux", stage="mp4"),
    _audio("ogg.opus", OPUS, 48_000),
    OGG,
    MP3_XING,
    _audio("no-xing.mp3", MP3, options=("-write_xing", "0"), lag=MP3_LATE),
    _audio("mp3.mka", MP3, lag=MP3_LATE),
    _audio("plain.flac", FLAC),
    _audio("alac.m4a", ALAC),
    _audio("plain.ac3", AC3, 48_000, lag=AC3_LATE),
    _audio("plain.wma", WMA, lag=-WMA_LATE),
    _audio("ms.wav", ("-c:a", "adpcm_ms")),
    _audio("ima.wav", ("-c:a", "adpcm_ima_wav")),
    _audio("riff-zero.wav", PCM, patch="riff_sizes_of_zero"),
    _audio("riff-minus-one.wav", PCM, 16_000, "mono", patch="riff_sizes_of_minus_one"),
    _wav("u8", 8_000),
    WAV,
    _wav("s24le", 22_050, "stereo"),
    _wav("s32le", 44_100),
    _wav("f32le", 96_000, "stereo"),
    # Its encoder states 50 samples at 8 kHz and means 40.
    _audio("amr.3gp", PCM, 8_000, "mono", patch="encode_amr", stage="wav", lag=-20),
)

MORE_AUDIO = (
    _audio("fragments.m4a", AAC, options=FRAGMENTS),
    _audio("opus.mp4", OPUS, 48_000),
    _audio("opus-mono.mka", OPUS, 48_000, "mono"),
    _audio("aac.mka", AAC, lag=AAC_LATE),
    _audio("aac-8000.m4a", AAC, 8_000, "mono", lag=0),
    _audio("aac-96000.m4a", AAC, 96_000),
    _audio("vorbis.webm", VORBIS, 48_000),
    _audio("mp3.mp4", MP3),
    _audio("mp3-16000.mp3", MP3, 16_000, "mono"),
    _audio("flac.ogg", FLAC),
    _audio("flac-96000.mka", FLAC, 96_000),
    _audio("plain.eac3", EAC3, 48_000, lag=AC3_LATE),
    _audio("mulaw.wav", ("-c:a", "pcm_mulaw"), 8_000, "mono"),
    _audio("ima-16000.wav", ("-c:a", "adpcm_ima_wav"), 16_000, "mono"),
    _audio("riff-minus-one-44100.wav", PCM, patch="riff_sizes_of_minus_one"),
    _audio("riff-zero-16000.wav", PCM, 16_000, "mono", patch="riff_sizes_of_zero"),
    _wav("s16le", 16_000, "stereo"),
    _wav("s16le", 32_000),
    _wav("s24le", 96_000),
    _wav("f32le", 48_000, "stereo"),
    _audio(
        "late.m4a",
        AAC,
        48_000,
        late_seconds="0.5",
        options=("-movie_timescale", "48000"),
        lag=8000,
        missing=NAMES[:1],
    ),
)

# -- With pictures ---------------------------------------------------------------------------------

MP4 = _film("plain.mp4", AAC, options=FASTSTART)
MKV = _film("opus.mkv", OPUS)
TS = _film("plain.ts", AAC)
FLV = _film("plain.flv", AAC, 44_100, within=MILLISECONDS)

FILM = (
    MP4,
    _film("29.97.mp4", AAC, 44_100, fps="30000/1001"),
    _film("fragments.mp4", AAC, options=FRAGMENTS),
    Recipe("he-v1.mp4", source="he_aac_v1_with_video.mp4", video=COPIED, within=HE),
    _film("pcm.mov", ("-c:a", "pcm_s24le")),
    _film("aac-44100.mkv", AAC, 44_100),
    _film("aac-pyav.mkv", AAC, patch="remux", stage="mp4"),
    MKV,
    _film("opus-pyav.mkv", OPUS, patch="remux", stage="mp4"),
    _film("ac3.mkv", AC3, within=MILLISECONDS),
    _film("dts.mkv", DTS, lag=DTS_LATE),
    _film("ac3.avi", AC3, video=MPEG4, lag=AC3_LATE),
    _film("pcm.avi", PCM, video=MPEG4),
    FLV,
    _film("29.97.flv", AAC, 44_100, fps="30000/1001", within=MILLISECONDS),
    TS,
    _film("wrap.ts", AAC, options=(*NO_DELAY, "-output_ts_offset", f"{_WRAP_SECONDS - 6.4:.6f}")),
    _film("below.ts", AAC, options=(*NO_DELAY, "-output_ts_offset", f"{_WRAP_SECONDS - 0.3:.6f}")),
    _film("blu-ray.m2ts", AC3, options=("-mpegts_m2ts_mode", "1")),
    # Small pictures: two of them begin in one packet, which has one stamp.
    _film("shared-stamps.mpg", MP2, video=("-c:v", "mpeg2video")),
    # The decoder needs the first frame of 46 ms for those that follow.
    _film("plain.wmv", WMA, 44_100, video=WMV, missing=NAMES[:1], within=MILLISECONDS),
    _film("video-late.mp4", AAC, film_late="0.48", lag=-7680),
    # Muxers of different versions shift the pictures for Opus, or do not.
    _film("late-pictures.mkv", OPUS, film_late="0.08", lag=-1280),
    _film("late-pictures-pyav.mkv", OPUS, film_late="0.08", lag=-1280, patch="remux", stage="mp4"),
    _film("audio-late.mkv", OPUS, late_seconds="0.5", lag=8000 - _OPUS_EARLY, missing=NAMES[:1]),
    _film(
        "audio-late-pyav.mkv",
        OPUS,
        late_seconds="0.5",
        lag=8000,
        within=2 * MILLISECONDS,  # rounded twice
        missing=NAMES[:1],
        patch="remux",
        stage="mp4",
        options=("-movie_timescale", "48000"),
    ),
)

MORE_FILM = (
    _film("vp8.webm", VORBIS, video=VP8),
    _film("offset.ts", AC3, options=("-output_ts_offset", "5000")),
    _film("video-late.mkv", AAC, film_late="0.48", lag=-7680, within=MILLISECONDS),
    _film("no-edit-list.mp4", AAC, 44_100, patch="drop_edit_list", lag=AAC_LATE - _B_FRAMES_LATE),
    _film("pyav.mp4", AAC, patch="remux", stage="mp4"),
    _film("aac.mov", AAC, 44_100),
    _film("plain.3gp", AAC),
    _film("aac.mkv", AAC),
    _film("29.97-opus.mkv", OPUS, fps="30000/1001"),
    _film("vorbis.mkv", VORBIS),
    _film("mp3.mkv", MP3),
    _film("eac3.mkv", EAC3, within=MILLISECONDS),
    _film("flac.mkv", FLAC),
    _film("ac3-pyav.mkv", AC3, patch="remux", stage="mp4", within=MILLISECONDS),
    _film("mp3.flv", MP3, 44_100, within=MILLISECONDS),
    _film("mp2.ts", MP2, video=MPEG2),
    _film("ac3.ts", AC3),
    _film(
        "wrap-early.ts", AC3, options=(*NO_DELAY, "-output_ts_offset", f"{_WRAP_SECONDS - 2:.6f}")
    ),
    _film("video-late.ts", AAC, film_late="0.48", lag=-7680),
    _film("mpeg2.mpg", MP2, video=MPEG2),
    _film("ac3.mpg", AC3, video=("-c:v", "mpeg2video")),
    _film("mpeg1.mpg", MP2, video=("-c:v", "mpeg1video", "-q:v", "5")),
    _film(
        "audio-late.mp4",
        AAC,
        late_seconds="0.5",
        options=("-movie_timescale", "48000"),
        lag=8000,
        missing=NAMES[:1],
    ),
    _film("audio-late.ts", AAC, late_seconds="0.5", lag=8000, missing=NAMES[:1]),
)

# -- Several tracks --------------------------------------------------------------------------------


def _tracks(name: str, first: Track, second: Track, **more: Any) -> Recipe:
    options = AS_FLAGGED if name.endswith(".mkv") else ()
    return Recipe(name, (first, second), COPIED, options=options, **more)


_OTHER, _TRUTH = Track(AAC, "other"), Track(AAC)
TRACKS = (
    _tracks("silent-default.mp4", _TRUTH, Track(AAC, "silence", flags="default")),
    _tracks(
        "second-5.1.mkv",
        Track(AC3, "stereo", 48_000),
        Track(AC3, "other-5.1", 48_000),
        within=MILLISECONDS,
    ),
    _tracks("original.mkv", replace(_OTHER, flags="default"), replace(_TRUTH, flags="original")),
    _tracks("dub-default.mp4", replace(_OTHER, flags="default+dub"), _TRUTH),
    _tracks(
        "second-default-with-hole.mkv",
        Track(OPUS, "other", 48_000),
        Track(OPUS, "stereo", 48_000, flags="default"),
        patch="leave_a_hole",
        stage="mp4",
        within=MILLISECONDS,
    ),
)
MORE_TRACKS = (_tracks("commentary-default.mkv", replace(_OTHER, flags="default+comment"), _TRUTH),)

# -- Damage ----------------------------------------------------------------------------------------

_HOLE = {"patch": "leave_a_hole", "stage": "mp4"}
_LAST: Any = {"missing": NAMES[-1:]}
# In front of each, the whole file.
DAMAGED = (
    (HE_V1, _damaged(HE_V1, "flip_bits")),
    (M4A, _damaged(M4A, "flip_bits")),
    (WEBM, _damaged(WEBM, "flip_bits")),
    (OGG, _damaged(OGG, "flip_bits")),
    (MP3_XING, _damaged(MP3_XING, "flip_bits")),
    (MKV, _damaged(MKV, "flip_bits")),
    (TS, _damaged(TS, "flip_bits")),
    (MP4, _damaged(MP4, "leave_a_hole", stage="mp4")),
    (M4A, _damaged(replace(M4A, options=FASTSTART), "truncate", **_LAST)),
    (OGG, _damaged(OGG, "truncate", **_LAST)),
    (WAV, _damaged(WAV, "truncate", **_LAST)),
    (MKV, _damaged(MKV, "truncate", **_LAST)),
    (TS, _damaged(TS, "truncate", **_LAST)),
)
MORE_DAMAGED = (
    (MP4, _damaged(MP4, "truncate", **_LAST)),
    (MP4, _damaged(MP4, "flip_bits")),
    (MP3_XING, _damaged(MP3_XING, "truncate", **_LAST)),
    (WEBM, _damaged(WEBM, "truncate", **_LAST)),
    (FLV, _damaged(FLV, "truncate", **_LAST)),
    (FLV, _damaged(FLV, "flip_bits")),
    (TS, _damaged(TS, "leave_a_hole", stage="mp4")),
)
# What follows a hole is as exact as the container's clock.
MORE_HOLES = (
    _damaged(FLV, "leave_a_hole", stage="mp4"),
    _damaged(MKV, "leave_a_hole", stage="mp4", within=MILLISECONDS),
)

# -- Levels ----------------------------------------------------------------------------------------


def _loud(codec: tuple[str, ...], extension: str, *sounds: str) -> tuple[Recipe, ...]:
    lag = AC3_LATE if codec is AC3 else 0
    return tuple(
        _audio(f"{sound}-{extension}.{extension}", codec, 48_000, sound, lag=lag)
        for sound in sounds
    )


# The mono of each, and the same in both channels.
EQUAL = (
    _loud(FLOAT, "wav", "loud-mono", "loud-stereo"),
    _loud(AAC, "m4a", "loud-mono", "loud-stereo"),
    _loud(OPUS, "webm", "loud-mono", "loud-stereo"),
    _loud(FLOAT, "wav", "limited-12-mono", "limited-12"),
)
MORE_EQUAL = (
    _loud(FLOAT, "wav", "limited-6-mono", "limited-6"),
    _loud(AC3, "ac3", "loud-mono", "loud-stereo"),
    _loud(AAC, "m4a", "limited-12-mono", "limited-12"),
)
ANTI_PHASE = (*_loud(FLAC, "flac", "anti-phase"), *_loud(AAC, "m4a", "anti-phase"))
IN_PHASE = (*_loud(FLOAT, "wav", "in-phase-5.1"), *_loud(FLAC, "flac", "in-phase-5.1"))
SILENT = (
    _audio("silence.flac", FLAC, 44_100, "silence", missing=NAMES, status="media-unusable"),
    _audio("silent-third.wav", PCM, 16_000, "silent-third", missing=NAMES[2:3]),
    _audio("silent-third.flac", FLAC, 44_100, "silent-third", missing=NAMES[2:3]),
)

DEFAULT = (
    *(*AUDIO, *FILM, *TRACKS),
    *(damaged for _, damaged in DAMAGED),
    *(file for pair in EQUAL for file in pair),
    *(*ANTI_PHASE, *IN_PHASE, *SILENT),
)
MORE = (
    *(*MORE_TRACKS, *MORE_HOLES),
    *(file for pair in MORE_EQUAL for file in pair),
    *MORE_AUDIO,
    *MORE_FILM,
    *(file for pair in MORE_DAMAGED for file in pair[1:]),
)
ALL = (*DEFAULT, *MORE)
# The sound is in another file.
ONLY_PICTURES = Recipe("only-pictures.mp4", video=COPIED)
