"""Which renditions of a video are downloaded: the original sound, and a picture as it was uploaded.

A site may offer renditions of its own making beside the original: speech translated and spoken by
a machine, sound whose level is evened out, pictures enlarged by a model. None of them is what the
annotations describe, and a codec or bit rate that is better makes none of them right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from voxblink2_lib.records import MAX_ANNOTATED_LINES

NOTHING_TO_PLAY = "the source lists nothing that can be played"

# yt-dlp's value where a site states none.
_UNKNOWN_PREFERENCE = -1

# YouTube describes a rendition in its address, as "xtags=acont=dubbed-auto:lang=de", with percent
# signs once or twice; in playlists as a part of the path.
_XTAGS = re.compile(r"[?&/;]xtags[=/]([^;&/?#]*)")
_DUB_NOTE = re.compile(r"\b(auto-?)?dub|\bdescripti", re.IGNORECASE)
_ORIGINAL_NOTE = re.compile(r"\boriginal\b", re.IGNORECASE)
# The number comes first: "sr" alone is also Serbian.
_BOOSTED_ID, _BOOSTED_NOTE = re.compile(r"\d+-drc\b"), re.compile(r"\bDRC\b")
_UPSCALED_ID = re.compile(r"\d+-sr\b")
_UPSCALED_NOTE = re.compile(r"\bAI-upscaled\b|\bsuper.resolution\b", re.IGNORECASE)

_Format = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """What to download of a video.

    Attributes:
        audio_id: yt-dlp's id of the format with the sound; ``None`` if nothing fits.
        video_id: the same of the picture, which may be the same file; ``None`` where it is not
            needed, or no format has one.
        language: language of the sound, as the site states it.
        height: lines of the picture; 0 if unknown, or not needed.
        reference_height: lines of the largest rendition of at most 720 that the site lists and that
            is not upscaled; 0 if there is none.
        problem: why nothing fits; empty if something does.
    """

    audio_id: str | None = None
    video_id: str | None = None
    language: str = ""
    height: int = 0
    reference_height: int = 0
    problem: str = ""


class _Renditions(NamedTuple):
    """Formats that may be chosen, each list with yt-dlp's best last.

    Attributes:
        sounds: sound only.
        pictures: picture only.
        both: sound and picture in one file.
        others: sound and picture in one file, of which only the picture is fit.
    """

    sounds: Sequence[_Format]
    pictures: Sequence[_Format]
    both: Sequence[_Format]
    others: Sequence[_Format]


def choose_formats(info: Mapping[str, Any], *, frames: bool) -> FormatChoice:
    """Choose what to download of a video.

    The sound is the original: no dub, no description for the blind, and no evened-out level where
    there is a plain one. Of what is left, sound alone is preferred; where frames are needed,
    pictures of at most 720 lines, then H.264, which is the cheapest to decode. Where all pictures
    are larger, the smallest is taken. Upscaled pictures are refused.

    Args:
        info: yt-dlp's description of a video. Its ``formats`` have yt-dlp's best last, as they have
            before its own selection.
        frames: whether the picture is needed.

    Example:
        >>> sound = {"format_id": "140", "acodec": "mp4a.40.2", "vcodec": "none"}
        >>> original = {**sound, "format_id": "140-0", "language": "de", "language_preference": 10}
        >>> dub = {**sound, "format_id": "140-1", "language": "en", "language_preference": -1}
        >>> choose_formats({"formats": [original, dub]}, frames=False).audio_id
        '140-0'
    """
    listed = _listed(info)
    reference_height = _reference_height(listed)
    playable = [form for form in listed if _is_playable(form)]
    # Also of what cannot be played: what is left then is not the original.
    originals = _originals(filter(_has_sound, listed), language=info.get("language"))
    original = [form for form in originals if _is_playable(form)]
    renditions = _sort_out(playable, original)
    picture, sound = _choose_both(renditions) if frames else (None, _choose_sound(renditions))
    if sound is None:
        problem = _problem(playable, originals=originals)
        return FormatChoice(reference_height=reference_height, problem=problem)
    has_picture = picture is not None and _has_picture(picture)
    return FormatChoice(
        audio_id=_name(sound),
        video_id=_name(picture) if picture is not None and has_picture else None,
        language=str(sound.get("language") or info.get("language") or ""),
        height=_lines(picture) if picture is not None and has_picture else 0,
        reference_height=reference_height,
    )


def client_of(form: Mapping[str, Any]) -> str:
    """Return the client by which yt-dlp got a format of YouTube; empty where that is not stated."""
    if form.get("_client"):
        return str(form["_client"])
    address = urlsplit(str(form.get("url") or ""))
    if not (address.hostname or "").endswith(".googlevideo.com"):
        return ""
    return parse_qs(address.query).get("c", [""])[0].lower()


# -- What a format is ------------------------------------------------------------------------------


def _listed(info: Mapping[str, Any]) -> list[_Format]:
    """Return the formats of a video, without pictures of it; a file alone is its own format."""
    formats = info.get("formats")
    if formats is None:
        formats = [info] if info.get("url") else []
    return [form for form in formats if _has_sound(form) or _has_picture(form)]


def _name(form: _Format) -> str:
    return str(form.get("format_id") or "0")  # yt-dlp's name where a site gives none


def _has_sound(form: _Format) -> bool:
    return form.get("acodec") != "none"  # an unknown codec is one


def _has_picture(form: _Format) -> bool:
    return form.get("vcodec") != "none"


def _is_playable(form: _Format) -> bool:
    return form.get("has_drm") in {None, False, "maybe"}


def _lines(form: _Format) -> int:
    return int(form.get("height") or 0)


def _is_small(form: _Format) -> bool:
    return _lines(form) <= MAX_ANNOTATED_LINES


def _is_small_for_certain(form: _Format) -> bool:
    return form.get("height") is not None and _is_small(form)


def _is_small_h264(form: _Format) -> bool:
    return _is_small_for_certain(form) and str(form.get("vcodec") or "").startswith("avc1")


def _tags(form: _Format) -> set[str]:
    """Return what YouTube's address states of a format, as ``{"acont=original", "lang=de"}``."""
    addresses = (form.get("url"), form.get("fragment_base_url"))
    texts = [unquote(unquote(str(address or ""))) for address in addresses]
    return {tag for text in texts for tags in _XTAGS.findall(text) for tag in tags.split(":")}


def _is_dub(form: _Format) -> bool:
    """Return whether a format says that its sound is not the original."""
    contents = {tag for tag in _tags(form) if tag.startswith("acont=")}
    return bool(
        contents - {"acont=original"}
        or _DUB_NOTE.search(str(form.get("format_note") or ""))
        or str(form.get("language") or "").endswith("-desc")
    )


def _is_marked_original(form: _Format) -> bool:
    # Without a language, "original" may mean the file that was uploaded.
    note = str(form.get("format_note") or "") if form.get("language") else ""
    return "acont=original" in _tags(form) or bool(_ORIGINAL_NOTE.search(note))


def _is_boosted(form: _Format) -> bool:
    """Return whether the level of the sound was evened out, or its speech raised."""
    return bool(
        _tags(form) & {"drc=1", "vb=1"}
        or _BOOSTED_ID.match(str(form.get("format_id")))
        or _BOOSTED_NOTE.search(str(form.get("format_note") or ""))
    )


def _is_upscaled(form: _Format) -> bool:
    return _has_picture(form) and bool(
        "sr=1" in _tags(form)
        or _UPSCALED_ID.match(str(form.get("format_id")))
        or _UPSCALED_NOTE.search(str(form.get("format_note") or ""))
    )


def _reference_height(listed: Iterable[_Format]) -> int:
    pictures = (form for form in listed if _has_picture(form) and not _is_upscaled(form))
    return max((_lines(form) for form in pictures if _is_small(form)), default=0)


# -- What may be chosen ----------------------------------------------------------------------------


def _originals(heard: Iterable[_Format], *, language: Any) -> list[_Format]:
    """Return the formats with the original sound.

    The site's mark decides; without one, how yt-dlp values the languages; then the language of the
    video as a whole.
    """
    candidates = [form for form in heard if not _is_dub(form)]

    def rank(form: _Format) -> tuple[bool, float, bool]:
        preference = form.get("language_preference")
        preference = _UNKNOWN_PREFERENCE if preference is None else preference
        is_of_video = bool(language) and form.get("language") == language
        return _is_marked_original(form), preference, is_of_video

    best = max(map(rank, candidates), default=None)
    return [form for form in candidates if rank(form) == best]


def _sort_out(playable: Sequence[_Format], original: Sequence[_Format]) -> _Renditions:
    pictures = [form for form in playable if _has_picture(form) and not _is_upscaled(form)]
    silent = [form for form in pictures if not _has_sound(form)]
    natural = [form for form in original if not _is_upscaled(form)]
    plain = [form for form in natural if not _is_boosted(form)] or natural
    sounds = [form for form in plain if not _has_picture(form)]
    both = [form for form in plain if _has_picture(form)]
    # A site that has only one of both: cropping reports what is missing.
    if not any(map(_has_sound, playable)):
        both = silent
    elif not any(map(_has_picture, playable)):
        both = sounds
    others = [form for form in pictures if _has_sound(form) and form not in plain]
    return _Renditions(sounds, silent, both, others)


def _problem(playable: Sequence[_Format], *, originals: Sequence[_Format]) -> str:
    if not playable:
        return NOTHING_TO_PLAY
    heard = [form for form in playable if _has_sound(form)]
    if not heard or any(map(_is_playable, originals)):
        return (
            "the source offers the picture of this video only upscaled, and not as it was uploaded"
        )
    languages = ", ".join(sorted({str(form.get("language") or "unknown") for form in heard}))
    offered = f"only dubbed or described (languages: {languages})"
    if originals:
        return f"the source protects the original sound of this video, or refuses it; {offered}"
    return f"the source offers the sound of this video {offered}, and not as it was uploaded"


# -- The choice ------------------------------------------------------------------------------------


def _last(forms: Sequence[_Format], fits: Callable[[_Format], bool]) -> _Format | None:
    return next((form for form in reversed(forms) if fits(form)), None)


def _any(form: _Format) -> bool:
    del form
    return True


def _choose_sound(renditions: _Renditions) -> _Format | None:
    """Return the best sound alone; else a small file of both; else any."""
    return (
        _last(renditions.sounds, _any)
        or _last(renditions.both, _is_small_for_certain)
        or _last(renditions.both, _any)
    )


def _choose_both(renditions: _Renditions) -> tuple[_Format | None, _Format | None]:
    """Return the formats of picture and sound, which may be one; twice ``None`` if nothing fits."""
    sounds, pictures, both, others = renditions
    sound = _last(sounds, _any)
    for fits in (_is_small_h264, _is_small, _any):
        # Of those that are all too large, the smallest.
        picture = _last(pictures[:1] if fits is _any else pictures, fits)
        if picture is not None and sound is not None:
            return picture, sound
        whole = _last(both, fits)
        if whole is not None:
            return whole, whole
    if sound is None:
        return None, None
    for fits in (_is_small_h264, _is_small, _any):
        picture = _last(others[:1] if fits is _any else others, fits)
        if picture is not None:
            return picture, sound
    return None, None
