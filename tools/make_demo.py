"""Make the built-in release, in VoxBlink2's format, and its media.

Nothing in it is from a real recording: the voices are synthetic, the sentences were written for
this file, the faces are drawn and the video ids are fictitious. Two of the eighteen videos have
annotations but no media; the demo's site responds with 404 and 403 for them.
"""

from __future__ import annotations

import argparse
import gzip
import io
import math
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

EPILOG = """\
default: the data of this checkout; release/ and media/ in the folder are deleted and created again
needs:   flite (voices awb, kal16, rms, slt), espeak-ng, ffmpeg (libx264, aac, libvpx-vp9, libopus)
example: python tools/make_demo.py --out /tmp/demo
"""
DEMO = Path(__file__).resolve().parents[1] / "voxblink2_lib" / "release" / "builtin_data"
LIMIT_BYTES = 4_500_000
ANNOTATION_FPS = 25  # of the release's frame numbers, whatever the rate of the video itself
TAIL_SECONDS = 0.9  # of no speech: every utterance ends well before the audio does
Floats = npt.NDArray[np.float32]
RGB = tuple[int, ...]
Spans = Sequence[tuple[int, int]]  # first and last frame of each utterance

# speaker -> command of the synthesizer, and the colours of backdrop, skin and hair
VOICES = {
    "id990001": ("flite -voice awb --setf duration_stretch=1.12", "345478 e7bc9e 5e3a24"),
    "id990002": ("flite -voice kal16 --setf duration_stretch=1.3", "b09a78 8d5c40 1c1818"),
    "id990003": ("flite -voice rms --setf duration_stretch=1.05", "3a6c54 f0cdb4 969698"),
    "id990004": ("flite -voice slt --setf duration_stretch=1.15", "6c4a7a c69270 281c18"),
    "id990005": ("espeak-ng -v en-gb-x-rp+m7 -p 5 -s 146", "807038 e0b08c 462c1e"),
    "id990006": ("espeak-ng -v en-us+f5 -p 45 -s 148", "38747c 68443a 121012"),
    "id990007": ("espeak-ng -v en-gb-scotland+klatt4 -p 60 -s 150", "84464c f4d2be b05c28"),
    "id990008": ("espeak-ng -v en-029+f2 -p 85 -s 148", "525860 ac7858 34221c"),
}
# kind -> file extension, fps (none: audio only), further options of FFmpeg
KINDS: dict[str, tuple[str, Fraction | None, str]] = {
    "mp4-25": ("mp4", Fraction(25), "-movflags +faststart"),
    "mp4-25-moov-last": ("mp4", Fraction(25), ""),
    "mp4-30": ("mp4", Fraction(30), "-movflags +faststart"),
    "mp4-30-moov-last": ("mp4", Fraction(30), ""),
    "webm": ("webm", Fraction(30000, 1001), ""),
    "m4a": ("m4a", None, "-movflags +faststart"),
}
# Number of sentences of a video -> first and last sentence of each of its three utterances.
# With four, the third has no annotation; with five, the second utterance overlaps the first.
UTTERANCES = {4: ((0, 0), (1, 1), (3, 3)), 5: ((0, 1), (1, 2), (3, 4))}
# Each video: speaker, id, kind, sample rate, channels, frame size, noise floor in dBFS; sentences.
SCRIPT = """\
id990001 demoHarbour mp4-25 48000 1 426x240 -58
  The harbour was quiet when the first boats returned. Two men carried the nets up to the shed.
  A grey cat waited beside the empty boxes. By noon every single fish had been sold.
id990001 demo_Garden webm 48000 2 320x180 -52
  Plant the beans after the frost. Give them a sunny wall. Water them early in the day.
  Slugs like the young leaves. A ring of sand keeps them away.
id990002 demoKitchen mp4-30 44100 2 426x240 -55
  Chop one onion as finely as you can. Let it soften slowly in a little butter.
  Add the rice and stir for two minutes. Now pour in the hot stock, one cup at a time.
id990002 demoChess_1 m4a 44100 1 426x240 -62
  White moves the middle pawn two steps. Black answers in the same way.
  Both knights come out next. The bishop looks at the weak square. Castle before you attack.
id990003 demoBicycle webm 48000 1 426x240 -50
  My old bicycle has a bent front wheel. I bought new spokes at the corner shop.
  Each spoke must be tightened by a quarter turn. Tomorrow I will ride it down to the river.
id990003 -demoSailor mp4-25 44100 1 320x180 -56
  We left the bay before sunrise. The wind came from the west. Our small sail held very well.
  Near the island we saw seals. They followed us for an hour.
id990004 demoLibrary m4a 48000 2 426x240 -60
  The library opens at nine on weekdays. Children may borrow up to six books.
  Please return them to the desk near the door. Late fees are small, but they add up.
id990004 demo-Museum mp4-30 48000 1 320x180 -54
  This clay jar was found nearby. A farmer hit it with his plough. Its handle was broken long ago.
  Someone painted birds on the side. We still cannot name the artist.
id990005 demoWeather mp4-25-moov-last 44100 2 426x240 -57
  Clouds will gather over the hills this evening. Expect light rain in the northern valleys.
  The coast stays dry, with a gentle breeze. Sunday looks warmer and mostly bright.
id990005 demoOrchard webm 48000 1 320x180 -53
  These apples ripen in October. The red ones are for cider. We press them in the old barn.
  The juice rests until spring. Then the whole village tastes it.
id990006 demoRailway mp4-30-moov-last 44100 1 426x240 -51
  The last train to the lake leaves at eight. Passengers with bicycles should use the rear car.
  Tickets can be bought from the driver. The bridge is closed until the end of March.
id990006 demo_Bakery m4a 44100 1 320x180 -59
  Mix the flour with warm water. Leave the dough to rest overnight. Fold it twice in the morning.
  The oven must be very hot. Let the loaf cool on a rack.
id990007 demoPottery webm 48000 2 426x240 -55
  Keep the clay wet while the wheel is turning. Press both thumbs gently into the middle.
  Pull the wall upward in one slow movement. If the bowl wobbles, begin again without regret.
id990007 demoMarket2 mp4-25 48000 1 320x180 -49
  The market fills the whole square. Cheese is sold beside the fountain.
  Ask for a taste before you buy. The honey stall closes early. Bring a strong bag for the melons.
id990008 demoCamping mp4-30 48000 2 426x240 -56
  Choose flat ground away from the stream. Open the tent before the light fades.
  Hang your food from a high branch. In the morning, leave the place as you found it.
id990008 demoWinter7 m4a 44100 2 426x240 -61
  Snow fell through the whole night. Our street was white and silent.
  The children built a crooked tower. Somebody gave it a blue hat. It melted before the weekend.
"""
# Videos without media: speaker, video, and first and last frame of each utterance.
MISSING = (
    ("id990003", "demoGone404", ((14, 88), (97, 171), (190, 284))),
    ("id990006", "demoShut403", ((21, 110), (92, 163), (181, 256))),
)


@dataclass(frozen=True)
class Video:
    """One video of the script; ``kind`` is a key of ``KINDS``."""

    speaker: str
    video_id: str
    kind: str
    rate_hz: int
    channels: int
    size: tuple[int, int]
    noise_dbfs: float
    sentences: tuple[str, ...]

    @classmethod
    def of(cls, paragraph: str) -> Video:
        """Parse one paragraph of ``SCRIPT``."""
        head, _, text = paragraph.partition("\n")
        speaker, video_id, kind, rate, channels, size, noise = head.split()
        width, height = map(int, size.split("x"))
        sentences = tuple(re.split(r"(?<=\.) ", " ".join(text.split())))
        about = (speaker, video_id, kind, int(rate), int(channels), (width, height))
        return cls(*about, float(noise), sentences)

    def chance(self, use: str) -> np.random.Generator:
        """Return a random generator that depends only on the video and the use."""
        return np.random.default_rng(zlib.crc32(f"{use} {self.video_id}".encode()))

    @property
    def colours(self) -> list[RGB]:
        """Colours of backdrop, skin and hair."""
        return [tuple(bytes.fromhex(colour)) for colour in VOICES[self.speaker][1].split()]


@dataclass(frozen=True)
class Track:
    """Audio of one video."""

    samples: Floats  # (channels, samples)
    voice: Floats  # (samples,), without noise
    spans: list[tuple[float, float]]  # start and stop seconds of each sentence


class Face:
    """The position of a video's face: a smooth path, in pixels of its frames."""

    def __init__(self, video_id: str, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(zlib.crc32(video_id.encode()))
        self.width, self.height = size
        self.phases = rng.uniform(0, 2 * math.pi, 3)
        self.periods = rng.uniform((6.0, 4.0, 7.0), (9.0, 6.0, 11.0))

    def at(self, seconds: float) -> tuple[float, float, float, float]:
        """Return centre x, centre y, half width and half height of the head."""
        sway, nod, lean = np.sin(2 * math.pi * seconds / self.periods + self.phases)
        half_width = self.height * 0.17 * (1 + 0.08 * lean)
        centre_x, centre_y = self.width * (0.5 + 0.17 * sway), self.height * (0.45 + 0.05 * nod)
        return float(centre_x), float(centre_y), float(half_width), float(half_width * 1.32)

    def rows(self, first: int, last: int) -> Iterator[str]:
        """Yield the lines FRAME, X, Y, W, H of an utterance; ``last`` is included."""
        for frame in range(first, last + 1):
            x, y, half_width, half_height = self.at(frame / ANNOTATION_FPS)
            box = (x - half_width, y - half_height, 2 * half_width, 2 * half_height)
            yield "\t".join(str(round(number)) for number in (frame, *box)) + "\n"


def run(command: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a command and return its output, or exit with its error message."""
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed ({done.returncode}): {done.stderr.decode()[-800:]}")
    return done.stdout


def need_programs() -> None:
    """Exit with the list of missing programs, before any work."""
    if missing := [name for name in ("flite", "espeak-ng", "ffmpeg") if not shutil.which(name)]:
        raise SystemExit(f"missing on this machine: {', '.join(missing)}; install and run again")
    has = run(["flite", "-lv"]) + run(["ffmpeg", "-v", "error", "-encoders"])
    needed = ("awb", "kal16", "rms", "slt", "libx264", "aac", "libvpx-vp9", "libopus")
    if missing := [name for name in needed if name not in has.decode().split()]:
        raise SystemExit(f"flite lacks the voice, or ffmpeg the encoder: {', '.join(missing)}")


def speak(video: Video, sentence: str, folder: Path) -> Floats:
    """Return one sentence at the video's rate, peak 1, without silence at both ends."""
    command, wav = VOICES[video.speaker][0].split(), str(folder / "sentence.wav")
    run([*command, *(["-o", wav, "-t"] if command[0] == "flite" else ["-w", wav]), sentence])
    convert = ["-ac", "1", "-ar", str(video.rate_hz), "-bitexact", "-f", "f32le", "-"]
    samples: Floats = np.frombuffer(run(["ffmpeg", "-v", "error", "-i", wav, *convert]), np.float32)
    samples = samples / np.abs(samples).max()
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1]


def record(video: Video, folder: Path) -> Track:
    """Synthesize a video's sentences with short pauses over a noise floor of its own."""
    rng, rate = video.chance("audio"), video.rate_hz
    pieces, spans = [np.zeros(int(rng.uniform(0.7, 1.1) * rate), np.float32)], []
    for sentence in video.sentences:
        start = sum(map(len, pieces))
        pieces.append(speak(video, sentence, folder))
        spans.append((start / rate, (start + len(pieces[-1])) / rate))
        pieces.append(np.zeros(int(rng.uniform(0.35, 0.55) * rate), np.float32))
    pieces[-1] = np.zeros(int(TAIL_SECONDS * rate), np.float32)
    voice = np.concatenate(pieces)
    noise = rng.standard_normal((video.channels, len(voice)))
    for _ in range(int(rng.integers(0, 3))):  # each pass darkens the noise: room, traffic, fan
        noise[:, 1:] = noise[:, 1:] + noise[:, :-1]
    noise *= 10 ** (video.noise_dbfs / 20) / noise.std()
    pan = np.array([[1.0], [0.8]])[: video.channels]  # stereo is not the same channel twice
    samples = pan * voice + noise
    samples *= 10 ** (-3 / 20) / np.abs(samples).max()
    return Track(samples.astype(np.float32), voice, spans)


def ellipse(  # noqa: PLR0917  # the order of geometry: x, y, half axes
    image: Floats, x: float, y: float, a: float, b: float, colour: RGB
) -> None:
    """Paint an ellipse with soft edges; centre (x, y), half axes a and b."""
    top, left = max(0, int(y - b) - 1), max(0, int(x - a) - 1)
    region = image[top : max(0, int(y + b) + 3), left : max(0, int(x + a) + 3)]
    rows, columns = np.ogrid[top : top + region.shape[0], left : left + region.shape[1]]
    # The centre of the pixel (row, column) is at (row + 0.5, column + 0.5).
    radius = np.hypot((columns + 0.5 - x) / a, (rows + 0.5 - y) / b)
    cover = np.clip(0.5 - (radius - 1) * min(a, b), 0, 1)[..., None]
    region += cover * (np.array(colour) - region)


def paint_room(video: Video) -> Floats:
    """Return the wall behind the face, shape (height, width, 3), with a frame, a shelf, a lamp."""
    rng, (width, height) = video.chance("room"), video.size
    red, green, blue = video.colours[0]
    light = np.linspace(1.25, 0.75, height, dtype=np.float32)[:, None, None]
    image = light * np.full((width, 3), (red, green, blue), np.float32)
    left, top = int(width * rng.uniform(0.06, 0.12)), int(height * rng.uniform(0.1, 0.2))
    right, bottom = left + width // 6, top + height // 3
    image[top:bottom, left:right] *= 0.7
    image[top + 5 : bottom - 5, left + 5 : right - 5] *= 1.8
    shelf = int(height * rng.uniform(0.55, 0.65))
    image[shelf : shelf + 5, int(width * 0.72) :] *= 0.6
    lamp, size = (red + 70, green + 70, blue + 50), height * 0.08
    ellipse(image, width * 0.88, shelf - size, size * 0.8, size, lamp)
    return image.clip(0, 255)


def paint_face(video: Video, image: Floats, face: Face, seconds: float, loud: float) -> None:
    """Paint shoulders, head, blinking eyes, and a mouth opened by ``loud`` (0 to 1)."""
    x, y, a, b = face.at(seconds)
    (red, green, blue), skin, hair = video.colours
    shade = tuple(part * 7 // 8 for part in skin)
    coat, lips, dark, white = (red // 2, green // 2, blue // 2), (150, 62, 66), (36, 24, 28), 245
    lids = 0.02 if (seconds + face.phases[0]) % 3.7 < 0.14 else 0.09
    ellipse(image, x, y + b * 1.2, a * 0.46, b * 1.2, shade)
    ellipse(image, 0.9 * x + 0.05 * face.width, face.height * 1.06, a * 2.3, a * 1.5, coat)
    ellipse(image, x, y - b * 0.13, a * 1.08, b * 0.98, hair)
    for side in (-1, 1):
        ellipse(image, x + side * a * 0.97, y + b * 0.05, a * 0.12, b * 0.15, shade)
    ellipse(image, x, y + b * 0.06, a * 0.97, b * 0.94, skin)
    for eye in (x - a * 0.38, x + a * 0.38):
        ellipse(image, eye, y - b * 0.3, a * 0.24, b * 0.045, hair)
        ellipse(image, eye, y - b * 0.1, a * 0.19, b * lids, (white, white, white))
        ellipse(image, eye, y - b * 0.1, a * 0.08, b * lids * 0.8, dark)
    ellipse(image, x, y + b * 0.2, a * 0.11, b * 0.13, shade)
    ellipse(image, x, y + b * 0.54, a * 0.36, b * (0.06 + 0.2 * loud), lips)
    ellipse(image, x, y + b * 0.54, a * 0.28, b * (0.015 + 0.17 * loud), dark)


def draw(video: Video, track: Track, fps: Fraction) -> Iterator[bytes]:
    """Yield the frames of a video as raw RGB, to the end of its audio."""
    background, face = paint_room(video), Face(video.video_id, video.size)
    width = int(video.rate_hz * 0.06)  # the mouth follows the loudness of 60 ms
    loudness = np.sqrt(np.convolve(track.voice**2, np.ones(width) / width, "same").clip(0))
    loudness /= loudness.max()
    for index in range(math.ceil(len(track.voice) / video.rate_hz * fps)):
        seconds, image = float(index / fps), background.copy()
        sample = min(int(seconds * video.rate_hz), len(loudness) - 1)
        paint_face(video, image, face, seconds, float(loudness[sample]))
        yield image.round().astype(np.uint8).tobytes()


def encode(video: Video, track: Track, target: Path, folder: Path) -> None:
    """Write the media file with FFmpeg, with the same bytes in every run."""
    (folder / "track.pcm").write_bytes(track.samples.T.astype("<f4").tobytes())
    suffix, fps, further = KINDS[video.kind]
    webm, kbps, size, raw_video, source = suffix == "webm", 16 * video.channels, video.size, b"", ""
    audio = f"-c:a libopus -b:a {44 + kbps}k" if webm else f"-c:a aac -b:a {56 + kbps}k"
    codec = "-vn"
    if fps:
        raw_video = b"".join(draw(video, track, fps))
        source = f"-f rawvideo -pix_fmt rgb24 -s {size[0]}x{size[1]} -r {fps} -i -"
        # One thread: the encoders then give the same bytes whatever the number of cores.
        h264, vp9 = "libx264 -preset slow -crf 25", "libvpx-vp9 -crf 35 -b:v 0 -cpu-used 3"
        codec = f"-pix_fmt yuv420p -threads 1 -c:v {vp9 if webm else h264}"
    exact = "-map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact"
    source += f" -f f32le -ar {video.rate_hz} -ac {video.channels}"
    command = ["ffmpeg", "-v", "error", *source.split(), "-i", str(folder / "track.pcm")]
    run([*command, *f"{codec} {audio} {further} {exact}".split(), str(target)], raw_video)


def frames(video: Video, track: Track) -> Spans:
    """Return first and last frame per utterance; [first/25, (last + 1)/25) has its sentences."""
    spans: list[tuple[int, int]] = []
    for begin, end in UTTERANCES[len(video.sentences)]:
        start_seconds, stop_seconds = track.spans[begin][0], track.spans[end][1]
        stop = math.ceil(stop_seconds * ANNOTATION_FPS)
        spans.append((math.floor(start_seconds * ANNOTATION_FPS), stop - 1))
        seconds = (stop - spans[-1][0]) / ANNOTATION_FPS
        if not 2 <= seconds <= 5:
            raise SystemExit(f"{video.video_id}: an utterance of {seconds:.2f} s; change its text")
    return spans


def annotate(speaker: str, video_id: str, face: Face, kbps: float, spans: Spans) -> dict[str, str]:
    """Return the annotation files of one video: name in the archive -> text."""
    files, rng = {}, np.random.default_rng(zlib.crc32(f"confidence {video_id}".encode()))
    for number, (first, last) in enumerate(spans, 1):
        start, length = first / ANNOTATION_FPS, (last + 1 - first) / ANNOTATION_FPS
        confidence = f"FV Conf: {rng.uniform(14, 22):.1f} (1)\nASD Conf: {rng.uniform(2, 5):.1f}\n"
        files[f"meta/{speaker}/{video_id}/{number:05d}.txt"] = (
            f"Identity: {speaker}\nReference: {video_id}\n"
            f"Start and Duration: {start:.3f} {length:.3f}\nKBPS: {kbps:.3f}\nOffset: 0\n"
            f"{confidence}FRAME\tX\tY\tW\tH\n" + "".join(face.rows(first, last))
        )
    return files


def pack(files: dict[str, str], target: Path) -> None:
    """Write a gzipped tar that depends only on names and texts."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, text in sorted(files.items()):
            member = tarfile.TarInfo(name)  # its time, user and group are 0
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def main() -> None:
    """Make every video and the release; print a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEMO, help="folder to write")
    out: Path = parser.parse_args().out
    need_programs()
    for part in ("media", "release"):
        shutil.rmtree(out / part, ignore_errors=True)
    (out / "release" / "data").mkdir(parents=True)
    files: dict[str, str] = {}
    videos_of: dict[str, list[str]] = {speaker: [] for speaker in VOICES}
    for video in map(Video.of, re.split(r"\n(?=\S)", SCRIPT.strip())):
        target = out / "media" / video.speaker / f"{video.video_id}.{KINDS[video.kind][0]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            track = record(video, Path(folder))
            spans = frames(video, track)
            encode(video, track, target, Path(folder))
        seconds, face = len(track.voice) / video.rate_hz, Face(video.video_id, video.size)
        kbps = target.stat().st_size * 8 / seconds / 1000
        files |= annotate(video.speaker, video.video_id, face, kbps, spans)
        videos_of[video.speaker].append(video.video_id)
        lengths = " ".join(f"{(last + 1 - first) / ANNOTATION_FPS:.2f}" for first, last in spans)
        print(f"{target.name:18} {seconds:6.2f} s {kbps:6.1f} kbit/s  utterances {lengths}")
    for speaker, video_id, spans in MISSING:
        files |= annotate(speaker, video_id, Face(video_id, (426, 240)), 140.0, spans)
        videos_of[speaker].append(video_id)
    lines = "".join(f"{' '.join((speaker, *ids))}\n" for speaker, ids in videos_of.items())
    (out / "release" / "data" / "spk2videos").write_text(lines, encoding="ascii")
    pack(files, out / "release" / "vb2_meta.tar.gz")
    made = [*(out / "media").rglob("*.*"), *(out / "release").rglob("*")]
    total = sum(path.stat().st_size for path in made if path.is_file())
    print(f"{total} bytes in {out}, of {LIMIT_BYTES} allowed")
    raise SystemExit(total > LIMIT_BYTES)


if __name__ == "__main__":
    main()
