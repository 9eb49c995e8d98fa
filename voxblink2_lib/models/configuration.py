"""Configurations of the speaker models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from transformers import PretrainedConfig

from voxblink2_lib.errors import ModelError

Block = Literal["basic", "bottleneck", "simam"]
Pooling = Literal["gsp", "tsp", "asp"]
BLOCKS: tuple[str, ...] = get_args(Block)
POOLINGS: tuple[str, ...] = get_args(Pooling)


class SpeakerConfig(PretrainedConfig):
    """Options of all speaker models.

    Args:
        kwargs: further options of ``PretrainedConfig``.

    Attributes:
        num_mel_bins: number of bands of the log-mel input.
        xvector_output_dim: number of dimensions of an embedding.
        num_speakers: number of classes of the margin head; 0 for no head. ``id2label`` may name
            them.
        margin: additive angular margin in radians (Deng et al., ArcFace, CVPR 2019).
        logit_scale: factor of the cosines.
        head_sub_centers: number of centres of a speaker in the head (Deng et al., Sub-center
            ArcFace, ECCV 2020).
        head_top_k: number of other speakers that the head penalizes for each utterance; 0 for none
            (Zhao et al., inter-top-k penalty, ICASSP 2022).
        head_top_k_penalty: their penalty in radians.
    """

    def __init__(
        self,
        *,
        num_mel_bins: int = 80,
        xvector_output_dim: int = 256,
        num_speakers: int = 0,
        margin: float = 0.2,
        logit_scale: float = 32.0,
        head_sub_centers: int = 1,
        head_top_k: int = 0,
        head_top_k_penalty: float = 0.06,
        **kwargs: Any,
    ) -> None:
        self.num_mel_bins = num_mel_bins
        self.xvector_output_dim = xvector_output_dim
        self.num_speakers = num_speakers
        self.margin = margin
        self.logit_scale = logit_scale
        self.head_sub_centers = head_sub_centers
        self.head_top_k = head_top_k
        self.head_top_k_penalty = head_top_k_penalty
        super().__init__(**kwargs)


class EcapaTdnnConfig(SpeakerConfig):
    """ECAPA-TDNN (Desplanques et al., Interspeech 2020).

    Args:
        xvector_output_dim: number of dimensions of an embedding.
        kwargs: options of :class:`SpeakerConfig`.

    Attributes:
        channels: channels of the convolutions.
        res2_scale: number of parts of a Res2 block.
        dilations: dilation of each block.
        squeeze_channels: channels inside the squeeze-and-excitation gates.
        pooled_channels: channels of the layer before pooling.
        attention_channels: channels inside the attention of the pooling.
        sum_inputs: each block is fed the sum of the stem and the blocks before it; otherwise the
            output of the block before.
        attention_norm: ReLU and batch normalization inside the attention of the pooling.
        embedding_norm: batch normalization of the embedding.
        variance_floor: lower bound of variances in the pooling.
    """

    model_type = "voxblink2-ecapa-tdnn"

    def __init__(
        self,
        *,
        channels: int = 1024,
        res2_scale: int = 8,
        dilations: Sequence[int] = (2, 3, 4),
        squeeze_channels: int = 128,
        pooled_channels: int = 1536,
        attention_channels: int = 256,
        sum_inputs: bool = True,
        attention_norm: bool = True,
        embedding_norm: bool = True,
        variance_floor: float = 1e-4,
        xvector_output_dim: int = 192,
        **kwargs: Any,
    ) -> None:
        self.channels = channels
        self.res2_scale = res2_scale
        self.dilations = list(dilations)
        self.squeeze_channels = squeeze_channels
        self.pooled_channels = pooled_channels
        self.attention_channels = attention_channels
        self.sum_inputs = sum_inputs
        self.attention_norm = attention_norm
        self.embedding_norm = embedding_norm
        self.variance_floor = variance_floor
        super().__init__(xvector_output_dim=xvector_output_dim, **kwargs)


class SpeakerResNetConfig(SpeakerConfig):
    """Residual networks over log-mel spectrograms.

    Args:
        kwargs: options of :class:`SpeakerConfig`.

    Attributes:
        depths: number of blocks of each stage.
        block: ``"basic"`` and ``"bottleneck"`` (He et al., CVPR 2016), or ``"simam"``: basic with
            a parameter-free gate (Yang et al., ICML 2021).
        pooling: ``"gsp"``: mean and standard deviation over time and frequency; ``"tsp"``: over
            time; ``"asp"``: over time, weighted by attention.
        base_channels: channels of the first stage; each next one has twice as many.
        attention_channels: channels inside the attention of ``"asp"``.
    """

    model_type = "voxblink2-resnet"

    def __init__(
        self,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        block: Block = "basic",
        pooling: Pooling = "gsp",
        base_channels: int = 64,
        attention_channels: int = 128,
        **kwargs: Any,
    ) -> None:
        if block not in BLOCKS:
            raise ModelError(f"block {block!r} is unknown. Available: {', '.join(BLOCKS)}.")
        if pooling not in POOLINGS:
            raise ModelError(f"pooling {pooling!r} is unknown. Available: {', '.join(POOLINGS)}.")
        self.depths = list(depths)
        self.block = block
        self.pooling = pooling
        self.base_channels = base_channels
        self.attention_channels = attention_channels
        super().__init__(**kwargs)
