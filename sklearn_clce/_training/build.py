"""Build what a plan asks for: the network, and the net that trains it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._head import Head
from .._network import (
    Network,
    checkpoint_gradients,
    fixed_parameters,
    is_trainable,
    merge,
    set_trainable,
)
from .._system import gpu_lock, seeded_torch, warn
from .._targets import Target
from ..backbones import (
    Config,
    FrozenBackbone,
    count_features,
    frozen_backbone,
    load_backbone,
)
from ..data import ImageBatches, Images, evaluation_transform
from ..features import FeatureStore, open_store
from .batches import Samples
from .callbacks import default_callbacks
from .history import TrainingHistory
from .inference import frozen_features
from .plan import FitPlan, Passes, is_pretrained, trains_head
from .resume import ResumeState, mix_seed
from .trainer import CLCENet, identity_collate


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone to train, and the frozen one that runs once before training, if one does."""

    module: nn.Module
    config: Config
    frozen: FrozenBackbone | None


def open_backbone(estimator: Any, images: Images, seed: int) -> LoadedBackbone:
    """Load the backbone that an estimator names, or copy the one that it holds."""
    backbone = estimator.backbone
    settings: dict[str, Any] = {
        "pretrained": estimator.pretrained,
        "image_size": estimator.image_size,
        "n_channels": images.n_channels,
    }
    is_frozen = isinstance(backbone, nn.Module) and not is_trainable(backbone)
    is_head = trains_head(estimator)
    with seeded_torch(seed):
        if is_head or is_pretrained(estimator) or is_frozen:
            lower_blocks = is_head and is_pretrained(estimator)
            frozen = frozen_backbone(backbone, **settings, lower_blocks=lower_blocks)
            return LoadedBackbone(copy.deepcopy(frozen.module), frozen.config, frozen)
        return LoadedBackbone(*load_backbone(backbone, **settings), None)


def warn_if_memory_is_unused(memory: Any, why_not: str) -> None:
    """Warn that a folder for features was given, and none is kept."""
    if isinstance(open_store(memory), FeatureStore):
        warn(f"memory={memory!r}: nothing is kept, because {why_not}")


def build_network(
    plan: FitPlan, loaded: LoadedBackbone | None, samples: Samples, target: Target
) -> tuple[Network, Tensor | None]:
    """Build the network on the CPU, and return the samples' features if they are known.

    A pretrained backbone runs once over the images even if it trains: the head starts from that.
    """
    features: Tensor | None = None
    if isinstance(samples, Tensor):
        features, n_features = samples, samples.shape[1]
    else:
        assert loaded is not None
        _apply_trainable(plan, loaded.module)
        if loaded.frozen is None:
            image = evaluation_transform(loaded.config)(samples[0])
            n_features = count_features(loaded.module, image)
        else:
            features = frozen_features(loaded.frozen, samples, plan.passes)
            n_features = features.shape[1]
    torch.manual_seed(mix_seed(plan.seed))  # whether or not a backbone was loaded
    network = Network(
        None if loaded is None else loaded.module,
        None if loaded is None else loaded.config,
        n_features=n_features,
        n_classes=target.n_outputs,
        outputs=target.outputs,
        head=plan.head,
        pretrained=plan.is_pretrained,
    )
    if plan.compile:
        network.compile()
    return network, features


def _apply_trainable(plan: FitPlan, backbone: nn.Module) -> None:
    set_trainable(
        backbone,
        plan.trainable,
        fixed=fixed_parameters(plan.backbone),
        lora_rank=plan.lora_rank,
        seed=mix_seed(plan.seed),
        gradient_checkpointing=plan.gradient_checkpointing,
    )


def build_net(plan: FitPlan, network: Network) -> CLCENet:
    """Put a network into an initialised net."""
    extra = plan.skorch_params
    options: dict[str, Any] = {
        "plan": plan,
        "module": network,
        "criterion": network.outputs.criterion(
            weight=plan.weight,
            temperature=plan.temperature,
            hardness=plan.hardness,
            positives=plan.positives,
            label_smoothing=plan.label_smoothing,
            gather=True,
        ),
        "optimizer": torch.optim.AdamW,
        **({} if "optimizer" in extra else {"optimizer__fused": True}),
        "lr": plan.learning_rate,
        "max_epochs": plan.n_epochs,
        "batch_size": plan.batch_size,
        "train_split": None,
        "predict_nonlinearity": network.outputs.probabilities,
        "callbacks": [*default_callbacks(plan), *(plan.callbacks or [])],
        "callbacks__print_log": None,
        "device": plan.device,
        "verbose": plan.verbose,
    }
    for loader in ("iterator_train", "iterator_valid"):
        if loader in extra:  # one like torch's DataLoader
            options[f"{loader}__collate_fn"] = identity_collate
            if loader == "iterator_valid":  # training uses torch's, which each epoch seeds
                options[f"{loader}__generator"] = torch.Generator()
        else:
            options |= {
                loader: ImageBatches,
                f"{loader}__num_workers": plan.passes.num_workers,
                f"{loader}__device": plan.device,
            }
    return CLCENet(**options | dict(extra)).initialize()


def continue_net(plan: FitPlan, previous: CLCENet) -> CLCENet:
    """Copy weights, history and optimizer state into a net with a new plan."""
    network = copy.deepcopy(previous.module_)
    if network.backbone is not None and plan.changes_trainable:
        merge(network.backbone)
        _apply_trainable(plan, network.backbone)
        network.update_trainable_flags()
    elif network.backbone is not None and not network.frozen:
        checkpoint_gradients(network.backbone, plan.gradient_checkpointing)
    if plan.compile:
        network.compile()
    return with_history_of(previous, build_net(plan, network))


def with_changed_head(
    previous: CLCENet, resume: ResumeState, passes: Passes, change: Callable[[Head], None]
) -> CLCENet:
    """Return a copy of a net whose head has been changed."""
    with gpu_lock(passes.device), seeded_torch(resume.seed, passes.device):
        network = copy.deepcopy(previous.module_)
        change(network.head)
        net = with_history_of(previous, build_net(replace(previous.plan, passes=passes), network))
    net.resume = resume
    return net


def with_history_of(previous: CLCENet, net: CLCENet) -> CLCENet:
    """Give a net the history, loss scaling and optimizer state of an earlier one."""
    # No call costs more than the first: old epochs are shared, without their batches.
    net.history_ = TrainingHistory(
        {**epoch, "batches": []} if epoch["batches"] else epoch for epoch in previous.history_
    )
    net.scaling = previous.scaling
    _copy_optimizer_state(previous, net)
    return net


def _copy_optimizer_state(previous: CLCENet, net: CLCENet) -> None:
    """Copy the state of each parameter that is still trainable to an optimizer of the same kind."""
    before: Any = getattr(previous, "optimizer_", None)
    now: Any = net.optimizer_
    if type(before) is not type(now) or _switches(before) != _switches(now):
        return
    earlier = dict(previous.module_.named_parameters())
    origin = {
        p: earlier[name]
        for name, p in net.module_.named_parameters()
        if name in earlier and earlier[name].shape == p.shape
    }
    parameters = [p for group in now.param_groups for p in group["params"]]
    state = {
        place: copy.deepcopy(before.state[origin[p]])
        for place, p in enumerate(parameters)
        if origin.get(p) in before.state and origin[p].shape == p.shape
    }
    now.load_state_dict(now.state_dict() | {"state": state})  # moves it to the device


def _switches(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the settings that decide what an optimizer's state holds, such as amsgrad."""
    return {name: value for name, value in optimizer.defaults.items() if isinstance(value, bool)}


def restore_net(
    plan: FitPlan, network: Network, history: list[dict[str, Any]], resume: ResumeState
) -> CLCENet:
    """Make the net of a fit that was saved."""
    if network.backbone is not None and not network.frozen:
        checkpoint_gradients(network.backbone, plan.gradient_checkpointing)
    net = build_net(plan, network)
    net.history_ = TrainingHistory(history)
    net.resume = resume
    return net
