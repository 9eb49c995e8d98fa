"""The released speaker models, as models of ``transformers``.

Embeddings of a converted model:

    import voxblink2_lib.models  # registers them with transformers
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    model = AutoModelForAudioXVector.from_pretrained("resnet34")  # written by `voxblink2 convert`
    extractor = AutoFeatureExtractor.from_pretrained("resnet34")
    model(**extractor(waveforms, sampling_rate=16_000)).embeddings
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioXVector,
)

from voxblink2_lib.models.architectures import ARCHITECTURES, KINDS, RELEASED
from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.configuration import EcapaTdnnConfig, SpeakerConfig, SpeakerResNetConfig
from voxblink2_lib.models.conversion import convert
from voxblink2_lib.models.ecapa import EcapaTdnn
from voxblink2_lib.models.features import SpeakerFeatureExtractor, log_mel
from voxblink2_lib.models.resnet import SpeakerResNet

__all__ = [
    "ARCHITECTURES",
    "RELEASED",
    "EcapaTdnn",
    "EcapaTdnnConfig",
    "SpeakerConfig",
    "SpeakerFeatureExtractor",
    "SpeakerModel",
    "SpeakerResNet",
    "SpeakerResNetConfig",
    "convert",
    "log_mel",
]

for _config, _model in KINDS.items():
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForAudioXVector.register(_config, _model, exist_ok=True)
    AutoModelForAudioClassification.register(_config, _model, exist_ok=True)
    AutoFeatureExtractor.register(_config, SpeakerFeatureExtractor, exist_ok=True)
