"""What the page shows, as HTML: everything that is not ours is escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from voxblink2_lib.browse.details import UtteranceDetails
from voxblink2_lib.browse.marks import Mark
from voxblink2_lib.browse.pictures import (
    cosine_picture,
    sound_picture,
    time_line,
    voice_map,
)
from voxblink2_lib.browse.query import ListedUtterance, time_text
from voxblink2_lib.browse.sound import media_type
from voxblink2_lib.browse.voices import ComparedVoices
from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.progress import counted
from voxblink2_lib.redaction import redact
from voxblink2_lib.report import markup
from voxblink2_lib.report.markup import Column, Markup

_MOST_CHARACTERS = 90


def row_label(row: ListedUtterance) -> str:
    """Return an utterance as a line of a list, without what could act in a page."""
    parts = [row.key.name.rstrip("/")]
    if row.utterance_id:
        parts.append(time_text(row.start_seconds, row.end_seconds))
    parts.append("clip" if row.has_clip else row.video.status)
    if row.language:
        parts.append(row.language)
    if row.transcript:
        parts.append(f"“{row.transcript}”")
    elif row.video.reason and not row.has_clip:
        parts.append(redact(row.video.reason))
    text = visible(" · ".join(parts))
    return text if len(text) <= 2 * _MOST_CHARACTERS else f"{text[: 2 * _MOST_CHARACTERS]}…"


def notes(texts: Sequence[str]) -> Markup:
    """Return remarks, one below the other."""
    return markup.join([markup.note(text) for text in texts])


def problem(text: str) -> Markup:
    """Return what went wrong."""
    return markup.fill('<p class="problem" role="alert">$text</p>', text=text)


# -- One utterance ---------------------------------------------------------------------------------


def details_view(details: UtteranceDetails, face: Callable[[], bytes]) -> Markup:
    """Return all that is shown of an utterance.

    Args:
        details: what is known of it.
        face: makes the video of its face with boxes.
    """
    parts = [markup.fill("<h2>$name</h2>", name=details.row.key.name.rstrip("/"))]
    if details.problem:
        parts.append(problem(details.problem))
    parts += [_sound(details), _face(details, face), _facts(details)]
    if details.cuts:
        heading = Markup("<h3>Cuts in the video</h3>")
        parts += [heading, _figure(time_line(details.cuts, details.row.utterance_id))]
    return markup.join([*parts, notes(details.notes)])


def _figure(picture: Markup) -> Markup:
    return markup.fill("<figure>$picture</figure>", picture=picture)


def _data_url(kind: str, data: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}")


def _sound(details: UtteranceDetails) -> Markup:
    if details.clip is None or details.samples is None:
        return Markup()
    player = markup.fill(
        '<audio controls preload="auto" aria-label="Sound of $name" src="$url"></audio>',
        name=details.row.key.name,
        url=_data_url(media_type(details.clip.audio), details.clip.audio),
    )
    if not len(details.samples):
        return player
    start = details.clip.start_seconds or 0.0
    return markup.join([player, _figure(sound_picture(details.samples, start_seconds=start))])


def _face(details: UtteranceDetails, face: Callable[[], bytes]) -> Markup:
    clip = details.clip
    if clip is None or clip.video is None:
        return Markup()
    try:
        url = _data_url("video/mp4", face())
    except VoxBlink2Error as error:
        return problem(str(error))
    return markup.fill(
        '<h3>Face with its box</h3><video controls loop muted playsinline width="336" '
        'height="336" aria-label="Face of $name with its box" src="$url"></video>',
        name=details.row.key.name,
        url=url,
    )


def _facts(details: UtteranceDetails) -> Markup:
    row, clip = details.row, details.clip
    video = row.video
    pairs = [
        ("Time in the video", time_text(row.start_seconds, row.end_seconds)),
        ("Transcript", row.transcript or "none"),
        ("Language", row.language or "unknown"),
        ("Video", f"{video.status}, {counted(video.clips, 'clip')}, tried {video.attempts}x"),
        ("Reason", redact(video.reason) or "none"),
    ]
    if clip is not None:
        pairs.append(("Sound", details.sound.text if details.sound else "cannot be decoded"))
        pairs.append(("Source", clip.source))
        pairs.append(("Shard", clip.shard.name))
    if clip is not None and clip.video is not None:
        evidence = {"header": "its header", "offered": "the renditions of the source"}
        known = evidence.get(clip.boxes_evidence or "", "nothing: it is assumed")
        pairs.append(("Boxes fit the video", "yes" if clip.boxes_fit else "no"))
        pairs.append(("Frame size of the boxes known by", known))
    columns = (Column("", is_header=True), Column("", "message"))
    return markup.table(pairs, columns, style="summary", titles=False)


# -- Speakers, marks -------------------------------------------------------------------------------


def voices_view(voices: ComparedVoices) -> Markup:
    """Return the matrix and the map of a speaker's utterances."""
    text = (
        f"{counted(len(voices.keys), 'utterance')} of {counted(len(set(voices.videos)), 'video')}"
    )
    if voices.left_out:
        text += f"; {voices.left_out:,} more are left out of the pictures"
    return markup.join(
        [
            markup.note(f"{text}."),
            _figure(cosine_picture(voices.cosines, voices.videos)),
            _figure(voice_map(voices.points, voices.videos, voices.shares)),
        ]
    )


def marks_on(marks: Sequence[Mark]) -> Markup:
    """Return by which marks an utterance is left out, if any."""
    if not marks:
        return Markup()
    text = ", ".join(f"{mark.scope} {mark.name}" for mark in marks)
    return markup.fill('<p class="marked">Marked to leave out: $text</p>', text=text)


def marks_view(marks: Sequence[Mark], file: str, *, is_saved: bool) -> Markup:
    """Return the table of marks, and whether the file has them."""
    state = "has all of them" if is_saved else "does not have them yet: press Save"
    head = markup.note(f"{counted(len(marks), 'mark')}; {file} {state}.")
    if not marks:
        return head
    columns = (Column("What"), Column("Id", is_header=True), Column("Reason", "message"))
    rows = [(mark.scope, mark.name, mark.reason) for mark in marks]
    return markup.join([head, markup.table(rows, columns)])
