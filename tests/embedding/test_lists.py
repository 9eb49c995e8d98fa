"""Lists of audio: what they name, exact parts of recordings, and which lines are refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import soundfile
from support import tiny_models
from support.tiny_models import calls_here, read_all, voice, write

from voxblink2_lib.cli import main
from voxblink2_lib.embedding.block_worker import EmbedOptions, read_waveform
from voxblink2_lib.embedding.blocks import find_blocks
from voxblink2_lib.embedding.lists import FilePart
from voxblink2_lib.embedding.run import embed
from voxblink2_lib.errors import EmbeddingError, ModelError
from voxblink2_lib.scoring import read_embeddings

RATE = 16_000


def sounds_of(place: Path, **options: Any) -> dict[str, Any]:
    """The samples of each utterance."""
    listed = read_all(find_blocks(place, **options).blocks)
    return {name: read_waveform(audio, name) for name, audio in listed}


def pcm(seed: int, seconds: float) -> Any:
    return np.round(voice(seed, seconds) * 20_000).astype(np.int16)


def archive(path: Path, sounds: dict[str, Any]) -> Path:
    """Write WAV files into an archive of Kaldi, with its list beside it."""
    with kaldiio.WriteHelper(f"ark,scp:{path},{path.with_suffix('.scp')}") as writer:
        for name, samples in sounds.items():
            writer(name, (RATE, samples))
    return path.with_suffix(".scp")


def test_wav_files_in_an_archive(tmp_path: Path) -> None:
    sounds = {"a": pcm(1, 0.4), "b": pcm(2, 0.5)}
    found = sounds_of(archive(tmp_path / "x.ark", sounds))
    assert found.keys() == sounds.keys()
    for name, samples in sounds.items():
        np.testing.assert_array_equal(found[name], samples / np.float32(32768))


def test_an_archive_beside_its_list(tmp_path: Path) -> None:
    scp = archive(tmp_path / "x.ark", {"a": pcm(1, 0.4)})
    scp.write_text(scp.read_text().replace(str(tmp_path / "x.ark"), "x.ark"))
    assert len(sounds_of(scp)["a"]) == 6400


def test_a_colon_may_be_part_of_a_name(tmp_path: Path) -> None:
    write(tmp_path / "take:2", voice(1, 0.4), format="WAV", subtype="FLOAT")
    (tmp_path / "wav.scp").write_text("a take:2\n")
    assert len(sounds_of(tmp_path / "wav.scp")["a"]) == 6400


def test_where_an_archive_has_no_wav_file(tmp_path: Path) -> None:
    archive(tmp_path / "x.ark", {"a": pcm(1, 0.4)})
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/x.ark:1\n")
    match = r"^a: the recording .*x\.ark has no WAV file at byte 1\.$"
    with pytest.raises(ModelError, match=match):
        sounds_of(tmp_path / "wav.scp")


def test_a_raw_list(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", voice(1, 0.4))
    records = [{"key": "id1-a", "wav": "a.wav", "spk": "id1"}, {"key": "b", "wav": "none.wav"}]
    (tmp_path / "raw.list").write_text("\n".join(map(json.dumps, records)))
    listed = read_all(find_blocks(tmp_path / "raw.list").blocks)
    assert listed == [("id1-a", tmp_path / "a.wav"), ("b", tmp_path / "none.wav")]


@pytest.mark.parametrize(
    "line", ["{", "{}", '{"key": "a"}', '{"key": 1, "wav": "x"}', '{"key": "", "wav": "x"}']
)
def test_lines_that_are_no_records(line: str, tmp_path: Path) -> None:
    (tmp_path / "raw.list").write_text('{"key": "a", "wav": "x"}\n' + line)
    with pytest.raises(
        EmbeddingError, match=r"raw\.list: line 2 is .*with 'key', a name, and 'wav'"
    ):
        find_blocks(tmp_path / "raw.list")


# -- Segments --------------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "r.wav", pcm(1, 3.0), RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "s.flac", pcm(2, 2.0), RATE)
    (tmp_path / "wav.scp").write_text("r r.wav\ns s.flac\n")
    return tmp_path / "wav.scp"


def segments(folder: Path, text: str) -> Path:
    (folder / "segments").write_text(text)
    return folder / "segments"


def test_segments_are_exact(recordings: Path, tmp_path: Path) -> None:
    lines = "b s 0.25 1.75\na r 0.5 1.00005\nc r 2 -1\nd r 2.5 3.3\n"
    found = sounds_of(recordings, segments=segments(tmp_path, lines))
    r, s = (pcm(seed, seconds) / np.float32(32768) for seed, seconds in ((1, 3.0), (2, 2.0)))
    expected = {"b": s[4000:28_000], "a": r[8000:16_001], "c": r[32_000:], "d": r[40_000:]}
    assert [*found] == [*expected]
    for name, samples in expected.items():
        np.testing.assert_array_equal(found[name], samples, err_msg=name)


def test_a_segment_beyond_its_recording_has_a_reason(recordings: Path, tmp_path: Path) -> None:
    for times in ("1 3.6", "3 -1", "4 5"):
        with pytest.raises(
            ModelError, match=r"^a spans .* s, but the recording .*r\.wav has 3\.00 s"
        ):
            sounds_of(recordings, segments=segments(tmp_path, f"a r {times}\n"))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a r 1", "line 2 is 'a r 1'; expected 'NAME RECORDING START END'"),
        ("a r 1 2 3", "line 2 is"),
        ("a r 2 1", "with the end after the start, in seconds, or -1"),
        ("a r -1 2", "line 2 is"),
        ("a r nan 2", "line 2 is"),
        ("a r 0 inf", "line 2 is"),
        ("a r x y", "line 2 is"),
        ("a t 0 1", "line 2 is of the recording 't', which is not in the list of audio"),
        ("z r 0 1", "'z' exists twice"),
    ],
)
def test_wrong_segments(line: str, match: str, recordings: Path, tmp_path: Path) -> None:
    wrong = segments(tmp_path, f"z r 0 1\n{line}\n")
    with pytest.raises(EmbeddingError, match=match):
        find_blocks(recordings, segments=wrong)


def test_segments_of_a_folder_are_refused(recordings: Path, tmp_path: Path) -> None:
    some = segments(tmp_path, "a r 0 1\n")
    with pytest.raises(EmbeddingError, match=r"Segments are of the recordings of a list wav\.scp"):
        find_blocks(tmp_path, segments=some)


def test_segments_of_an_archive(tmp_path: Path) -> None:
    scp = archive(tmp_path / "x.ark", {"r": pcm(1, 1.0), "q": pcm(2, 1.0)})
    found = sounds_of(scp, segments=segments(tmp_path, "a q 0.5 1\n"))
    np.testing.assert_array_equal(found["a"], pcm(2, 1.0)[8000:] / np.float32(32768))


def test_only_wanted_segments(recordings: Path, tmp_path: Path) -> None:
    some = segments(tmp_path, "a r 0 1\nb s 0 1\n")
    (block,) = find_blocks(recordings, segments=some, keep=lambda name: name == "b").blocks
    assert block.parts == (FilePart(str(tmp_path / "s.flac"), None, 0.0, 1.0),)
    assert "parts=[(" in block.identity()


def test_embeddings_of_segments_are_those_of_files(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_here(monkeypatch)
    model = str(tiny_models.save_small(tmp_path / "model"))
    some = segments(
        tmp_path, "".join(f"u{part} r {part / 4} {part / 4 + 0.5}\n" for part in range(10))
    )
    words = ["embed", "--model", model, "--audio", str(recordings), "--segments", str(some)]
    assert main([*words, "--out", str(tmp_path / "parts.parquet"), "--device", "cpu"]) == 0
    samples = pcm(1, 3.0)
    lines = io.StringIO()
    for part in range(10):
        path = tmp_path / f"u{part}.wav"
        soundfile.write(path, samples[part * 4000 : part * 4000 + 8000], RATE, subtype="PCM_16")
        lines.write(f"u{part} {path}\n")
    (tmp_path / "files.scp").write_text(lines.getvalue())
    embed(tmp_path / "files.scp", tmp_path / "files.parquet", EmbedOptions(model))
    parts, files = (read_embeddings(tmp_path / f"{name}.parquet") for name in ("parts", "files"))
    assert parts.names == files.names
    np.testing.assert_allclose(parts.vectors, files.vectors, atol=1e-6)
