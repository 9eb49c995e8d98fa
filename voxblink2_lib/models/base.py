"""Base class of the speaker models, a model of ``transformers``."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import XVectorOutput

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.configuration import SpeakerConfig
from voxblink2_lib.models.layers import MarginHead


class SpeakerModel(PreTrainedModel):
    """Maps log-mel frames to an embedding, and with a margin head to a loss."""

    config_class = SpeakerConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    supports_gradient_checkpointing = True

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__(config)
        self.head = (
            MarginHead(
                config.xvector_output_dim,
                config.num_speakers,
                margin=config.margin,
                scale=config.logit_scale,
            )
            if config.num_speakers
            else None
        )

    def post_init(self) -> None:
        """Set initial weights; ``transformers`` has no type hints for it."""
        super().post_init()  # type: ignore[no-untyped-call]

    def embed(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Return embeddings, shape (batch, dimensions).

        Args:
            features: shape (batch, bands, frames), zero at padding.
            mask: shape (batch, frames), 1 at valid frames, or ``None`` if all are valid.
        """
        raise NotImplementedError

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> XVectorOutput | tuple[Tensor, ...]:
        """Return embeddings, and with a head logits and loss.

        Args:
            input_features: output of the feature extractor, shape (batch, frames, bands).
            attention_mask: 1 at valid frames, shape (batch, frames).
            labels: class indices of the speakers, shape (batch,).
            return_dict: return an ``XVectorOutput``, not a tuple.

        Raises:
            ModelError: there are labels, but the model has no head.
        """
        if labels is not None and self.head is None:
            raise ModelError(
                "This model has no margin head, so it cannot compute a loss. Load it with "
                "num_speakers=N, the number of speakers of the labels."
            )
        features = input_features.transpose(1, 2).to(self.dtype)
        mask = None if attention_mask is None else attention_mask.to(features.dtype)
        if mask is not None:
            features = features * mask[:, None]
        embeddings = self.embed(features, mask)
        logits = loss = None
        if self.head is not None:
            logits, loss = self.head(embeddings, labels)
        output = XVectorOutput(loss=loss, logits=logits, embeddings=embeddings)
        return output if return_dict else output.to_tuple()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, MarginHead):
            nn.init.xavier_normal_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
