"""WeSpeaker's models: published embeddings, from a folder on, and folders that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.model_oracle import (
    TOLERANCE,
    apart,
    embeddings_of,
    golden_wespeaker_folder,
    int16_waveform,
    small_wespeaker_folder,
    wespeaker_golden,
)

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import ARCHITECTURES, card, convert
from voxblink2_lib.models.conversion import convert_checkpoint
from voxblink2_lib.published_results import ARCHITECTURE_NAMES, published_results

GOLDEN = {
    "ws_resnet34": "wespeaker_resnet34",
    "ws_ecapa1024": "wespeaker_ecapa_c1024",
    "simam_resnet34": "wespeaker_simam_resnet34",
    "simam_resnet100": "wespeaker_simam_resnet100",
}

# -- The numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("ws_resnet34", "ws_ecapa1024", "simam_resnet34"),
        pytest.param("simam_resnet100", marks=pytest.mark.slow),  # its layers are those of 34
    ],
)
def test_golden_embeddings_from_a_folder(name: str, tmp_path: Path) -> None:
    expected = wespeaker_golden()[name]
    folder = golden_wespeaker_folder(tmp_path, name)
    made = convert_checkpoint(folder)
    (folder / "avg_model.pt").unlink()  # up to 200 MB
    assert (made.arch, made.left_out) == (GOLDEN[name], ("projection.weight",))
    assert sum(weight.numel() for weight in made.model.parameters()) == expected["parameters"]
    assert not made.model.training
    waves = [int16_waveform(inputs) for inputs in expected["embeddings"]]
    numbers = torch.tensor(list(expected["embeddings"].values()))
    alone = embeddings_of(made.model, *made.extractor(waves[0]).values())
    assert apart(alone, numbers[:1]) < TOLERANCE
    assert apart(embeddings_of(made.model, *made.extractor(waves).values()), numbers) < TOLERANCE


@pytest.mark.parametrize("name", GOLDEN)
def test_every_name_and_shape_of_theirs_is_ours(name: str) -> None:
    ours = {key: list(shape) for key, shape in ARCHITECTURES[GOLDEN[name]].shapes().items()}
    theirs = {
        key.replace(".shortcut.", ".downsample."): shape
        for key, shape in wespeaker_golden()[name]["state_dict"].items()
    }
    assert ours.keys() == theirs.keys()
    for key, shape in theirs.items():
        assert ours[key] in (shape, [*shape, 1]), key  # a linear layer on single frames


def test_the_smaller_ecapa_differs_in_its_width_only() -> None:
    large, small = (ARCHITECTURES[f"wespeaker_ecapa_c{width}"].shapes() for width in (1024, 512))
    assert large.keys() == small.keys()
    assert list(small["layer1.conv.weight"]) == [512, 80, 5]
    assert list(small["layer2.se_res2block.1.convs.0.weight"]) == [64, 64, 3]
    assert list(small["conv.weight"]) == [1536, 1536, 1]


def test_with_the_other_front_end_embeddings_would_be_others(tmp_path: Path) -> None:
    model, extractor = convert(small_wespeaker_folder(tmp_path))
    assert (extractor.front_end, extractor.window_type) == ("kaldi", "hamming")
    other = type(extractor)()  # that of the released models
    wave = int16_waveform("1:16000")
    ours, theirs = (embeddings_of(model, *each(wave).values()) for each in (extractor, other))
    assert apart(theirs, ours) > 10 * TOLERANCE


# -- Folders ---------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_configuration(tmp_path: Path) -> None:
    made = convert_checkpoint(small_wespeaker_folder(tmp_path), arch="wespeaker_simam_resnet34")
    config = made.model.config
    assert (config.base_channels, config.xvector_output_dim, config.num_mel_bins) == (2, 12, 80)
    assert config.voxblink2_release == {"arch": "wespeaker_simam_resnet34", "stage": None}
    assert ARCHITECTURES["wespeaker_simam_resnet34"].config.base_channels == 64


@pytest.mark.parametrize("missing", ["config.yaml", "avg_model.pt"])
def test_a_folder_without_one_of_the_two_is_refused(missing: str, tmp_path: Path) -> None:
    (small_wespeaker_folder(tmp_path) / missing).unlink()
    with pytest.raises(ModelError, match=rf"There is no {missing} in the folder .*Name a check"):
        convert(tmp_path)


def test_another_architecture_than_the_configuration_says(tmp_path: Path) -> None:
    small_wespeaker_folder(tmp_path)
    match = r"is wespeaker_simam_resnet34, not resnet34\. Leave out the architecture"
    with pytest.raises(ModelError, match=match):
        convert(tmp_path, arch="resnet34")


def change(folder: Path, place: str, value: object) -> None:
    """Change one setting of a configuration, named by its place."""
    path = folder / "config.yaml"
    settings: Any = yaml.safe_load(path.read_text())
    *sections, name = place.split(".")
    section = settings
    for each in sections:
        section = section.setdefault(each, {})
    section[name] = value
    path.write_text(yaml.safe_dump(settings))


TAKEN = (
    "SimAM_ResNet34_ASP, SimAM_ResNet100_ASP, ResNet34, ECAPA_TDNN_GLOB_c512, ECAPA_TDNN_GLOB_c1024"
)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        ("model", "CAMPPlus", rf"'CAMPPlus' is one of WeSpeaker's that .*Available: {TAKEN}\."),
        ("model", "ResNet293", "'ResNet293' is one of WeSpeaker's that is known, but not conv"),
        ("model", "ECAPA_TDNN_c512", "'ECAPA_TDNN_c512' is one of WeSpeaker's that is known"),
        ("model", "MyNet", rf"the model 'MyNet' is not known\. Available: {TAKEN}\."),
        ("model", None, "the model None is not known"),
        ("model_args", [1], "model_args is a value of type list, not names and values"),
        ("model_args.depth", 3, "model_args has 'depth', which would change the network"),
        ("model_args.embed_dim", 0, r"embed_dim is 0; expected is a whole number from 1 to 65,535"),
        ("model_args.embed_dim", "many", "model_args.embed_dim is 'many'; expected is a whole"),
        ("model_args.in_planes", 10**9, "in_planes is 1000000000; expected is a whole number"),
        ("dataset_args.frontend", "s3prl", "dataset_args.frontend is 's3prl'; only 'fbank' is"),
        ("dataset_args.resample_rate", 8000, "resample_rate is 8000; only 16000 is taken"),
        ("dataset_args.fbank_args.frame_shift", 20, "frame_shift is 20; only 10 is taken.*wrong"),
        ("dataset_args.fbank_args.frame_length", 32, "frame_length is 32; only 25 is taken"),
        ("dataset_args.fbank_args.num_mel_bins", 40, "num_mel_bins is 40; only 80 is taken"),
        ("dataset_args.cmvn", False, "dataset_args.cmvn is False; only True is taken"),
        ("dataset_args.cmvn_args.norm_var", True, "cmvn_args.norm_var is True; only False"),
    ],
    ids=lambda value: value if isinstance(value, str) else "value",
)
def test_settings_that_are_not_taken_are_named(
    place: str, value: object, match: str, tmp_path: Path
) -> None:
    change(small_wespeaker_folder(tmp_path), place, value)
    with pytest.raises(ModelError, match=rf"config\.yaml: .*{match}"):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("model", "arguments", "match"),
    [
        ("ResNet34", {"two_emb_layer": True}, "two_emb_layer is True; only False is taken"),
        ("ResNet34", {}, "two_emb_layer is True; only False is taken"),  # what WeSpeaker assumes
        ("ResNet34", {"two_emb_layer": False, "pooling_func": "ASTP"}, "'ASTP'; only 'TSTP' is"),
        ("ECAPA_TDNN_GLOB_c512", {"emb_bn": True}, "emb_bn is True; only False is taken"),
        ("ECAPA_TDNN_GLOB_c1024", {"pooling_func": "MQMHASTP"}, "only 'ASTP' is taken"),
    ],
    ids=["two layers", "two layers by default", "pooling", "normalized", "pooling of ECAPA"],
)
def test_variants_of_a_network_are_not_taken(
    model: str, arguments: dict[str, Any], match: str, tmp_path: Path
) -> None:
    change(small_wespeaker_folder(tmp_path), "model", model)
    change(tmp_path, "model_args", arguments)
    with pytest.raises(ModelError, match=match):
        convert(tmp_path)


def test_weights_of_another_network_than_the_configuration_describes(tmp_path: Path) -> None:
    change(small_wespeaker_folder(tmp_path), "model_args.embed_dim", 13)
    match = (
        r"2 of another shape: bottleneck\.bias \(12,\) instead of \(13,\).*of another network than "
        r"the config\.yaml beside it describes"
    )
    with pytest.raises(ModelError, match=match):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("model: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.mkdir [marker]", "cannot be read as YAML: could not determine"),
        ("", "has no settings: it is None"),
        ("- 1", "has no settings: it is a value of type list"),
        ("[" * 1200, "cannot be read as YAML"),
        ("#" * ((1 << 20) + 1), "has 1,048,577 bytes: no configuration is as large"),
    ],
    ids=["broken", "code", "empty", "list", "deep", "large"],
)
def test_what_is_no_configuration_is_refused(text: str, match: str, tmp_path: Path) -> None:
    (small_wespeaker_folder(tmp_path) / "config.yaml").write_text(text)
    with pytest.raises(ModelError, match=match):
        convert(tmp_path)
    assert not Path("marker").exists()


# -- Card and published results --------------------------------------------------------------------


def test_the_card_says_whose_model_it_is(tmp_path: Path) -> None:
    made = convert_checkpoint(small_wespeaker_folder(tmp_path / "in"))
    out = card.save(
        made.model, made.extractor, tmp_path / "out", arch=made.arch, checkpoint=tmp_path / "in"
    )
    text = (out / "README.md").read_text()
    assert "\n# SimAM_ResNet34_ASP\n" in text
    assert "of 12 dimensions, converted from the checkpoint `in`\nof WeSpeaker." in text
    assert "Kaldi's log-mel frames (`hamming` window)" in text
    row = "WeSpeaker SimAM_ResNet34_ASP, AS-norm and quality measures, 0.372 / 0.559 / 0.997 %"
    assert f"results on Vox1-O / E / H (EER), trained on VoxBlink2:\n{row}.\n" in text
    assert "Wespeaker: A Research and Production" in text
    card.add_onnx(out, "`a.onnx`: opset 18, 1.5 MB")
    extended = (out / "README.md").read_text()
    assert extended.startswith(text)
    assert "\n## ONNX\n\n`a.onnx`: opset 18, 1.5 MB. Batch and samples are free" in extended
    without = card._card("wespeaker_resnet34", made.model, made.extractor, "in")
    assert "Published results" not in without


def test_each_architecture_has_a_name_and_a_row_for_published_results() -> None:
    assert tuple(ARCHITECTURES) == ARCHITECTURE_NAMES
    rows = published_results({"voxblink2_release": {"arch": "wespeaker_simam_resnet100"}})
    title = "WeSpeaker SimAM_ResNet100_ASP"
    normalized = f"{title}, AS-norm and quality measures"
    assert [(name, *row) for name, row in rows.items()] == [
        (f"Vox1-O: {title}", 0.229, None),
        (f"Vox1-E: {title}", 0.458, None),
        (f"Vox1-H: {title}", 0.868, None),
        (f"Vox1-O: {normalized}", 0.202, None),
        (f"Vox1-E: {normalized}", 0.421, None),
        (f"Vox1-H: {normalized}", 0.795, None),
    ]
    assert published_results({"voxblink2_release": {"arch": "wespeaker_resnet34"}}) == {}
