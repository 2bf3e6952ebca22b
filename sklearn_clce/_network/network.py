"""The network: backbone and head in one forward pass."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from .._head import BatchInvariantLinear, Head, HeadConfig
from .._targets import SINGLE_LABEL, Outputs
from ..backbones import BackboneConfig, Config, Normalize, part_widths, run_backbone
from .low_rank import is_adapted, merge


class Network(nn.Module):
    """Images or features to logits and embeddings.

    A batch of images runs through the backbone; a batch of shape (n, n_features)
    already holds features.
    """

    def __init__(
        self,
        backbone: nn.Module | None,
        config: Config | None,
        *,
        n_features: int,
        n_classes: int,
        head: HeadConfig,
        outputs: Outputs = SINGLE_LABEL,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.pretrained = pretrained
        self.backbone = backbone
        self.config = config
        self.normalize: nn.Module = nn.Identity()  # of features, and where each of several does it
        if isinstance(config, BackboneConfig):
            self.normalize = Normalize(config.mean, config.std)
        self.head = Head(part_widths(backbone, n_features), n_classes, head)
        self.update_trainable_flags()

    def update_trainable_flags(self) -> None:
        """Note whether none or all of the backbone is trainable: every step asks for it."""
        backbone = self.backbone
        self.frozen = backbone is None or not is_trainable(backbone)
        self.trains_whole = backbone is not None and _is_whole_trainable(backbone)
        self.lora = backbone is not None and is_adapted(backbone)
        if self.frozen and backbone is not None:
            backbone.eval()

    @property
    def finetunes_pretrained(self) -> bool:
        """Whether a pretrained backbone is trainable."""
        return self.pretrained and not self.frozen

    def train(self, mode: bool = True) -> Network:
        """Set training mode, except for the frozen parts of the backbone."""
        self.training = mode
        for child in self.children():
            if not (self.frozen and child is self.backbone):  # that stays in evaluation mode
                child.train(mode)
        if mode and self.backbone is not None and not self.frozen and not self.trains_whole:
            _evaluate_frozen_parts(self.backbone)
        if mode and self.backbone is not None and self.finetunes_pretrained:
            _keep_batch_statistics(self.backbone)
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """Copy all that training can change to the CPU: everything but a frozen backbone."""
        state = {}
        for part, child in self.named_children():
            if not (part == "backbone" and self.frozen):
                for name, value in child.state_dict(prefix=f"{part}.").items():
                    state[name] = value.detach().to("cpu", copy=True)
        return state

    def merged(self) -> Network:
        """Return the network with plain layers only, a copy if it has others."""
        if self.backbone is None or not is_adapted(self.backbone):
            return self
        copied = copy.deepcopy(self)
        assert copied.backbone is not None
        merge(copied.backbone)
        return copied

    def portable(self) -> Network:
        """Return a copy for inference by other runtimes: on the CPU, nothing in float64."""
        copied = copy.deepcopy(self.merged()).cpu().eval().requires_grad_(False)
        for layer in copied.modules():
            if isinstance(layer, BatchInvariantLinear):
                layer.exact = False
        backbone: Any = copied.backbone
        if hasattr(backbone, "set_grad_checkpointing"):
            backbone.set_grad_checkpointing(False)
        return copied

    def features(self, batch: Tensor) -> Tensor:
        """Run the backbone on images (n, C, H, W) in 0..1; features (n, n_features) pass."""
        if batch.ndim == 2 or self.backbone is None:
            return batch
        return run_backbone(self.backbone, self.normalize(batch))

    def classifier_inputs(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the classifier's inputs, and embeddings.

        Shapes: batch (n, C, H, W) -> inputs (n, n_inputs), embeddings (n, n_embedding).
        """
        return self.head.inputs(self.features(batch))

    def novelty_scores(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return how much samples are like the training samples; higher is more like them.

        Shapes: inputs (n, n_inputs), logits (n, n_classes) -> (n,).
        """
        return self.head.novelty_scores(inputs, logits, self.outputs.energy)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and embeddings in one pass.

        Shapes: batch (n, C, H, W) -> logits (n, n_classes), embeddings (n, n_embedding).
        """
        return self.head(self.features(batch))


def is_trainable(module: nn.Module) -> bool:
    """Return whether any parameter of a module requires gradients."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _is_whole_trainable(module: nn.Module) -> bool:
    return all(parameter.requires_grad for parameter in module.parameters())


def _evaluate_frozen_parts(module: nn.Module) -> None:
    """Put frozen parts into evaluation mode: no batch statistics, no dropout."""
    if not is_trainable(module):
        module.eval()
        return
    for child in module.children():
        if next(child.parameters(), None) is not None:
            _evaluate_frozen_parts(child)


def _keep_batch_statistics(backbone: nn.Module) -> None:
    """Normalise with the statistics of pretraining: those of a few images differ."""
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
