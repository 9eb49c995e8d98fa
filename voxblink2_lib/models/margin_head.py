"""The margin head: from embeddings to logits of speakers and a loss, only used in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.precision import full_precision

_MIN_SQUARED_SINE = 1e-7


class MarginHead(nn.Module):
    """Additive angular margin softmax (Deng et al., ArcFace, CVPR 2019).

    With ``sub_centers`` above 1, a speaker has several centres, and the nearest one of an embedding
    counts: utterances of somebody else, or of another channel, may have their own (Deng et al.,
    Sub-center ArcFace, ECCV 2020). With ``top_k``, the other speakers that an embedding is most
    like come nearer by an angle of their own, so that training looks at them most (Zhao et al.,
    Multi-query multi-head attention pooling and inter-top-k penalty, ICASSP 2022, which is the
    SpeakIn system of VoxSRC 2021).

    Everything is computed in float32, whatever autocast is on around it: in bfloat16 the gradient
    of the embeddings is off by tens of per cent.

    Args:
        dim: number of dimensions of an embedding.
        speakers: number of classes.
        margin: in radians; may be changed between steps, to warm it up.
        scale: factor of the cosines.
        sub_centers: number of centres of a speaker. Those of speaker i are the rows of ``weight``
            from ``i * sub_centers`` on.
        top_k: number of other speakers that are penalized; 0 for none.
        top_k_penalty: in radians; may be changed between steps.

    Raises:
        ModelError: a number is not allowed.
    """

    def __init__(
        self,
        dim: int,
        speakers: int,
        *,
        margin: float,
        scale: float,
        sub_centers: int = 1,
        top_k: int = 0,
        top_k_penalty: float = 0.06,
    ) -> None:
        super().__init__()
        _check_range("head_sub_centers", sub_centers, 1, math.inf)
        _check_range("head_top_k", top_k, 0, speakers - 1)
        _check_range("head_top_k_penalty", top_k_penalty, 0, math.pi / 2)
        self.weight = nn.Parameter(torch.empty(speakers * sub_centers, dim))
        nn.init.xavier_normal_(self.weight)
        self.margin = margin
        self.scale = scale
        self.sub_centers = sub_centers
        self.top_k = top_k
        self.top_k_penalty = top_k_penalty

    def forward(self, embeddings: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return scaled cosines, shape (batch, speakers), and with labels the loss."""
        with full_precision(embeddings):
            cosine = self._cosines(embeddings.float())
            if labels is None:
                return self.scale * cosine, None
            logits = self.scale * self._with_margins(cosine, labels[:, None])
            return self.scale * cosine, functional.cross_entropy(logits, labels)

    def _cosines(self, embeddings: Tensor) -> Tensor:
        """Return the cosine of the nearest centre of each speaker, shape (batch, speakers)."""
        unit = functional.normalize(embeddings)
        cosine = functional.linear(unit, functional.normalize(self.weight.float()))
        if self.sub_centers == 1:
            return cosine
        batch, centres = cosine.shape
        return cosine.reshape(batch, centres // self.sub_centers, self.sub_centers).amax(dim=2)

    def _with_margins(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """Return the cosines after the margin of the label and the penalty of its rivals."""
        target = cosine.gather(1, labels)
        # Beyond pi the cosine would rise again; there the penalty is linear.
        linear = target - self.margin * math.sin(self.margin)
        is_within = target > -math.cos(self.margin)
        shifted = torch.where(is_within, _turned(target, self.margin), linear)
        if self.top_k and self.top_k_penalty:
            others = cosine.detach().scatter(1, labels, -math.inf)
            rivals = others.topk(self.top_k, dim=1).indices
            nearer = _turned(cosine.gather(1, rivals), -self.top_k_penalty)
            cosine = cosine.scatter(1, rivals, nearer)
        return cosine.scatter(1, labels, shifted)


def _turned(cosine: Tensor, angle: float) -> Tensor:
    """Return the cosine of an angle that is larger by some radians: cos(t + a)."""
    # The root has no slope at 0, where an embedding equals its weight.
    sine = (1 - cosine.square()).clamp(min=_MIN_SQUARED_SINE).sqrt()
    return cosine * math.cos(angle) - sine * math.sin(angle)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ModelError(
            f"{name} is {value:g}; allowed is {least:g} or more"
            + (f", up to {most:g}." if math.isfinite(most) else ".")
        )
