"""The skorch net: the loss of two outputs, its loaders, its pickle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.utils.data import Dataset


def already_a_batch(batch: Any) -> Any:
    """Collate nothing: the datasets of :mod:`sklearn_clce.data` give whole batches."""
    return batch


class CLCENet(NeuralNet):
    """skorch's training loop for a module that returns logits and embeddings.

    Batches are ``(X, (labels, weights))``. The module is handed in as an instance
    and owned by the net.
    """

    def get_loss(self, y_pred: Any, y_true: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Hand both outputs, labels and row weights to the criterion."""
        logits, embeddings = y_pred
        labels, weights = (target.to(logits.device, non_blocking=True) for target in y_true)
        return self.criterion_(logits, embeddings, labels, weights)

    def get_all_learnable_params(self) -> Any:
        """Leave out what is frozen."""
        return (
            (name, parameter)
            for name, parameter in super().get_all_learnable_params()
            if parameter.requires_grad
        )

    def infer_batches(self, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """Run the module over a dataset, in order.

        Parameters
        ----------
        dataset : Dataset
            Images or features.

        Returns
        -------
        logits, embeddings : Tensor of shape (n, ...)
            On the CPU.
        """
        return self.forward(dataset, training=False, device="cpu")

    def compute_features(self, dataset: Dataset) -> Tensor:
        """Run the backbone alone over a dataset, in order.

        Parameters
        ----------
        dataset : Dataset
            Images.

        Returns
        -------
        Tensor of shape (n, n_features)
            Features, on the CPU.
        """
        self.module_.eval()
        with torch.no_grad():
            return torch.cat(
                [
                    self.module_.features(images.to(self.device)).cpu()
                    for images, _ in self.get_iterator(dataset, training=False)
                ]
            )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the module once: skorch also keeps the instance it was made from."""
        module, self.module = self.module, None
        try:
            return super().__getstate__()
        finally:
            self.module = module

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Point both names at the one module again."""
        super().__setstate__(state)
        self.module = getattr(self, "module_", None)


def net_options(
    params: Any, module: nn.Module, criterion: nn.Module, *, seed: int, device: torch.device
) -> dict[str, Any]:
    """Turn an estimator's parameters into skorch's.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.
    module, criterion : nn.Module
        What trains, and on what.
    seed : int
        Seed of the order of the training rows.
    device : torch.device
        Where to compute.

    Returns
    -------
    dict
        Keyword arguments for :class:`CLCENet`.

    Raises
    ------
    ValueError
        If ``skorch_params`` sets what the estimator sets itself.
    """
    extra = params.skorch_params or {}
    taken = [name for name in extra if name.split("__")[0] in ("module", "criterion")]
    if taken:
        raise ValueError(
            f"skorch_params sets {', '.join(taken)}: module and criterion are made from the "
            "estimator's own parameters, such as backbone and weight"
        )
    options: dict[str, Any] = {
        "module": module,
        "criterion": criterion,
        "optimizer": torch.optim.AdamW,
        "lr": params.learning_rate,
        "max_epochs": params.max_epochs,
        "batch_size": params.batch_size,
        "train_split": None,
        "callbacks": params.callbacks,
        "device": device,
        "verbose": params.verbose,
        "iterator_train__shuffle": True,
    }
    for offset, loader in enumerate(["iterator_train", "iterator_valid"]):
        options |= {
            f"{loader}__collate_fn": already_a_batch,
            f"{loader}__generator": torch.Generator().manual_seed(seed + offset),
            f"{loader}__num_workers": params.num_workers,
        }
    if "optimizer" not in extra:
        options["optimizer__weight_decay"] = params.weight_decay
    return options | extra


@contextmanager
def seeded_torch(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and put them back afterwards.

    Weight initialisation and dropout know no other generators.
    """
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
