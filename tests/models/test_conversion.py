"""Checkpoints as the authors released them, everything else that gets that name, and the card."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import resource
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.model_oracle import FRONT_END, light_checkpoint, small_model
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioXVector

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import (
    ARCHITECTURES,
    RELEASED,
    SpeakerFeatureExtractor,
    SpeakerModel,
    card,
    convert,
)
from voxblink2_lib.models.checkpoint import read_checkpoint

State = dict[str, Any]
ARCH = "ecapa_tdnn"
WINDOW, FILTERS = FRONT_END


def state() -> State:
    """Return a good checkpoint, tiny as a file, to be broken by a test."""
    return light_checkpoint(ARCH)


def write(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refused(path: Path, match: str, *, arch: str = ARCH) -> str:
    with pytest.raises(ModelError, match=match) as caught:
        convert(path, arch=arch)
    return str(caught.value)


# -- Good ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", RELEASED)
def test_every_released_name_and_shape_is_taken(arch: str, tmp_path: Path) -> None:
    content = light_checkpoint(arch)
    model, _ = convert(write(tmp_path / "a.pt", content), arch=arch)
    ours = model.state_dict()
    assert len(ours) == len(content) - len(FRONT_END)
    for key, tensor in content.items():
        if key not in FRONT_END:
            # Only bottleneck blocks were released with the other name.
            result = ours[key.replace(".shortcut.", ".downsample.")]
            assert bool((result == tensor).all()), key


def test_every_way_to_write_a_checkpoint_is_read(tmp_path: Path) -> None:
    plain = state()
    expected = convert(write(tmp_path / "0.pt", plain), arch=ARCH)[0].state_dict()
    parallel = {f"module.{key}": tensor for key, tensor in plain.items()}
    partly = {f"module.{key}" if "conv" in key else key: tensor for key, tensor in plain.items()}
    paths = [
        write(tmp_path / "1.pt", parallel),
        write(tmp_path / "2.pt", partly),
        write(tmp_path / "3.pt", plain, legacy=True),
        write(tmp_path / "4.pt", {key: tensor.clone() for key, tensor in reversed(plain.items())}),
    ]
    for path in paths:
        result = convert(str(path), arch=ARCH)[0].state_dict()
        assert all(bool((result[key] == expected[key]).all()) for key in expected), path


def test_a_converted_model_is_ready_to_embed(tmp_path: Path) -> None:
    model, extractor = convert(write(tmp_path / "a.pt", state()), arch=ARCH)
    assert not any(module.training for module in model.modules())
    assert isinstance(extractor, SpeakerFeatureExtractor)
    assert model.head is None


# -- Tensors that do not fit -----------------------------------------------------------------------


def without(key: str) -> Callable[[State], Any]:
    return lambda content: content.pop(key)


def with_tensor(key: str, tensor: Tensor) -> Callable[[State], Any]:
    return lambda content: content.update({key: tensor})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("fc6.bias"), r"1 missing: fc6\.bias\. It is incomplete, or of a changed"),
        (with_tensor("fc7.bias", torch.ones(2)), r"1 unexpected: fc7\.bias\. It is another"),
        (
            with_tensor("fc6.bias", torch.ones(191)),
            r"1 of another shape: fc6\.bias \(191,\) instead of \(192,\)\. It is",
        ),
        (
            with_tensor("fc6.bias", torch.ones(1)),
            r"1 of another shape: fc6\.bias \(1,\) instead of \(192,\)\. It is",
        ),
        (
            with_tensor(FILTERS, torch.ones(257, 64)),
            rf"1 of another shape: {FILTERS} \(257, 64\) instead of \(257, 80\)\. It is",
        ),
        *(
            (
                with_tensor("fc6.bias", torch.tensor([0.0] * 191 + [value])),
                r"1 not finite: fc6\.bias\. Training diverged",
            )
            for value in (float("nan"), float("inf"), -float("inf"))
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    change: Callable[[State], Any], match: str, tmp_path: Path
) -> None:
    content = state()
    change(content)
    path = write(tmp_path / "a.pt", content)
    text = refused(path, match)
    assert text.startswith(f"The checkpoint {path} is not one of {ARCH}. Tensors 1 ")
    assert "(--arch" not in text  # it is the nearest


def test_all_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    content = state()
    for key in ("fc6.bias", "fc6.weight"):
        del content[key]
    content |= {"b.extra": torch.ones(1), "a.extra": torch.ones(1)}
    content["bn6.bias"] = torch.ones(3, 1)
    content["bn6.weight"] = torch.full((192,), torch.nan)
    refused(
        write(tmp_path / "a.pt", content),
        r"Tensors 1 not finite: bn6\.weight; 2 missing: fc6\.bias, fc6\.weight; "
        r"2 unexpected: a\.extra, b\.extra; "
        r"1 of another shape: bn6\.bias \(3, 1\) instead of \(192,\)\. It is",
    )


@pytest.mark.parametrize("more", [8, 9])
def test_long_lists_are_cut(more: int, tmp_path: Path) -> None:
    content = state() | {f"x{place}": torch.ones(1) for place in range(more)}
    listed = ", ".join(f"x{place}" for place in range(8))
    end = "" if more == 8 else ", ..."
    text = refused(write(tmp_path / "a.pt", content), "unexpected")
    assert f"{more} unexpected: {listed}{end}. It is" in text


@pytest.mark.parametrize("arch", ["resnet34", "resnet293"])
def test_a_checkpoint_of_another_architecture(arch: str, tmp_path: Path) -> None:
    text = refused(write(tmp_path / "a.pt", state()), f"is not one of {arch}", arch=arch)
    assert ", ...; " in text
    assert "unexpected: attention.0.bias, attention.0.weight, " in text
    assert text.endswith("It is nearest to ecapa_tdnn: name that one (--arch ecapa_tdnn), or none.")


def test_resnets_are_not_taken_for_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", light_checkpoint("resnet34"))
    match = r"is not one of resnet100\. Tensors \d+ missing.*; \d+ of another shape"
    refused(path, match, arch="resnet100")


def test_an_unknown_architecture_is_named_first(tmp_path: Path) -> None:
    known = "ecapa_tdnn, resnet34, resnet100, resnet293"
    match = rf"There is no model 'resnet18'\. Available: {known}, wespeaker_simam_resnet34, "
    refused(tmp_path / "not-there.pt", match, arch="resnet18")


def test_one_name_with_and_without_prefix(tmp_path: Path) -> None:
    content = state()
    content["module.fc6.bias"] = content["fc6.bias"]
    refused(write(tmp_path / "a.pt", content), r"the tensor 'fc6\.bias' under several prefixes")


@pytest.mark.parametrize(("key", "place"), [(FILTERS, (40, 20)), (WINDOW, (200,))])
@pytest.mark.parametrize("size", [2e-3, -0.5])
def test_another_front_end_is_refused(
    key: str, place: tuple[int, ...], size: float, tmp_path: Path
) -> None:
    content = state()
    content[key][place] += size
    refused(
        write(tmp_path / "a.pt", content),
        rf"trained with another front end: {key} differs by up to {abs(size):.1g}.*would be wrong",
    )


def test_a_front_end_of_the_same_numbers_but_rounding_is_taken(tmp_path: Path) -> None:
    content = state()
    content[FILTERS] = content[FILTERS] + 5e-4
    convert(write(tmp_path / "a.pt", content), arch=ARCH)


# -- Files that are no state dict ------------------------------------------------------------------


@dataclass
class Payload:
    """What makes a folder when it is unpickled."""

    marker: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("inside", [False, True])
def test_code_in_a_checkpoint_is_not_run(form: str, inside: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "a.pt"
    payload = Payload(str(marker))
    content: Any = {**state(), "fc6.bias": payload} if inside else payload
    if form == "pickle":
        content = {"fc6.bias": payload} if inside else payload
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())
    else:
        write(path, content, legacy=form == "legacy")
        torch.load(path, weights_only=False)
    marker.rmdir()  # it does run where nobody looks
    refused(path, r"contains more than tensors: it names posix\.mkdir\. Nothing in it was run")
    assert not marker.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_off_file_is_refused_at_any_length(legacy: bool, tmp_path: Path) -> None:
    data = write(tmp_path / "a.pt", state(), legacy=legacy).read_bytes()
    path = tmp_path / "b.pt"
    lengths = {*range(0, 300, 7), *range(300, len(data), len(data) // 60)}
    for length in sorted(lengths | {len(data) - 1, len(data) - 100}):
        path.write_bytes(data[:length])
        refused(
            path,
            "cannot be read; it may be incomplete: .|Nothing in it was run",
        )


@pytest.mark.parametrize("legacy", [False, True])
def test_changed_bytes_end_in_tensors_or_an_error_of_ours(legacy: bool, tmp_path: Path) -> None:
    # The names and shapes at the beginning are what breaks in the most ways.
    whole = write(tmp_path / "a.pt", {"fc6.bias": torch.ones(4)}, legacy=legacy).read_bytes()
    path = tmp_path / "b.pt"
    for place in range(min(len(whole), 400)):
        data = bytearray(whole)
        data[place] = (0, whole[place] ^ 1, ord("R"))[place % 3]
        path.write_bytes(data)
        with contextlib.suppress(ModelError):
            # What can still be read is tensors; everything else is an error of ours.
            tensors = read_checkpoint(path).tensors
            assert {type(tensor) for tensor in tensors.values()} <= {torch.Tensor}


@pytest.mark.parametrize(
    "data",
    [b"", b"404 Not Found\n", b"<!DOCTYPE html><html></html>" * 50, bytes(5000), b"PK\3\4" * 50],
    ids=["empty", "text", "html", "zeros", "zip"],
)
def test_what_is_no_checkpoint_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model_pt.pt"
    path.write_bytes(data)
    refused(
        path, "model_pt.pt (cannot be read; it may be incomplete: .|is damaged or not a checkpoint)"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "model_pt.pt", r"There is no checkpoint .*model_pt\.pt\.$")
    refused(tmp_path, r"There is no config\.yaml and no avg_model\.pt in the folder")


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(1)],
        torch.ones(3),
        {"conv1.weight": 1},
        {1: torch.ones(1)},
        {"epoch": 3, "conv1.weight": torch.ones(1)},
        {"state_dict": {"conv1.weight": 1}},
        {"state_dict": [torch.ones(1)]},
        None,
    ],
    ids=["list", "tensor", "numbers", "numbered", "mixed", "nested", "nested list", "none"],
)
def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.pt", content), "is not a state dict")


@pytest.mark.parametrize("kind", ["sparse", "complex", "meta"])
def test_tensors_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    content = state()
    content["fc6.bias"] = {
        "sparse": torch.ones(192).to_sparse(),
        "complex": torch.ones(192, dtype=torch.complex64),
        "meta": torch.ones(192, device="meta"),
    }[kind]
    refused(write(tmp_path / "a.pt", content), "fc6.bias")


# -- Files that ask for more than they hold --------------------------------------------------------


class Stored:
    """What the values of a tensor are in a pickle of PyTorch."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class StoragePickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


def one_tensor(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    numbers: int = 192,
    name: str = "fc6.bias",
    pickled: bytes = b"",
    data: bytes = bytes(4 * 192),
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return a checkpoint of one tensor, whose parts need not fit."""
    content, file = io.BytesIO(), io.BytesIO()
    storage = ("storage", torch.FloatStorage, "0", "cpu", numbers)
    StoragePickler(content, 2).dump({name: Stored(storage, 0, shape, stride, False, OrderedDict())})
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled or content.getvalue())
        archive.writestr("a/version", "3\n")
        archive.writestr("a/data/0", data)
    return file.getvalue()


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Four gigabytes more than this process has mapped: whoever asks for a tensor's gets none."""
    mapped = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


TERABYTE = 1 << 40
NESTED_KEY = b"}" + b")" + b"\x85" * 1_000_000 + b"Ns."
HOSTILE = {
    "one number many times": (one_tensor((TERABYTE,), (0,)), r"another shape: fc6\.bias \(1099"),
    "one number in a square": (one_tensor((1 << 20, 1 << 20), (0, 0)), "another shape: fc6"),
    "numbers that are not there": (
        one_tensor((TERABYTE,), (1,), numbers=TERABYTE),
        "cannot be read; it may be incomplete: .",
    ),
    "beyond the numbers": (one_tensor((193,), (1,)), "cannot be read; it may be incomplete: ."),
    "compressed": (
        one_tensor((192,), (1,), data=bytes(10_000_000), compression=zipfile.ZIP_DEFLATED),
        "what is in it is larger than the file. Download it again",
    ),
    "a nested key": (one_tensor((192,), (1,), pickled=NESTED_KEY), "more than 32 values in each"),
    "a nested key in the old form": (NESTED_KEY, "more than 32 values in each other"),
    "a length in the old form": (b"\x80\x02X\xff\xff\xff\xff.", "it asks for 4,294,967,295 bytes"),
    "a long name": (one_tensor((192,), (1,), name="x" * 3_000_000), r"x\.\.\. \(length 3,000,000"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.usefixtures("little_memory")
def test_what_a_checkpoint_claims_is_checked_first(kind: str, tmp_path: Path) -> None:
    data, match = HOSTILE[kind]
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    assert len(refused(path, match)) < 1_500


def test_nobody_is_advised_to_run_what_is_in_a_file(tmp_path: Path) -> None:
    scripted = tmp_path / "scripted.pt"
    with zipfile.ZipFile(scripted, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version", "code/a.py"):
            archive.writestr(f"a/{name}", b"\x80\x02}.")
    older = tmp_path / "older.pt"
    with tarfile.open(older, "w") as archive_file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive_file.addfile(tarfile.TarInfo(name))
    for path in (scripted, older, write(tmp_path / "a.pt", Payload(str(tmp_path / "marker")))):
        text = refused(path, "Nothing in it was run|cannot be read")
        assert not re.search("weights_only|trust|allowlist|safe_globals", text)


# -- The card --------------------------------------------------------------------------------------

PUBLISHED = {
    # Vox1-O: EER in percent and minDCF, pre-trained and fine-tuned.
    "ecapa_tdnn": ((1.728, 0.177), (0.675, 0.053)),
    "resnet34": ((1.728, 0.176), (0.553, 0.056)),
    "resnet100": ((1.132, 0.113), (0.457, 0.049)),
    "resnet293": ((0.707, 0.075), (0.228, 0.013)),
}


def test_published_results_are_those_of_the_table() -> None:
    result = {
        arch: (released.pretrained, released.finetuned) for arch, released in RELEASED.items()
    }
    assert result == PUBLISHED


@pytest.fixture(scope="module")
def ecapa(tmp_path_factory: pytest.TempPathFactory) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    return convert(write(tmp_path_factory.mktemp("ecapa") / "a.pt", state()), arch=ARCH)


@pytest.mark.parametrize(
    ("checkpoint", "stage"),
    [("model_pt.pt", "pretrained"), ("model_ft.pt", "finetuned"), ("model.pt", None)],
)
def test_a_folder_for_the_hub(checkpoint: str, stage: str | None, tmp_path: Path) -> None:
    out, path = tmp_path / "out", write(tmp_path / checkpoint, state())
    model, extractor = convert(path, arch=ARCH)
    assert card.save(model, extractor, str(out), arch=ARCH, checkpoint=path) == out
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "\n# ECAPA-TDNN\n" in text
    assert "of 192 dimensions" in text
    assert f"from the checkpoint `{checkpoint}`" in text
    assert "normalization `std`" in text
    assert "1.728 %, 0.177; fine-tuned on VoxCeleb2 0.675 %, 0.053." in text
    assert "library_name: transformers" in text.split("---")[1]
    config = AutoConfig.from_pretrained(out)
    assert config.voxblink2_release == {"arch": ARCH, "stage": stage}
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == ["EcapaTdnn"]
    assert type(AutoModelForAudioXVector.from_pretrained(out)) is type(model)
    assert AutoFeatureExtractor.from_pretrained(out).normalization == "std"


def test_models_of_one_architecture_have_nothing_in_common(tmp_path: Path) -> None:
    first, _ = convert(write(tmp_path / "model_pt.pt", state()), arch=ARCH)
    convert(write(tmp_path / "model_ft.pt", state()), arch=ARCH)
    assert first.config.voxblink2_release["stage"] == "pretrained"
    assert not hasattr(RELEASED[ARCH].config, "voxblink2_release")


@pytest.mark.parametrize("arch", RELEASED)
def test_every_card_has_its_own_figures(arch: str) -> None:
    extractor = ARCHITECTURES[arch].extractor()
    text = card._card(arch, small_model("basic-gsp"), extractor, "model_pt.pt")
    (first, second), (third, fourth) = PUBLISHED[arch]
    assert f"{first:.3f} %, {second:.3f}; fine-tuned on VoxCeleb2 {third:.3f}" in text
    assert f" %, {fourth:.3f}.\nThey are" in text
    assert f"# {RELEASED[arch].title}\n" in text
    assert f"normalization `{RELEASED[arch].normalization}`" in text


def test_a_folder_with_something_in_it_is_left_alone(
    ecapa: tuple[SpeakerModel, SpeakerFeatureExtractor], tmp_path: Path
) -> None:
    full, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    (full / ".hidden").touch()
    file.write_text("mine")
    for out in (full, file):
        with pytest.raises(ModelError, match=r"exists and is not empty\. Name another folder"):
            card.save(*ecapa, out, arch=ARCH, checkpoint="model_pt.pt")
    assert [path.name for path in full.iterdir()] == [".hidden"]
    assert file.read_text() == "mine"
    card.save(*ecapa, empty, arch=ARCH, checkpoint="model_pt.pt")
    assert (empty / "model.safetensors").is_file()
