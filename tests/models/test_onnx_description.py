"""Descriptions beside ONNX files: read as written, or refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.model_oracle import PROPERTY
from support.tiny_onnx import SPEAKER_3D, WAVEFORM, WESPEAKER

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.features import Normalization
from voxblink2_lib.models.kaldi_frames import Window
from voxblink2_lib.models.onnx_description import (
    LAYOUTS,
    OnnxDescription,
    read_description,
    write_description,
)

OWN = {"input": "features", "front_end": "voxblink2", "normalization": "max", "num_mel_bins": 40}
NAMES = st.none() | st.text(min_size=1, max_size=8)
ALWAYS: dict[str, Any] = {
    "min_samples": st.none() | st.integers(1, 10**6),
    "input_name": NAMES,
    "lengths_name": NAMES,
    "output_name": NAMES,
    "release": st.just({}) | st.just({"arch": "resnet34", "stage": "finetuned"}),
}
SCALES, BANDS = st.sampled_from([1, 32_768]), st.integers(1, 200)
LAYOUT = st.none() | st.sampled_from(LAYOUTS)
DESCRIPTIONS = st.one_of(
    st.builds(OnnxDescription, st.just("waveform"), sample_scale=SCALES, **ALWAYS),
    st.builds(
        OnnxDescription,
        st.just("features"),
        front_end=st.just("voxblink2"),
        normalization=st.sampled_from(get_args(Normalization)),
        num_mel_bins=BANDS,
        layout=LAYOUT,
        **ALWAYS,
    ),
    st.builds(
        OnnxDescription,
        st.just("features"),
        front_end=st.just("kaldi"),
        window_type=st.sampled_from(get_args(Window)),
        num_mel_bins=BANDS,
        sample_scale=SCALES,
        mean_normalization=st.booleans(),
        layout=LAYOUT,
        **ALWAYS,
    ),
)


@PROPERTY
@given(DESCRIPTIONS)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, description: OnnxDescription
) -> None:
    path = tmp_path_factory.mktemp("model") / "a.onnx"
    assert write_description(path, description) == path.with_suffix(".json")
    assert read_description(path) == description
    assert "voxblink2_release" not in read_description(path).settings()


def test_without_one_the_message_has_those_of_common_exports(tmp_path: Path) -> None:
    """They can be pasted as they are printed."""
    path = tmp_path / "a.onnx"
    with pytest.raises(ModelError) as caught:
        read_description(path)
    message = str(caught.value)
    assert message.startswith(f"There is no {tmp_path / 'a.json'}, which describes the input of a")
    for expected in (WESPEAKER, SPEAKER_3D, WAVEFORM):
        text = json.dumps(expected)
        assert text in message
        path.with_suffix(".json").write_text(text)
        assert read_description(path).as_dict() == expected


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"input": None}, r'a\.json: input is missing\. Allowed: "waveform", "features"\.$'),
        ({"input": "mfcc"}, r'input must be one of "waveform", "features", got \'mfcc\''),
        ({"front_end": None}, r'front_end is missing\. Allowed: "voxblink2", "kaldi"\.'),
        ({"front_end": "htk"}, r"front_end must be one of .*, got 'htk'"),
        ({"front_end": []}, r"front_end must be one of .*, got a value of type list"),
        ({"window_type": None}, r"window_type must be given for features of the front end 'kaldi'"),
        ({"sample_scale": None, "mean_normalization": None}, r"sample_scale, mean_normalization m"),
        ({"window_type": "hann"}, r'window_type must be one of "hamming", "povey", got \'hann\''),
        ({"sample_scale": 256}, r"sample_scale must be one of 1, 32768, got 256"),
        ({"sample_scale": True}, r"sample_scale must be one of 1, 32768, got True"),
        ({"mean_normalization": 1}, r"mean_normalization must be one of true, false, got 1"),
        ({"num_mel_bins": "80"}, r"num_mel_bins must be a number from 1 to 1,024, got '80'"),
        ({"num_mel_bins": 10**9}, r"num_mel_bins must be a number from 1 to 1,024, got 1000000000"),
        ({"min_samples": 0}, r"min_samples must be a number from 1 on, got 0"),
        ({"normalization": "std"}, r"normalization is not known for features of the .* 'kaldi'\."),
        (
            {"dither": 1.0},
            r"dither is not known\. Allowed: input, front_end, .*voxblink2_release\.",
        ),
        ({"layout": "mels time"}, r'layout must be one of "batch time mels", "batch mels time", g'),
        ({"input_name": ""}, r"input_name must be a name in the graph, got ''"),
        ({"voxblink2_release": "x"}, r"voxblink2_release must be an object, got 'x'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    values = {**WESPEAKER, **changes}
    kept = {name: value for name, value in values.items() if value is not None}
    (tmp_path / "a.json").write_text(json.dumps(kept))
    with pytest.raises(ModelError, match=match):
        read_description(tmp_path / "a.onnx")


@pytest.mark.parametrize("name", ["front_end", "normalization", "mean_normalization", "layout"])
def test_a_waveform_has_no_front_end(name: str, tmp_path: Path) -> None:
    """What would be ignored is refused."""
    values = {**WESPEAKER, **OWN, "layout": LAYOUTS[0]}
    (tmp_path / "a.json").write_text(json.dumps({**WAVEFORM, name: values[name]}))
    with pytest.raises(ModelError, match=rf"a\.json: {name} is not known for a waveform\. Allowed"):
        read_description(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"a\.json cannot be read as JSON: Expecting value"),
        (b"\xff\xfe{", r"a\.json cannot be read as JSON: "),
        (b"[" * 100_000, r"a\.json cannot be read as JSON: "),
        (b'{"a": ' + b" " * (1 << 20) + b"1}", r"a\.json cannot be read as JSON: "),
        (b"[1, 2]", r"a\.json: expected is an object of names and values, not a value of type l"),
    ],
    ids=["empty", "bytes", "nested", "long", "list"],
)
def test_what_is_no_description_is_refused(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ModelError, match=match):
        read_description(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("values", "text", "samples"),
    [
        (WAVEFORM, "of the ONNX file, from the waveform on", 1600),
        (WESPEAKER, "kaldi hamming 80 bands of samples up to 32768", 1680),
        (SPEAKER_3D, "kaldi povey 80 bands of samples up to 1", 1680),
        (OWN, "voxblink2 max 40 bands", 1600),
        ({**OWN, "min_samples": 4000}, "voxblink2 max 40 bands", 4000),
    ],
)
def test_it_is_told_in_words(values: dict[str, Any], text: str, samples: int) -> None:
    description = OnnxDescription(**values)
    assert (description.text, description.least_samples) == (text, samples)
