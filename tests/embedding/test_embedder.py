"""Sounds to vectors: what is decoded, cut, put together and refused, and by which models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_models
from support.model_oracle import PROPERTY, apart, small_extractor, small_model
from support.tiny_models import (
    RATE,
    SAME,
    Array,
    directly,
    embed_files,
    foreign_model,
    save_foreign,
    voice,
)
from transformers import (
    SequenceFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from voxblink2_lib.embedding.block_worker import EmbedOptions, cut, read_waveform
from voxblink2_lib.embedding.embedder import Embedder
from voxblink2_lib.embedding.model_location import find_model
from voxblink2_lib.errors import EmbeddingError, ModelError
from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerResNet
from voxblink2_lib.models.inference import for_processor
from voxblink2_lib.release.builtin import MEDIA

HALF = RATE // 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_models.save_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _long_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little a processor likes it, batches of mixed lengths must give the same."""
    monkeypatch.setattr("voxblink2_lib.embedding.embedder._CPU_BATCH_SECONDS", 20)


def embedder(model: str, dtype: str = "float32") -> Embedder:
    return Embedder(model, dtype=dtype, device="cpu", threads=torch.get_num_threads())


def embed(model: str, waveforms: Sequence[Array], dtype: str = "float32") -> dict[int, Any]:
    return dict(embedder(model, dtype).embed(list(enumerate(waveforms))))


def cosine(vector: Array, other: Array) -> float:
    return float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))


# -- Sounds that cannot be embedded ----------------------------------------------------------------


def _with_nan() -> Array:
    return np.where(np.arange(RATE) == 77, np.float32("nan"), voice(1, 1))


BAD = {
    "no/bytes": "no/bytes has no audio: 0 bytes",
    "no/samples": "no/samples has 0 samples; a model needs at least 1600",
    "a/click": "a/click has 100 samples; a model needs at least 1600",
    "not/finite": "not/finite has a sample that is not finite",
    "quite/silent": "quite/silent is silent",
    "a/text": "a/text cannot be decoded: ",
    "not/there": "not/there: there is no file ",
    "too/long": "too/long has 121 s; utterances of more than 120 s are not embedded whole. "
    "Use windows: --window 10",
}


def test_what_cannot_be_embedded_has_a_reason_and_the_others_a_vector(
    model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sounds"
    for name, samples in {
        "no/samples": [],
        "a/click": voice(1, 1)[:100],
        "not/finite": _with_nan(),
        "quite/silent": np.full(RATE, 0.25),
        "too/long": voice(1, 121),
        "first": voice(1, 1),
        "last": voice(2, 2),
    }.items():
        tiny_models.write(folder / f"{name}.wav", samples)
    (folder / "no" / "bytes.wav").touch()
    (folder / "a" / "text.wav").write_text("These are words.\n")
    names = ["first", *BAD, "last"]
    results = embed_files(
        model, {stem: folder / f"{stem}.wav" for stem in names}, tmp_path / "part"
    )
    for name, reason in BAD.items():
        assert results[name].startswith(reason), results[name]
    assert apart(results["first"], directly(model, voice(1, 1))) < SAME
    assert apart(results["last"], directly(model, voice(2, 2))) < SAME


def test_no_bytes_in_a_table_are_no_audio() -> None:
    with pytest.raises(ModelError, match="x has no audio: 0 bytes"):
        read_waveform(b"", "x")


# -- Decoding --------------------------------------------------------------------------------------


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([voice(1, 1), 0.5 * voice(2, 1)], axis=1)
    waveform = read_waveform(tiny_models.write(tmp_path / "x.wav", both), "x")
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, both.mean(axis=1), atol=1e-7)


def test_channels_of_another_rate_are_averaged_as_well(tmp_path: Path) -> None:
    """FFmpeg's own way from stereo to mono is louder by the root of two."""
    both = np.stack([voice(1, 1), 0.5 * voice(2, 1)], axis=1)
    other = read_waveform(tiny_models.write(tmp_path / "y.wav", both, rate=48_000), "y")
    mixed = read_waveform(
        tiny_models.write(tmp_path / "z.wav", both.mean(axis=1), rate=48_000), "z"
    )
    np.testing.assert_allclose(other, mixed, atol=1e-5)


def _harmonics(rate: int) -> Array:
    """Return two seconds of a voice below 3.2 kHz, which 8 kHz hold as well as 16."""
    t = np.arange(2 * rate) / rate
    swelling = 0.1 * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    buzz = sum(np.sin(2 * np.pi * 160 * k * t + k) / k for k in range(1, 21))
    made: Array = (swelling * buzz).astype(np.float32)
    return made


def test_another_rate_is_resampled(model: str, tmp_path: Path) -> None:
    low = tiny_models.write(tmp_path / "low.wav", _harmonics(8000), rate=8000)
    full = tiny_models.write(tmp_path / "full.wav", _harmonics(RATE))
    samples = read_waveform(low, "low")
    assert len(samples) == 2 * RATE
    # Ends ring a little.
    np.testing.assert_allclose(samples[500:-500], _harmonics(RATE)[500:-500], atol=0.005)
    results = embed_files(model, {"low": low, "full": full}, tmp_path / "part")
    assert cosine(results["low"], results["full"]) > 0.9


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_16_bits_are_enough(suffix: str, model: str, tmp_path: Path) -> None:
    files = {
        "short": tiny_models.write(tmp_path / f"short.{suffix}", voice(3, 1), subtype="PCM_16"),
        "float": tiny_models.write(tmp_path / "float.wav", voice(3, 1)),
    }
    results = embed_files(model, files, tmp_path / "part")
    assert 0 < apart(results["short"], results["float"]) < 1e-3


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("mp3", {}), ("ogg", {"subtype": "VORBIS"}), ("opus", {"format": "OGG", "subtype": "OPUS"})],
)
def test_compressed_sounds(
    suffix: str, options: dict[str, Any], model: str, tmp_path: Path
) -> None:
    path = tiny_models.write(tmp_path / f"x.{suffix}", voice(3, 2), **options)
    waveform = read_waveform(path, "x")
    assert abs(len(waveform) - 2 * RATE) < 0.15 * RATE  # coders pad
    assert cosine(embed(model, [waveform])[0], directly(model, voice(3, 2))) > 0.9
    np.testing.assert_array_equal(read_waveform(path.read_bytes(), "x"), waveform)


def test_sound_of_a_film() -> None:
    film = next(MEDIA.rglob("*.mp4"))
    waveform = read_waveform(film, "film")
    assert len(waveform) > 2 * RATE
    np.testing.assert_array_equal(read_waveform(film.read_bytes(), "film"), waveform)


@pytest.mark.parametrize("error", [ValueError("no layout"), RuntimeError(), IndexError()])
def test_whatever_damage_makes_a_library_raise_is_the_reason_of_that_file(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("voxblink2_lib.embedding.block_worker.decode_audio", fail)
    with pytest.raises(ModelError, match=rf"^x cannot be decoded: .*{type(error).__name__}"):
        read_waveform(b"damaged", "x")


@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_a_wav_file_that_ends_early_is_told(kind: str, tmp_path: Path) -> None:
    """Decoders give what is there: an embedding of it would be of another utterance."""
    path = tiny_models.write(tmp_path / "x.wav", tiny_models.voice(1, 1.0), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-1000])
    match = (
        r"^x is a WAV file that ends early: it has 31,000 bytes of samples, its header .* 32,000"
    )
    with pytest.raises(ModelError, match=match):
        read_waveform(path if kind == "file" else path.read_bytes(), "x")


@pytest.mark.parametrize("rate", [16_000, 8_000])
@pytest.mark.parametrize(("riff", "samples"), [(0, 0), (2**32 - 1, 2**32 - 1), (2**32 - 1, 0)])
def test_a_wav_file_without_a_length_is_read_to_its_end(
    riff: int, samples: int, rate: int, tmp_path: Path
) -> None:
    sound = tiny_models.voice(1, 1.0)
    path = tiny_models.write(tmp_path / "x.wav", sound, rate=rate, subtype="PCM_16")
    whole, data = read_waveform(path, "x"), bytearray(path.read_bytes())
    data[4:8], data[40:44] = riff.to_bytes(4, "little"), samples.to_bytes(4, "little")
    path.write_bytes(data)
    for audio in (path, bytes(data)):
        np.testing.assert_array_equal(read_waveform(audio, "x"), whole)


# -- Windows ---------------------------------------------------------------------------------------


@given(samples=st.integers(1600, 40_000), window=st.integers(1600, 20_000))
@PROPERTY
def test_windows_cover_the_utterance_and_end_with_it(samples: int, window: int) -> None:
    waveform = np.arange(1, samples + 1, dtype=np.float32)
    windows = cut(waveform, "x", window / RATE)
    if samples <= window:
        assert [len(part) for part in windows] == [samples]
        return
    assert {len(part) for part in windows} == {window}
    assert len(windows) == -(-samples // window)
    assert windows[-1][-1] == samples
    assert set(np.concatenate(windows)) == set(waveform)


def test_silent_windows_are_left_out(model: str, tmp_path: Path) -> None:
    # | voice 1 | silence | voice 2 |    with windows of 0.5 s, and 0.2 s over
    # 0        0.5       1.0       1.7
    waveform = np.concatenate([voice(1, 0.5), np.zeros(HALF, np.float32), voice(2, 0.7)])
    file = tiny_models.write(tmp_path / "x.wav", waveform)
    results = embed_files(model, {"x": file}, tmp_path / "part", window_seconds=0.5)
    windows = [waveform[:HALF], waveform[2 * HALF : 3 * HALF], waveform[-HALF:]]
    expected = np.mean([directly(model, part) for part in windows], axis=0)
    assert apart(results["x"], expected) < SAME


def test_sound_in_no_window_alone_is_silent(model: str, tmp_path: Path) -> None:
    steps = np.repeat(np.array([0.1, 0.2, 0.3], np.float32), HALF)
    file = tiny_models.write(tmp_path / "x.wav", steps)
    results = embed_files(model, {"x": file}, tmp_path / "part", window_seconds=0.5)
    assert results == {"x": "x is silent in each window of 0.5 s."}


def test_two_minutes_are_embedded_whole() -> None:
    waveform = np.arange(120 * RATE + 1, dtype=np.float32)
    assert [len(part) for part in cut(waveform[:-1], "x", None)] == [120 * RATE]
    with pytest.raises(ModelError, match=r"x has 120 s; .* --window 10"):
        cut(waveform, "x", None)


@pytest.mark.parametrize("windows", [60, pytest.param(360, marks=pytest.mark.slow)])
def test_ten_minutes_and_an_hour_in_windows(windows: int, model: str, tmp_path: Path) -> None:
    ten = voice(5, 10)
    long = np.concatenate([*[ten] * windows, ten[: 3 * RATE]])
    file = tiny_models.write(tmp_path / "long.wav", long, subtype="FLOAT")
    results = embed_files(model, {"long": file}, tmp_path / "part")
    assert results["long"].startswith(
        f"long has {10 * windows + 3:,} s; utterances of more than 120 s"
    )
    assert "--window 10" in results["long"]
    results = embed_files(model, {"long": file}, tmp_path / "part", window_seconds=10)
    total = windows * directly(model, ten) + directly(model, long[-10 * RATE :])
    assert apart(results["long"], total / (windows + 1)) < SAME


@pytest.mark.parametrize("window", [0.05, 0, -1, float("nan"), float("inf")])
def test_windows_that_are_too_short_or_no_number(window: float) -> None:
    with pytest.raises(EmbeddingError, match=rf"A window must have at least 0.1 s, got {window}"):
        EmbedOptions("model", window_seconds=window)


def test_a_dtype_that_is_not_offered() -> None:
    with pytest.raises(EmbeddingError, match=r"one of float32, bfloat16, got 'int8'"):
        EmbedOptions("model", dtype="int8")  # type: ignore[arg-type]  # what is refused


# -- Batches ---------------------------------------------------------------------------------------

LENGTHS = [0.1, 3.0, 0.7, 12.3, 0.1, 1.0, 1.01, 21.0, 6.0, 0.35, 2.2, 1.0]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the waveforms of each call of a feature extractor."""
    seen: list[list[int]] = []

    def watch(kind: type[SequenceFeatureExtractor]) -> None:
        extract = kind.__call__

        def watched(self: Any, waveforms: Any, **options: Any) -> Any:
            if isinstance(waveforms, list):  # alone is how we ask ourselves
                seen.append([len(waveform) for waveform in waveforms])
            return extract(self, waveforms, **options)

        monkeypatch.setattr(kind, "__call__", watched)

    watch(SpeakerFeatureExtractor)
    watch(Wav2Vec2FeatureExtractor)
    return seen


def voices(lengths: Sequence[float]) -> list[Array]:
    return [voice(place, seconds) for place, seconds in enumerate(lengths)]


@pytest.mark.parametrize("kind", ["basic-gsp", "bottleneck-tsp", "simam-asp", "ecapa"])
def test_a_batch_gives_what_each_utterance_gives_alone(
    kind: str, tmp_path: Path, batches: list[list[int]]
) -> None:
    saved = tiny_models.save_small(tmp_path, kind)
    results = embed(saved, voices(LENGTHS))
    assert sum(map(len, batches)) == len(LENGTHS)
    assert len(batches) < len(LENGTHS) / 2, "hardly anything was put together"
    # Padding included, a batch is at most 20 s, or one utterance.
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 20 * RATE for batch in batches)
    for place, waveform in enumerate(voices(LENGTHS)):
        assert apart(results[place], directly(saved, waveform)) < SAME


FOREIGN_LENGTHS = [1.0, 2.0, 0.6, 2.0, 1.7, 1.0, 2.0]


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("kind", list(tiny_models.FOREIGN))
def test_models_of_transformers_give_what_they_give_alone(
    kind: str, norm: str, mask: bool, tmp_path: Path, batches: list[list[int]]
) -> None:
    """Their extractors may offer masks; how the models use them is not exact."""
    saved = save_foreign(tmp_path, foreign_model(kind, norm=norm), mask=mask)
    results = embed(saved, voices(FOREIGN_LENGTHS))
    assert max(map(len, batches)) > 1, "nothing was put together"
    if not mask:
        assert all(len(set(batch)) == 1 for batch in batches), "something was padded"
    for place, waveform in enumerate(voices(FOREIGN_LENGTHS)):
        assert apart(results[place], directly(saved, waveform)) < SAME


@pytest.mark.parametrize("mask", [True, False])
def test_an_utterance_too_short_for_a_model_is_rejected_alone(mask: bool, tmp_path: Path) -> None:
    saved = save_foreign(tmp_path / "model", foreign_model("wav2vec2", norm="layer"), mask=mask)
    files = {
        name: tiny_models.write(tmp_path / f"{name}.wav", voice(place, seconds))
        for place, (name, seconds) in enumerate([("long", 1), ("short", 0.25), ("other", 1.2)])
    }
    results = embed_files(saved, files, tmp_path / "part")
    assert isinstance(results["short"], str), "what it gave are numbers of the padding"
    assert results["short"].startswith("short: the model failed on it: ")
    assert apart(results["long"], directly(saved, voice(0, 1))) < SAME
    assert apart(results["other"], directly(saved, voice(2, 1.2))) < SAME


def test_one_bad_waveform_does_not_take_its_batch_along(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = voice(9, 1.5)
    extract = SpeakerFeatureExtractor.__call__

    def fails(self: Any, waveforms: Any, **options: Any) -> Any:
        if any(waveform is bad for waveform in waveforms):
            raise RuntimeError("no luck\nand more")
        return extract(self, waveforms, **options)

    monkeypatch.setattr(SpeakerFeatureExtractor, "__call__", fails)
    results = embed(model, [voice(1, 1), bad, voice(2, 2)])
    assert results[1] == "the model failed on it: no luck"
    assert apart(results[0], directly(model, voice(1, 1))) < SAME
    assert apart(results[2], directly(model, voice(2, 2))) < SAME


def test_a_device_without_memory_is_said(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of it")

    monkeypatch.setattr(SpeakerResNet, "forward", full)
    with pytest.raises(ModelError, match=r"cpu has not enough memory for a batch of 2 x 2\.0 s"):
        embed(model, [voice(1, 1), voice(2, 2)])


# -- Numbers ---------------------------------------------------------------------------------------


def test_bfloat16_is_close(model: str) -> None:
    exact, rough = (embed(model, voices([1, 2.5, 1]), dtype) for dtype in ("float32", "bfloat16"))
    for place, vector in exact.items():
        assert rough[place].dtype == np.float32
        assert 0.9995 <= cosine(rough[place], vector) < 1 - 1e-9
        assert not np.array_equal(rough[place], vector)


@pytest.mark.parametrize(("dtype", "times"), [("float32", 1), ("bfloat16", 0)])
def test_networks_are_remade_for_a_processor_in_float32_only(
    dtype: str, times: int, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remade: list[Any] = []

    def watched(network: Any) -> Any:
        remade.append(network)
        return for_processor(network)

    monkeypatch.setattr("voxblink2_lib.models.inference.for_processor", watched)
    embed(model, [voice(1, 1)], dtype)
    assert len(remade) == times


def test_numbers_that_are_not_finite_are_rejected(tmp_path: Path) -> None:
    broken = small_model("basic-gsp")
    with torch.no_grad():
        broken.get_parameter("bottleneck.bias")[0] = torch.nan
    broken.save_pretrained(tmp_path / "model")
    small_extractor().save_pretrained(tmp_path / "model")
    file = tiny_models.write(tmp_path / "x.wav", voice(1, 1))
    results = embed_files(str(tmp_path / "model"), {"x": file}, tmp_path / "part")
    assert results == {"x": "x: the model gave numbers that are not finite"}


# -- Models that cannot be used --------------------------------------------------------------------


def test_a_model_without_all_its_weights_is_refused(tmp_path: Path) -> None:
    config = foreign_model("wav2vec2").config.to_dict()
    base = Wav2Vec2Model(Wav2Vec2Config(**config))
    saved = save_foreign(tmp_path, base, mask=False)
    with pytest.raises(ModelError, match=r"lacks \d+ weights \(.*, \.\.\.\), .* random numbers"):
        embedder(saved)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    saved = tiny_models.save_small(tmp_path)
    with pytest.raises(ModelError, match=r"device 'abacus' cannot be used: .*Use cpu, cuda, or"):
        Embedder(saved, dtype="float32", device="abacus", threads=1)


def test_weights_of_training_alone_may_lack(tmp_path: Path) -> None:
    saved = save_foreign(tmp_path, foreign_model("wav2vec2"), mask=False)
    before = embed(saved, [voice(1, 1)])[0]
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OF_TRAINING)}
    assert len(kept) < len(tensors)
    safetensors.torch.save_file(kept, file, {"format": "pt"})
    np.testing.assert_array_equal(embed(saved, [voice(1, 1)])[0], before)


_OF_TRAINING = ("classifier.", "objective.")


@pytest.mark.parametrize("files", [{}, {"config.json": "{}"}, {"config.json": "not JSON"}])
def test_a_folder_that_is_no_model(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(
        ModelError, match=r"cannot be loaded: .*\. Name a folder that the command convert"
    ):
        embedder(str(tmp_path))


@pytest.mark.parametrize("kind", ["model", "extractor"])
def test_code_that_comes_with_a_model_is_neither_run_nor_asked_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_foreign(tmp_path, foreign_model("wav2vec2"), mask=False)
    marker = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    file = tmp_path / ("config.json" if kind == "model" else "preprocessor_config.json")
    content = json.loads(file.read_text())
    for name in ("model_type", "architectures", "feature_extractor_type"):
        content.pop(name, None)
    classes = ("AutoConfig", "AutoModelForAudioXVector", "AutoFeatureExtractor")
    content |= {"model_type": "own", "auto_map": dict.fromkeys(classes, "code.Own")}
    file.write_text(json.dumps(content))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user is asked"))
    match = r"cannot be loaded: it needs code that comes with it, and such code is never run\. Name"
    with pytest.raises(ModelError, match=match) as caught:
        embedder(saved)
    assert "trust" not in str(caught.value)
    assert not marker.exists()


def test_a_name_that_the_hub_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"There is no folder nobody/nothing, and no such model .*"
                       r" Name a folder"):  # fmt: skip
        find_model("nobody/nothing")


def test_a_folder_is_found_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("model") == tmp_path / "model"
