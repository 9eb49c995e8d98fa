"""Write a converted model as a folder for the Hub, with a model card."""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.architectures import ARCHITECTURES
from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.features import SpeakerFeatureExtractor
from voxblink2_lib.published_results import PUBLISHED, WESPEAKER, PublishedResult

_CARD = """\
---
library_name: transformers
tags:
- speaker-recognition
- speaker-verification
- voxblink2
---

# {title}

Speaker embeddings of {dimensions} dimensions, converted from the checkpoint `{checkpoint}`
{origin}.
Input: 16 kHz mono, {front_end}.

```python
import voxblink2_lib.models  # or leave it out, and load with trust_remote_code=True
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
model = AutoModelForAudioXVector.from_pretrained(FOLDER).eval()
model(**extractor(waveforms, sampling_rate=16_000)).embeddings
```

{results}
The weights are their authors' work; their terms apply. Please cite

{papers}
"""

_RESULTS = """\
Published results on Vox1-O {results}.
They are the authors' results, not measured with this copy; compare with
`voxblink2 score sv --model FOLDER ...`.
"""
_ONNX = """
## ONNX

{description}. Batch and samples are free; `lengths` are the numbers of
samples of each waveform without its padding. Silence gives finite numbers that mean nothing.
"""
_VOXBLINK2 = """\
- Y. Lin et al., "VoxBlink2: A 100K+ Speaker Recognition Corpus and the Open-Set
  Speaker-Identification Benchmark", Interspeech 2024."""
_WESPEAKER = """\
- H. Wang et al., "Wespeaker: A Research and Production Oriented Speaker Embedding Learning
  Toolkit", ICASSP 2023."""


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
    card = _card(arch, model, extractor, Path(checkpoint).name)
    (out / "README.md").write_text(card, encoding="utf-8")
    return out


def add_onnx(folder: Path, description: str) -> None:
    """Describe an exported file in the card of a model."""
    card = folder / "README.md"
    card.write_text(card.read_text("utf-8") + _ONNX.format(description=description), "utf-8")


def _card(
    arch: str, model: SpeakerModel, extractor: SpeakerFeatureExtractor, checkpoint: str
) -> str:
    results = _results(arch)
    is_released = arch in PUBLISHED
    return _CARD.format(
        title=ARCHITECTURES[arch].title,
        dimensions=model.config.xvector_output_dim,
        checkpoint=checkpoint,
        origin="that the authors of VoxBlink2 released" if is_released else "of WeSpeaker",
        front_end=(
            f"Kaldi's log-mel frames (`{extractor.window_type}` window)"
            if extractor.window_type
            else f"waveform normalization `{extractor.normalization}`"
        ),
        results=_RESULTS.format(results=results) if results else "",
        papers=_VOXBLINK2 if is_released else f"{_WESPEAKER}\n{_VOXBLINK2}",
    )


def _results(arch: str) -> str:
    if arch in PUBLISHED:
        published = PUBLISHED[arch]
        return (
            "(EER, minDCF at a prior of 0.01): pre-trained on VoxBlink2\n"
            f"{_text(published.pretrained)}; fine-tuned on VoxCeleb2 {_text(published.finetuned)}"
        )
    rows = ";\n".join(
        f"{name}, {' / '.join(f'{eer:.3f}' for eer in eers)} %"
        for name, eers in WESPEAKER[arch].items()
    )
    return f"/ E / H (EER), trained on VoxBlink2:\n{rows}" if rows else ""


def _text(result: PublishedResult) -> str:
    eer = f"{result.eer_percent:.3f} %"
    return eer if result.min_dcf is None else f"{eer}, {result.min_dcf:.3f}"
