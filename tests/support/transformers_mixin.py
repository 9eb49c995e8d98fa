"""The tests that transformers has for all models, for small models of ours.

Run by tests/models/test_transformers_mixin.py in a process of its own, whose ``tests`` is the
folder of that name in the sources of transformers (``make .transformers-tests/.ready``).
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
import unittest
from typing import Any

import pytest
import torch

from voxblink2_lib.models import EcapaTdnn, EcapaTdnnConfig, SpeakerResNet, SpeakerResNetConfig

# Imported by the file with the mixin, and not among the sources: tests of generated text, and of
# export, which tests/models/test_expected_of_transformers.py has.
for _name, _mixin in {
    "tests.exporters.test_export": "ExportTesterMixin",
    "tests.generation.test_utils": "GenerationTesterMixin",
}.items():
    _module = types.ModuleType(_name)
    setattr(_module, _mixin, type(_mixin, (), {}))
    sys.modules[_name.rpartition(".")[0]] = types.ModuleType(_name.rpartition(".")[0])
    sys.modules[_name] = _module

_ModelTesterMixin: Any = object  # where the sources are not, as where doctests are looked for
with contextlib.suppress(ModuleNotFoundError):
    _ModelTesterMixin = importlib.import_module("tests.test_modeling_common").ModelTesterMixin

BATCH, FRAMES, BANDS, SPEAKERS = 4, 30, 20, 5


class _Inputs:
    """What the mixin asks of a model: a configuration, a batch, and some sizes of its output."""

    batch_size, is_training = BATCH, True
    # The last two dimensions of hidden states; ours have frames last.
    hidden_size = FRAMES

    def __init__(self, parent: Any) -> None:
        config = parent.make_config()
        is_ecapa = isinstance(config, EcapaTdnnConfig)
        self.seq_length = config.channels if is_ecapa else BANDS
        self.expected_num_hidden_layers = 1 + len(config.dilations if is_ecapa else config.depths)
        self.num_hidden_layers = self.expected_num_hidden_layers - 1
        self._config = config

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        mask = torch.ones(BATCH, FRAMES, dtype=torch.long)
        return self._config, {
            "input_features": torch.randn(BATCH, FRAMES, BANDS),
            "attention_mask": mask,
        }

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class _Common(_ModelTesterMixin):  # type: ignore[misc]  # it has no types
    test_resize_embeddings = False
    has_attentions = False

    def setUp(self) -> None:
        self.model_tester = _Inputs(self)

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_for_class(inputs_dict, model_class)
        if return_labels:  # the mixin gives them to classes that it knows by name
            inputs["labels"] = torch.arange(BATCH) % SPEAKERS
        return inputs

    @pytest.mark.skip("does not apply: the first layer takes frames; there is no nn.Embedding")
    def test_model_get_set_embeddings(self) -> None: ...


class TestEcapaTdnn(_Common, unittest.TestCase):
    all_model_classes = (EcapaTdnn,)

    def make_config(self) -> EcapaTdnnConfig:
        return EcapaTdnnConfig(
            num_mel_bins=BANDS,
            channels=16,
            res2_scale=2,
            dilations=(2, 3),
            squeeze_channels=8,
            pooled_channels=24,
            attention_channels=8,
            xvector_output_dim=12,
            num_speakers=SPEAKERS,
        )


class TestSpeakerResNet(_Common, unittest.TestCase):
    all_model_classes = (SpeakerResNet,)

    def make_config(self) -> SpeakerResNetConfig:
        return SpeakerResNetConfig(
            num_mel_bins=BANDS,
            depths=(1, 1),
            base_channels=4,
            block="simam",
            pooling="asp",
            attention_channels=8,
            xvector_output_dim=12,
            num_speakers=SPEAKERS,
        )
