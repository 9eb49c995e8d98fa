"""What a member of an archive of cut audio is: an utterance, or nothing that belongs in it."""

from __future__ import annotations

from voxblink2_lib.archive.tar_reader import TarMember
from voxblink2_lib.records import UTTERANCE_ID, UtteranceKey, is_speaker_id, is_video_id

AUDIO_EXTENSIONS = ("wav", "flac", "m4a", "aac", "mp3", "ogg", "opus", "mp4", "wma", "aiff", "au")
# An hour of 48 kHz stereo is 0.7 GB; cut utterances are seconds.
MAX_UTTERANCE_BYTES = 64 << 20


class StrangerError(ValueError):
    """A member is no utterance; the message says why, alike for all of one kind."""


def utterance_of(member: TarMember) -> UtteranceKey:
    """Return which utterance a file is.

    Args:
        member: a member of an archive that is no folder.

    Raises:
        StrangerError: it is none.

    >>> utterance_of(TarMember("audio/id000002/-JUT3czS6OI/00001.wav", b"0", 9)).utterance_id
    '00001'
    """
    if not member.is_file:
        raise StrangerError("no regular file but a link or a device")
    parts = member.name.removeprefix("./").split("/")
    if ".." in parts or not parts[0]:
        raise StrangerError("a name that leads outside")
    stem, dot, extension = parts[-1].rpartition(".")
    if not dot or extension.lower() not in AUDIO_EXTENSIONS:
        raise StrangerError("no audio by its name")
    if len(parts) < 3:
        raise StrangerError("no name of the form <speaker>/<video>/<utterance>.<ext>")
    speaker_id, video_id = parts[-3:-1]
    if not is_speaker_id(speaker_id):
        raise StrangerError("no speaker id ('id' and 5 or 6 digits) in its name")
    if not is_video_id(video_id):
        raise StrangerError("no video id (11 characters of A-Z a-z 0-9 _ -) in its name")
    if UTTERANCE_ID.fullmatch(stem) is None:
        raise StrangerError("no utterance id (letters, digits, _ and -) in its name")
    if member.size_bytes > MAX_UTTERANCE_BYTES:
        raise StrangerError(f"more than {MAX_UTTERANCE_BYTES:,} bytes")
    return UtteranceKey(speaker_id, video_id, stem)
