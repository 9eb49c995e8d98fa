"""No dub, no boosted sound and no upscaled picture is downloaded where the original is offered.

The formats are as yt-dlp's extractor of YouTube makes them, sorted as yt-dlp sorts them.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yt_dlp import YoutubeDL
from yt_dlp.utils import YoutubeDLError

from voxblink2_lib.errors import FetchError
from voxblink2_lib.outcomes import MediaFacts
from voxblink2_lib.sources.format_choice import (
    NOTHING_TO_PLAY,
    FormatChoice,
    choose_formats,
    client_of,
)
from voxblink2_lib.sources.ytdlp import YtDlpSource

Form = dict[str, Any]
AVC, VP9, AV1 = "avc1.4d401f", "vp9", "av01.0.05M.08"
AAC, OPUS = "mp4a.40.2", "opus"
# In this order yt-dlp sorts formats of YouTube.
YOUTUBE_ORDER = (
    *("quality", "res", "fps", "hdr:12", "source", "vcodec", "channels", "acodec", "lang", "proto"),
)


def address(itag: str, xtags: str = "") -> str:
    url = f"https://rr3---sn-abc.googlevideo.com/videoplayback?itag={itag}&c=WEB"
    return f"{url}&xtags={quote(xtags, safe='')}" if xtags else url


def sound(itag: str, language: str | None = None, note: str = "medium", **more: Any) -> Form:
    """Return a format of sound alone; its codec is that of YouTube's number."""
    xtags = more.pop("xtags", "")
    return {
        **{"format_id": itag, "url": address(itag, xtags), "ext": "m4a", "protocol": "https"},
        **{"acodec": AAC if itag.startswith("140") else OPUS, "vcodec": "none", "height": None},
        **{"language": language, "language_preference": -1, "format_note": note},
        **{"quality": 2.5 if "drc" in itag else 3.0, "has_drm": False},
        **more,
    }


def picture(itag: str, height: int | None, codec: str = AVC, **more: Any) -> Form:
    xtags = more.pop("xtags", "")
    return {
        **{"format_id": itag, "url": address(itag, xtags), "ext": "mp4", "protocol": "https"},
        **{"acodec": "none", "vcodec": codec, "height": height, "width": (height or 0) * 16 // 9},
        **{"language": None, "language_preference": -1, "format_note": f"{height}p"},
        **{"quality": (height or 0) / 90, "has_drm": False},
        **more,
    }


def whole(itag: str, height: int | None, **more: Any) -> Form:
    return picture(itag, height, **{"acodec": AAC, **more})


def playlist(itag: str, height: int, language: str | None, content: str, **more: Any) -> Form:
    """Return a format of YouTube's HLS, whose address describes the sound in its path."""
    tags = quote(f"acont={content}:lang={language}", safe=":")
    path = f"sgoap/clen%3D1%3Bitag%3D140%3Bxtags%3D{quote(tags, safe=':')}/sgovp/clen%3D2"
    url = (
        f"https://manifest.googlevideo.com/api/manifest/hls_playlist/itag/{itag}/{path}/file/index"
    )
    return whole(itag, height, url=url, protocol="m3u8_native", language=language, **more)


STORYBOARD = {
    **{"format_id": "sb0", "acodec": "none", "vcodec": "none", "ext": "mhtml", "height": 90},
    **{"url": "https://i.ytimg.com/sb/x.jpg", "protocol": "mhtml", "format_note": "storyboard"},
}
# Sorted as yt-dlp does: a dub that is marked as default, since it suits the language of requests.
DUB_140 = sound("140-0", "en-US", "English (US) (default), medium", language_preference=5) | {
    "url": address("140", "acont=dubbed-auto:lang=en-US")
}
ORIGINAL_140 = sound("140-1", "de", "German original, medium", language_preference=10)
DUB_251 = sound("251-0", "en-US", "English (US) (default), medium", language_preference=5)
ORIGINAL_251 = sound("251-1", "de", "German original, medium", language_preference=10)
DRC_251 = sound("251-drc", "de", "German original, medium, DRC", language_preference=10)
DESCRIBED = sound("251-2", "de-desc", "German descriptive, medium", language_preference=-10)
OLD_18 = whole("18", 360)
PICTURES = [
    *(picture("134", 360), picture("136", 720), picture("398", 720, AV1)),
    *(picture("137", 1080), picture("137-sr", 1080, format_note="1080p, AI-upscaled")),
]
YOUTUBE = [
    *(STORYBOARD, DRC_251, DESCRIBED, DUB_140, ORIGINAL_140, ORIGINAL_251, DUB_251),
    *(OLD_18, *PICTURES),
]


def ids(formats: list[Form], *, frames: bool, **info: Any) -> tuple[str | None, str | None]:
    choice = choose_formats({"formats": formats, **info}, frames=frames)
    return choice.audio_id, choice.video_id


# -- YouTube ---------------------------------------------------------------------------------------


def test_the_original_of_a_dubbed_video_is_chosen() -> None:
    info = {"formats": YOUTUBE}
    assert choose_formats(info, frames=False) == FormatChoice(
        "251-1", None, language="de", reference_height=720
    )
    assert choose_formats(info, frames=True) == FormatChoice(
        "251-1", "136", language="de", height=720, reference_height=720
    )


def test_language_comes_before_codec_and_bit_rate() -> None:
    formats = [ORIGINAL_140, DUB_140, DUB_251]
    assert ids(formats, frames=False) == ("140-1", None)
    # An original whose level is evened out is better than a plain dub.
    assert ids([DRC_251, DUB_140, DUB_251], frames=False) == ("251-drc", None)
    assert ids([DRC_251, ORIGINAL_140], frames=False) == ("140-1", None)


@pytest.mark.parametrize(
    "dub",
    [
        sound("251", "en", xtags="acont=dubbed-auto:lang=en"),
        sound("251", "en", xtags="acont=dubbed:lang=en"),
        sound("251", "en", xtags="lang=en:acont=secondary"),
        sound("251", "de", xtags="acont=descriptive:lang=de"),
        sound("251", "en", "English - dubbed-auto"),
        sound("251", "en", "English (auto-dubbed), medium"),
        sound("251", "de", "German Descriptive, medium"),
        sound("251", "de-desc"),
        sound("251", url="https://x.test/manifest/dash/xtags/acont%253Ddubbed%253Alang%253Den/x"),
        sound("251", fragment_base_url=address("251", "acont=dubbed-auto")),
        playlist("96-1", 720, "en", "dubbed-auto"),
    ],
)
def test_a_dub_is_known_by_any_of_its_marks(dub: Form) -> None:
    plain = sound("140", "de")
    assert ids([plain, dub], frames=False) == ("140", None)
    choice = choose_formats({"formats": [dub]}, frames=False)
    assert (choice.audio_id, choice.video_id) == (None, None)
    assert choice.problem == (
        "the source offers the sound of this video only dubbed or described (languages: "
        f"{dub['language'] or 'unknown'}), and not as it was uploaded"
    )


@pytest.mark.parametrize(
    "original",
    [
        sound("140", "de", "German original, medium"),
        sound("140", "de", "German, medium", xtags="acont=original:lang=de"),
        sound("140", "de", "German, medium", language_preference=10),
        playlist("96-0", 360, "de", "original"),
    ],
)
def test_an_original_is_known_by_any_of_its_marks(original: Form) -> None:
    others = [sound("251-0", "en", "English, medium"), OLD_18]
    assert ids([original, *others], frames=False)[0] == original["format_id"]


def test_without_marks_all_sound_is_the_original() -> None:
    # A Serbian track is no upscaled one, nor is an uploaded file an original language.
    serbian = sound("audio-sr", "sr", "Serbian")
    uploaded = whole("source", 2160, format_note="Original")
    assert ids([whole("18", 360), uploaded, serbian], frames=False) == ("audio-sr", None)
    assert ids([whole("18", 360), uploaded], frames=True) == ("18", "18")


def test_the_language_of_the_video_decides_between_tracks_without_marks() -> None:
    tracks = [sound("1", "de"), sound("2", "en")]
    assert ids(tracks, frames=False) == ("2", None)
    assert ids(tracks, frames=False, language="de") == ("1", None)
    assert ids(tracks, frames=False, language="fr") == ("2", None)
    unnamed = choose_formats({"formats": [sound("1")], "language": "de"}, frames=False)
    assert unnamed.language == "de"


@pytest.mark.parametrize(
    "upscaled",
    [
        picture("136-sr", 720),
        picture("136-sr-1", 720),
        picture("136", 720, format_note="720p, AI-upscaled"),
        picture("136", 720, format_note="720p (super resolution)"),
        picture("136", 720, xtags="sr=1"),
        picture("136", 720, xtags="foo=2:sr=1"),
    ],
)
def test_an_upscaled_picture_is_no_picture_and_no_reference(upscaled: Form) -> None:
    formats = [sound("140"), picture("134", 360), upscaled]
    choice = choose_formats({"formats": formats}, frames=True)
    assert choice == FormatChoice("140", "134", height=360, reference_height=360)
    only = choose_formats({"formats": [sound("140"), upscaled]}, frames=True)
    assert (only.audio_id, only.reference_height) == (None, 0)
    assert only.problem == (
        "the source offers the picture of this video only upscaled, and not as it was uploaded"
    )
    assert ids([sound("140"), upscaled], frames=False) == ("140", None)


@pytest.mark.parametrize(
    "boosted",
    [
        sound("251-drc"),
        sound("251-drc-2"),
        sound("251", note="medium, DRC"),
        sound("251", xtags="drc=1"),
        sound("251", xtags="vb=1:lang=de"),
    ],
)
def test_boosted_sound_is_taken_only_alone(boosted: Form) -> None:
    assert ids([sound("140"), boosted], frames=False) == ("140", None)
    assert ids([boosted], frames=False) == (boosted["format_id"], None)


def test_a_picture_may_come_from_a_file_with_a_dub() -> None:
    dubbed = playlist("96-1", 720, "en", "dubbed-auto")
    assert ids([ORIGINAL_140, dubbed], frames=True) == ("140-1", "96-1")
    assert ids([ORIGINAL_140, dubbed], frames=False) == ("140-1", None)
    # Not where there is a picture alone, or a file of both that is the original.
    assert ids([ORIGINAL_140, dubbed, picture("137", 1080)], frames=True) == ("140-1", "137")
    both = playlist("96-0", 720, "de", "original", language_preference=10)
    assert ids([both, dubbed], frames=True) == ("96-0", "96-0")
    assert ids([both, dubbed, picture("136", 720)], frames=True) == ("96-0", "96-0")


def test_what_is_protected_is_listed_and_not_chosen() -> None:
    formats = [sound("140"), picture("134", 360), picture("136", 720, has_drm=True)]
    choice = choose_formats({"formats": formats}, frames=True)
    assert (choice.video_id, choice.height, choice.reference_height) == ("134", 360, 720)
    doubtful = picture("136", 720, has_drm="maybe")
    assert ids([sound("140"), doubtful], frames=True) == ("140", "136")
    nothing = choose_formats({"formats": [STORYBOARD, sound("140", has_drm=True)]}, frames=False)
    assert nothing == FormatChoice(problem=NOTHING_TO_PLAY)
    empty: list[Form] = [{"formats": []}, {"id": "x"}]
    for info in empty:
        assert choose_formats(info, frames=True) == FormatChoice(problem=NOTHING_TO_PLAY)


@pytest.mark.parametrize("frames", [False, True])
def test_no_dub_takes_the_place_of_an_original_that_is_protected(frames: bool) -> None:
    """The dub is only known by being less preferred than the original."""
    original = sound("140-0", language="de", language_preference=10, has_drm=True)
    dub = sound("140-1", language="en", language_preference=-1)
    choice = choose_formats({"formats": [original, dub, picture("136", 720)]}, frames=frames)
    assert (choice.audio_id, choice.video_id) == (None, None)
    assert re.search(r"protects the original sound .* \(languages: en\)$", choice.problem)
    plain = {**original, "format_id": "251-0", "has_drm": False}
    assert ids([original, plain, dub], frames=False)[0] == "251-0"


def test_the_reference_is_the_largest_of_at_most_720_lines() -> None:
    def reference(*heights: int | None) -> int:
        formats = [sound("140"), *(picture(f"p{height}", height) for height in heights)]
        return choose_formats({"formats": formats}, frames=True).reference_height

    assert reference(144, 480, 720, 1080) == 720
    assert reference(144, 480, 1080) == 480
    assert reference(1080, None) == reference() == 0


def test_a_file_of_which_nothing_is_known_is_both() -> None:
    file = {"id": "x", "url": "http://x.test/a.m4a"}
    for info in (file, {"formats": [file]}):
        assert choose_formats(info, frames=False) == FormatChoice("0", None)
        assert choose_formats(info, frames=True) == FormatChoice("0", "0")


def test_the_client_is_that_of_the_address() -> None:
    assert client_of(sound("140")) == "web"
    assert client_of({"url": address("140"), "_client": "android_vr"}) == "android_vr"
    assert client_of({"url": "https://media.test/x.m4a?c=WEB"}) == ""
    assert client_of({}) == ""


# -- Any list of formats ---------------------------------------------------------------------------

DUB_MARKS: dict[str, Form] = {
    "preference": {"language_preference": -1},
    # The site's own default may be a dub.
    "default": {"language_preference": 5, "format_note": "English (US) (default)"},
    "note": {"format_note": "English dubbed-auto", "language_preference": 10},
    "xtags": {"url": address("1", "acont=dubbed-auto:lang=en"), "language_preference": 10},
    "described": {"url": address("1", "lang=de:acont=descriptive")},
}
# The others are known as dubs only beside an original.
KNOWN_ALONE = ("note", "xtags", "described")
ORIGINAL_MARKS: dict[str, Form] = {
    "preference": {"language_preference": 10},
    "xtags": {"url": address("1", "acont=original:lang=de")},
    "note": {"format_note": "German original"},
}
HEIGHTS = st.sampled_from([144, 360, 480, 720, 1080, 2160])


@st.composite
def formats_with_truth(draw: st.DrawFn) -> list[Form]:
    """Draw formats in any order; keys that begin with ``is_`` say what each one really is."""
    mark = ORIGINAL_MARKS[draw(st.sampled_from(sorted(ORIGINAL_MARKS)))]
    forms = []
    for number in range(draw(st.integers(1, 8))):
        name = f"{number + 10}"
        kind = draw(st.sampled_from(["sound", "picture", "both"]))
        form = sound(name) if kind == "sound" else whole(name, draw(HEIGHTS))
        form |= {"is_dub": False, "is_boosted": False, "is_upscaled": False}
        if kind == "picture":
            form["acodec"] = "none"
        elif draw(st.booleans()):
            mark_of_dub = draw(st.sampled_from(sorted(DUB_MARKS)))
            form |= {**DUB_MARKS[mark_of_dub], "is_dub": True, "language": "en"}
            form["is_known"] = mark_of_dub in KNOWN_ALONE
        else:
            form |= {**mark, "language": "de"}
        if kind != "picture" and draw(st.booleans()):
            form |= {"is_boosted": True, "format_note": f"{form['format_note']}, DRC"}
        if kind != "sound":
            form["vcodec"] = draw(st.sampled_from([AVC, VP9, AV1]))
            if draw(st.integers(0, 3)) == 0:
                form |= {"is_upscaled": True, "format_id": f"{name}-sr"}
        forms.append(form)
    return list(draw(st.permutations(forms)))


class Truth:
    """What a list of formats really offers, and whether a choice is right."""

    def __init__(self, formats: list[Form]) -> None:
        self.by_id = {form["format_id"]: form for form in formats}
        self.has_sound = any(form["acodec"] != "none" for form in formats)
        natural = [form for form in formats if not form["is_upscaled"]]
        self.pictures = [form for form in natural if form["vcodec"] != "none"]
        sounds = [form for form in natural if form["acodec"] != "none" and not form["is_dub"]]
        self.plain = [form for form in sounds if not form["is_boosted"]] or sounds
        lines = (form["height"] for form in self.pictures if form["height"] <= 720)
        self.reference_height = max(lines, default=0)

    @property
    def is_offered_with_frames(self) -> bool:
        is_alone = any(form["vcodec"] == "none" for form in self.plain)
        is_whole = any(form["vcodec"] != "none" for form in self.plain)
        return is_whole or (is_alone and bool(self.pictures))

    def check_sound(self, choice: FormatChoice) -> None:
        assert self.by_id[choice.audio_id or ""] in self.plain
        assert choice.language == "de"

    def check_picture(self, choice: FormatChoice) -> None:
        video = self.by_id[choice.video_id or ""]
        assert video in self.pictures
        assert choice.height == video["height"]
        # A larger one only where no smaller one can be had with the original sound.
        if choice.height > 720:
            usable = [form for form in self.pictures if form["acodec"] == "none"]
            is_alone = any(form["vcodec"] == "none" for form in self.plain)
            usable = usable if is_alone else [form for form in self.pictures if form in self.plain]
            assert all(form["height"] > 720 for form in usable)


@settings(max_examples=200)
@given(formats=formats_with_truth())
def test_the_original_is_chosen_of_any_list(formats: list[Form]) -> None:
    truth = Truth(formats)
    sound_only = choose_formats({"formats": formats}, frames=False)
    both = choose_formats({"formats": formats}, frames=True)
    assert sound_only.reference_height == both.reference_height == truth.reference_height
    assert (sound_only.video_id, sound_only.height) == (None, 0)
    for choice in (sound_only, both):
        assert bool(choice.problem) == (choice.audio_id is None)
    if truth.plain:
        truth.check_sound(sound_only)
    if truth.is_offered_with_frames:
        truth.check_sound(both)
        truth.check_picture(both)
    elif truth.plain and any(form["vcodec"] != "none" for form in formats):
        assert (both.audio_id, both.video_id) == (None, None)


@settings(max_examples=200)
@given(formats=formats_with_truth(), frames=st.booleans())
def test_what_is_marked_as_a_dub_is_never_chosen(formats: list[Form], frames: bool) -> None:
    """Even where nothing else is offered."""
    marked = [form for form in formats if form.get("is_known")]
    assert choose_formats({"formats": marked}, frames=frames).audio_id is None


# -- Where the site marks nothing ------------------------------------------------------------------

# How formats were selected before dubs and upscaled pictures were known.
BEFORE = {
    False: "bestaudio/best[height<=720]/best",
    True: "/".join(
        (
            "bestvideo[height<=720][vcodec^=avc1]+bestaudio/best[height<=720][vcodec^=avc1]",
            "bestvideo[height<=?720]+bestaudio/best[height<=?720]",
            "worstvideo+bestaudio/best",
        )
    ),
}
UNMARKED: st.SearchStrategy[Form] = st.builds(
    dict,
    acodec=st.sampled_from(["none", AAC, OPUS, None]),
    vcodec=st.sampled_from(["none", AVC, VP9, None]),
    height=st.sampled_from([None, 144, 360, 720, 1080]),
    tbr=st.integers(1, 5000),
    language=st.sampled_from([None, "de"]),
)


def chosen_by(ydl: YoutubeDL, formats: list[Form]) -> str:
    """Return the id of yt-dlp's selection, or its message."""
    common = {"url": "http://x.test/media", "ext": "mp4", "protocol": "http"}
    served = [{**form, **common, "format_id": f"f-{n}"} for n, form in enumerate(formats)]
    info = {"id": "abcdefghijk", "title": "x", "extractor": "synthetic", "formats": served}
    try:
        return str(ydl.process_ie_result(info, download=False)["format_id"])
    except YoutubeDLError as error:
        return str(error)


@pytest.mark.parametrize("frames", [False, True])
def test_without_marks_the_choice_is_yt_dlps(frames: bool) -> None:
    source = YtDlpSource("http://x.test/{video_id}", with_video=frames)
    options = {"format": BEFORE[frames], "color": "never", "logger": source._logger}
    with YoutubeDL(options) as before:

        @given(formats=st.lists(UNMARKED, min_size=1, max_size=6))
        def check(formats: list[Form]) -> None:
            expected = chosen_by(before, copy.deepcopy(formats))
            assert chosen_by(source._ydl, formats) == expected

        check()


# -- Through yt-dlp --------------------------------------------------------------------------------


def process(source: YtDlpSource, formats: list[Form], **more: Any) -> Form:
    info = {
        **{"id": "abcdefghijk", "title": "x", "extractor": "youtube"},
        **{"formats": copy.deepcopy(formats), "_format_sort_fields": YOUTUBE_ORDER},
        **more,
    }
    return dict(source._ydl.process_ie_result(info, download=False))


def test_yt_dlp_sorts_and_numbers_and_the_original_is_selected() -> None:
    """The extractor gives all languages one id, which yt-dlp numbers."""
    formats = [{**form, "format_id": form["format_id"].split("-")[0]} for form in YOUTUBE[::-1]]
    source = YtDlpSource("http://x.test/{video_id}", with_video=True)
    info = process(source, formats)
    video, audio = info["requested_formats"]
    assert (video["format_id"], audio["language"]) == ("136", "de")
    assert audio["acodec"] == OPUS
    assert info["format_id"] == f"136+{audio['format_id']}"
    expected = MediaFacts(audio["format_id"], "136", "de", height=720, reference_height=720)
    assert source._facts == replace(expected, client="web")


def test_only_dubs_are_an_outcome_with_its_facts() -> None:
    source = YtDlpSource("http://x.test/{video_id}", with_video=True)
    with pytest.raises(FetchError, match=r"only dubbed .*languages: en-US\)") as caught:
        process(source, [DUB_140, *PICTURES])
    assert caught.value.status == "not-original"
    assert source._facts == MediaFacts(reference_height=720)


def test_the_language_of_the_video_reaches_the_choice() -> None:
    source = YtDlpSource("http://x.test/{video_id}")
    tracks = [sound("1", "de"), sound("2", "en")]
    chosen = [process(source, tracks, **more)["format_id"] for more in ({"language": "de"}, {})]
    assert chosen == ["1", "2"]


def test_a_doubtful_format_is_tested_before_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    source = YtDlpSource("http://x.test/{video_id}", with_video=True)
    monkeypatch.setattr(source._ydl, "_check_formats", lambda _: [])
    doubtful = picture("136", 720, has_drm="maybe")
    info = process(source, [sound("140"), picture("134", 360), doubtful])
    assert info["format_id"] == "134+140"
    assert (source._facts.height, source._facts.reference_height) == (360, 720)
