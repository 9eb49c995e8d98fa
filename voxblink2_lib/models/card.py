"""Write a converted model as a folder for the Hub, with a model card."""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.conversion import RELEASED, Released
from voxblink2_lib.models.features import SpeakerFeatureExtractor
from voxblink2_lib.published_results import PublishedResult

_CARD = """\
---
library_name: transformers
tags:
- speaker-recognition
- speaker-verification
- voxblink2
---

# {title}

Speaker embeddings of {dimensions} dimensions, converted from the checkpoint `{checkpoint}` that the
authors of VoxBlink2 released. Input: 16 kHz mono, waveform normalization `{normalization}`.

```python
import voxblink2_lib.models  # registers the architecture with transformers
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
model = AutoModelForAudioXVector.from_pretrained(FOLDER).eval()
model(**extractor(waveforms, sampling_rate=16_000)).embeddings
```

Published results on Vox1-O (EER, minDCF at a prior of 0.01): pre-trained on VoxBlink2
{pretrained}; fine-tuned on VoxCeleb2 {finetuned}. They are the authors' results, not measured with
this copy; compare with `voxblink2 score sv --model FOLDER ...`.

The weights are the authors' work; their terms apply. Please cite their paper: Y. Lin et al.,
"VoxBlink2: A 100K+ Speaker Recognition Corpus and the Open-Set Speaker-Identification Benchmark",
Interspeech 2024.
"""


def save(
    model: SpeakerModel,
    extractor: SpeakerFeatureExtractor,
    out: str | Path,
    *,
    arch: str,
    checkpoint: str | Path,
) -> Path:
    """Write model, feature extractor and card into a folder.

    Raises:
        ModelError: the folder exists and is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists and is not empty. Name another folder.")
    model.save_pretrained(out)
    extractor.save_pretrained(out)
    card = _card(RELEASED[arch], Path(checkpoint).name)
    (out / "README.md").write_text(card, encoding="utf-8")
    return out


def _card(released: Released, checkpoint: str) -> str:
    def text(result: PublishedResult) -> str:
        return f"{result.eer_percent:.3f} %, {result.min_dcf:.3f}"

    return _CARD.format(
        title=released.title,
        dimensions=released.config.xvector_output_dim,
        checkpoint=checkpoint,
        normalization=released.normalization,
        pretrained=text(released.pretrained),
        finetuned=text(released.finetuned),
    )
