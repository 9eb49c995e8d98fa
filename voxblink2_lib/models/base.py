"""Base class of the speaker models, a model of ``transformers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import XVectorOutput

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.configuration import SpeakerConfig
from voxblink2_lib.models.margin_head import MarginHead
from voxblink2_lib.models.standalone import is_of_library, place_in_map, write_modules

CARD = "README.md"
_AUTO_MODELS = ("AutoModel", "AutoModelForAudioXVector", "AutoModelForAudioClassification")
_HUB_OPTIONS = {
    *("commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags"),
}
_SHOWN_ROWS = 8


class SpeakerModel(PreTrainedModel):
    """Maps log-mel frames to an embedding, and with a margin head to a loss.

    Args:
        config: sizes of the network and of its head.
    """

    config_class = SpeakerConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_missing = [r"num_batches_tracked$"]  # noqa: RUF012  # transformers' way

    def __init__(self, config: SpeakerConfig) -> None:
        if config.num_speakers not in {0, config.num_labels}:
            config.num_labels = config.num_speakers  # gives the classes new names
        super().__init__(config)
        self.head = (
            MarginHead(
                config.xvector_output_dim,
                config.num_speakers,
                margin=config.margin,
                scale=config.logit_scale,
                sub_centers=config.head_sub_centers,
                top_k=config.head_top_k,
                top_k_penalty=config.head_top_k_penalty,
            )
            if config.num_speakers
            else None
        )

    def post_init(self) -> None:
        """Set initial weights; ``transformers`` has no type hints for it."""
        super().post_init()  # type: ignore[no-untyped-call]

    def save_pretrained(  # type: ignore[override]  # no positional options
        self, save_directory: str | Path, **options: Any
    ) -> None:
        """Save weights and configuration, and the modules that load them without this library.

        Args:
            save_directory: the folder.
            options: of ``PreTrainedModel.save_pretrained``.
        """
        if options.pop("push_to_hub", False):
            repository = options.pop("repo_id", Path(save_directory).name)
            of_hub = {name: options.pop(name) for name in _HUB_OPTIONS & options.keys()}
            self.save_pretrained(save_directory, **options)
            self.push_to_hub(repository, **of_hub)
            return
        if is_of_library(type(self)):
            model = place_in_map(type(self))
            self.config.auto_map = {"AutoConfig": place_in_map(type(self.config))}
            self.config.auto_map |= dict.fromkeys(_AUTO_MODELS, model)
            write_modules(save_directory, [type(self), type(self.config)])
        super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]  # no *args
        """Upload to the Hub, with the card of the folder that the model was loaded from, if any.

        Args:
            repo_id: as ``USER/NAME``; a card that is there already stays.
            options: of ``PreTrainedModel.push_to_hub``.
        """
        folder = self.name_or_path
        card = Path(folder, CARD) if folder else None
        if card is not None and card.is_file():
            api = HfApi(token=options.get("token"))
            api.create_repo(repo_id, private=options.get("private"), exist_ok=True)
            if not api.file_exists(repo_id, CARD):
                api.upload_file(path_or_fileobj=card, path_in_repo=CARD, repo_id=repo_id)
        pushed: Any = super().push_to_hub
        return str(pushed(repo_id, **options))

    def get_input_embeddings(self) -> nn.Module:
        """Return the first layer, which takes the frames."""
        raise NotImplementedError

    def embed(
        self, features: Tensor, mask: Tensor | None, states: list[Tensor] | None = None
    ) -> Tensor:
        """Return embeddings, shape (batch, dimensions).

        Args:
            features: shape (batch, bands, frames), zero at padding.
            mask: shape (batch, frames), 1 at valid frames, or ``None`` if all are valid.
            states: takes the output of the first layer, and that of each block or stage.
        """
        raise NotImplementedError

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> XVectorOutput | tuple[Tensor, ...]:
        """Return embeddings, and with a head logits and loss.

        Args:
            input_features: output of the feature extractor, shape (batch, frames, bands).
            attention_mask: 1 at valid frames, shape (batch, frames).
            labels: class indices of the speakers, shape (batch,).
            output_hidden_states: return the output of the first layer, and of each block (ECAPA,
                shape (batch, channels, frames)) or stage (residual networks, shape
                (batch, channels, bands, frames)), too; as in the configuration by default.
            return_dict: return an ``XVectorOutput``, not a tuple; as in the configuration by
                default.

        Raises:
            ModelError: there are labels, but the model has no head; a label is no class of it; an
                utterance has no valid frame; or a shape is another.
        """
        self._check_input(input_features, attention_mask)
        if labels is not None:
            self._check_labels(labels)
        features = input_features.transpose(1, 2).to(self.dtype)
        mask = None if attention_mask is None else attention_mask.to(features.dtype)
        if mask is not None:
            features = features * mask[:, None]
        with_states = _chosen(output_hidden_states, self.config.output_hidden_states)
        states: list[Tensor] | None = [] if with_states else None
        embeddings = self.embed(features, mask, states)
        logits = loss = None
        if self.head is not None:
            logits, loss = self.head(embeddings, labels)
        output = XVectorOutput(
            loss=loss,
            logits=logits,
            embeddings=embeddings,
            hidden_states=None if states is None else tuple(states),
        )
        return output if _chosen(return_dict, self.config.return_dict) else output.to_tuple()

    def _check_input(self, features: Tensor, mask: Tensor | None) -> None:
        bands = self.config.num_mel_bins
        if features.ndim != 3 or features.shape[2] != bands:
            raise ModelError(
                f"input_features has the shape {tuple(features.shape)}; expected is (batch, "
                f"frames, {bands}), as the feature extractor gives them."
            )
        if mask is None:
            return
        if mask.shape != features.shape[:2]:
            raise ModelError(
                f"attention_mask has the shape {tuple(mask.shape)}; expected is "
                f"{tuple(features.shape[:2])}: a number for each frame of input_features."
            )
        _refuse_rows(
            mask.any(dim=1),
            "attention_mask is 0 at every frame of {}: an utterance without frames has no "
            "embedding. Leave it out.",
        )

    def _check_labels(self, labels: Tensor) -> None:
        if self.head is None:
            raise ModelError(
                "This model has no margin head, so it cannot compute a loss. Load it with "
                "num_speakers=N, the number of speakers of the labels."
            )
        speakers = self.config.num_speakers
        _refuse_rows(
            (labels >= 0) & (labels < speakers),
            f"labels has a number that is no class, at {{}}. Allowed are 0 to {speakers - 1}: "
            "every utterance has a speaker, none is left out by -100 or any other number.",
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The functions of transformers leave alone what was loaded. Those of PyTorch do not: if a
        # checkpoint has no num_batches_tracked, they would reset the statistics that it has.
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            initialization.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear | MarginHead):
            initialization.xavier_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name in ("running_mean", "num_batches_tracked"):
                initialization.zeros_(module.get_buffer(name))
            for ones in (module.weight, module.get_buffer("running_var")):
                initialization.ones_(ones)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            initialization.zeros_(bias)


def _chosen(argument: bool | None, configured: bool | None) -> bool:
    return bool(configured if argument is None else argument)


def _refuse_rows(is_allowed: Tensor, message: str) -> None:
    """Refuse rows of a batch that are not allowed.

    On an accelerator the words come with the error that PyTorch raises at the next wait for it: to
    wait for it here would slow down each step.

    Args:
        is_allowed: shape (batch,).
        message: with ``{}`` where the rows are named.

    Raises:
        ModelError: there are such rows.
    """
    if is_allowed.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(is_allowed.all(), message.format("a row of the batch"))
    elif not bool(is_allowed.all()):
        rows = (~is_allowed).nonzero().flatten().tolist()
        shown = ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", ..." * (len(rows) > _SHOWN_ROWS))
        raise ModelError(message.format(f"row{'s' * (len(rows) > 1)} {shown} of the batch"))
