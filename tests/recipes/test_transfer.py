"""A stage takes over the network, and of the head what is the same person at the same speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support import tiny_models

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import SpeakerModel
from voxblink2_lib.recipes.checkpoints import RunFolder
from voxblink2_lib.recipes.training import make_model
from voxblink2_lib.recipes.transfer import Origin, corpus_name, start_from
from voxblink2_lib.training import SpeakerLabels

BEFORE = SpeakerLabels(("id00001", "id00002", "id00004"), (1.0, 0.9), "VoxCeleb2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "a")
    folder.begin({"stage": "pretrain"}, BEFORE)
    network = make_model("small", classes=BEFORE.classes, seed=1)
    with torch.no_grad():
        for buffer in network.model.buffers():
            buffer.add_(3)
    folder.save_model(*network)
    return folder.path


def head(model: SpeakerModel) -> torch.Tensor:
    assert model.head is not None
    return model.head.weight.detach()


def test_rows_of_the_head_go_with_person_and_speed(run: Path) -> None:
    now = SpeakerLabels(("id00002", "id00003", "id00004"), (0.9, 1.1), "voxceleb2")
    begun = start_from(Origin.at(run), now, seed=5)
    before = head(make_model("small", classes=BEFORE.classes, seed=1).model)
    after = head(begun.model)
    # Classes before: 1, 2, 4 at speed 1.0, then at 0.9. Now: 2, 3, 4 at 0.9, then at 1.1.
    assert torch.equal(after[[0, 2]], before[[4, 5]])
    assert begun.kept_classes == 2
    assert after.shape == (6, 64)
    assert not any(torch.equal(after[row], old) for row in (1, 3, 4, 5) for old in before)
    assert torch.equal(after, head(start_from(Origin.at(run), now, seed=5).model))
    assert not torch.equal(after, head(start_from(Origin.at(run), now, seed=6).model))


@pytest.mark.parametrize("corpus", ["VoxCeleb1", "VoxBlink1"])
def test_equal_ids_of_other_corpora_are_other_people(run: Path, corpus: str) -> None:
    labels = SpeakerLabels(BEFORE.speakers, BEFORE.speeds, corpus)
    begun = start_from(Origin.at(run), labels, seed=5)
    assert begun.kept_classes == 0
    before = head(make_model("small", classes=BEFORE.classes, seed=1).model)
    assert not torch.equal(head(begun.model), before)


def test_labels_that_name_no_corpus_are_of_nobody_but_voxblink2(run: Path, tmp_path: Path) -> None:
    named = SpeakerLabels(BEFORE.speakers, BEFORE.speeds, "VoxCeleb2")
    unnamed = SpeakerLabels(BEFORE.speakers, BEFORE.speeds)
    assert (Origin(run, unnamed).class_rows(named) == -1).all()
    assert (Origin(run, None).class_rows(named) == -1).all()
    six = SpeakerLabels(("id000001", "id000002"))
    six.save(tmp_path / "labels.json")
    assert "corpus" not in json.loads((tmp_path / "labels.json").read_text())
    origin = Origin(run, SpeakerLabels.load(tmp_path / "labels.json"))
    now = SpeakerLabels(("id000002", "id000003"), corpus="VoxBlink2")
    assert origin.class_rows(now).tolist() == [1, -1]


def test_the_network_is_the_same_with_its_statistics(run: Path) -> None:
    labels = SpeakerLabels(("id00009", "id00010"), corpus="VoxCeleb2")
    model = start_from(Origin.at(run / "model"), labels, seed=5).model
    before = make_model("small", classes=BEFORE.classes, seed=1).model.state_dict()
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name in before.keys() - {"head.weight"}:
        is_buffer = name in dict(model.named_buffers())
        assert torch.equal(after[name], before[name] + 3 if is_buffer else before[name]), name
    assert model.config.num_speakers == 2
    assert model.config.num_labels == 2


def test_options_of_the_head_are_those_of_the_new_stage(run: Path) -> None:
    begun = start_from(Origin.at(run), BEFORE, seed=5, head={"margin": 0.5})
    assert begun.model.config.margin == 0.5
    assert begun.kept_classes == 6


def test_a_model_without_head_or_labels_gets_a_head(tmp_path: Path) -> None:
    folder = Path(tiny_models.save_small(tmp_path / "m"))
    origin = Origin.at(folder)
    assert origin.labels is None
    begun = start_from(origin, BEFORE, seed=1)
    assert head(begun.model).shape[0] == BEFORE.classes
    assert begun.kept_classes == 0


def test_an_unfinished_stage_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.begin({"stage": "pretrain"}, BEFORE)
    (folder.path / "checkpoint-00001500").mkdir()
    (folder.path / "checkpoint-00000500").mkdir()
    with pytest.raises(TrainingError, match="unfinished: it stands at step 1,500"):
        Origin.at(folder.path)
    with pytest.raises(TrainingError, match=r"There is no model in .*none. Name the --out of"):
        Origin.at(tmp_path / "none")


def test_what_is_no_speaker_model_of_ours_is_refused(tmp_path: Path) -> None:
    broken, foreign = tmp_path / "broken", tmp_path / "foreign"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"The model in .*broken cannot be loaded"):
        start_from(Origin.at(broken), BEFORE, seed=1)
    tiny_models.save_foreign(foreign, tiny_models.foreign_model("wavlm"), mask=False)
    with pytest.raises(TrainingError, match="of the type WavLMForXVector; expected is"):
        start_from(Origin.at(foreign), BEFORE, seed=1)


def test_ids_of_five_digits_need_the_name_of_their_corpus() -> None:
    assert corpus_name(["id000001"]) == "VoxBlink2"
    assert corpus_name(["id00001"], "VoxCeleb2") == "VoxCeleb2"
    with pytest.raises(TrainingError, match=r"id00001 is an id of .* --corpus VoxCeleb2"):
        corpus_name(["id000001", "id00001"])
