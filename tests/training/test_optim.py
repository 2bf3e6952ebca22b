"""Learning rates by layer and over time, and frozen parameters."""

import math
import pickle

import numpy as np
import pytest
import timm
import torch
from numpy.testing import assert_allclose
from skorch.callbacks import LRScheduler
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce._head import HeadConfig
from sklearn_clce._network import (
    Network,
    blocks_of,
    parameter_groups,
    resolve_layer_decay,
    resolve_trainable,
    trainable_of,
    warmup_cosine,
)
from sklearn_clce._network.trainable import PRETRAINED_RATE, freeze
from sklearn_clce.backbones import BackboneConfig
from small_backbones import TinyBackbone
from small_fits import Recorder, head

BACKBONES = ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "resnet18", "convnext_atto"]


def make_module(name, trainable="all", projection_dim=None, pretrained=False):
    backbone = timm.create_model(name, num_classes=0)
    freeze(backbone, trainable)
    return Network(
        backbone,
        BackboneConfig(name),
        n_features=backbone.num_features,
        n_classes=3,
        head=HeadConfig(projection_dim),
        pretrained=pretrained,
    )


def rates(module, **settings):
    defaults = {"learning_rate": 1.0, "weight_decay": 0.1, "layer_decay": 0.5}
    groups = parameter_groups(module, **defaults | settings)
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }


@pytest.mark.parametrize("name", BACKBONES)
def test_trained_parameter_is_in_exactly_one_group(name):
    module = make_module(name, projection_dim=4)
    groups = parameter_groups(module, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    parameters = [id(p) for group in groups for p in group["params"]]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == {id(p) for p in module.parameters()}


@pytest.mark.parametrize("name", BACKBONES)
def test_learning_rates_fall_from_head_to_stem(name):
    module = make_module(name)
    by_name = rates(module)
    assert by_name["head.classifier.weight"] == (1.0, 0.1)
    blocks = blocks_of(module.backbone)
    by_block = [{by_name[f"backbone.{name}"][0] for name in block} for block in blocks]
    highest = [max(block) for block in by_block]
    assert highest == sorted(highest)
    assert highest[-1] == 0.5
    assert math.isclose(highest[-3] / highest[-2], 0.5)


@pytest.mark.parametrize("name", BACKBONES)
def test_norms_and_biases_have_no_weight_decay(name):
    module = make_module(name)
    by_name = rates(module)
    for parameter_name, parameter in module.named_parameters():
        if parameter.ndim <= 1:
            assert by_name[parameter_name][1] == 0
    assert any(decay > 0 for _, decay in by_name.values())


def test_position_embeddings_have_no_weight_decay():
    by_name = rates(make_module("vit_tiny_patch16_224"))
    assert by_name["backbone.pos_embed"][1] == 0
    assert by_name["backbone.blocks.0.attn.qkv.weight"][1] == 0.1


def test_module_without_block_list_is_one_block():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module = Network(backbone, None, n_features=4, n_classes=2, head=HeadConfig(None))
    by_name = rates(module)
    assert by_name["backbone.0.weight"] == (0.5, 0.1)
    assert by_name["backbone.1.weight"] == (0.5, 0.0)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("n", [1, 3])
def test_only_last_blocks_train_and_others_stay_in_eval(name, n):
    module = make_module(name, trainable=n).train()
    blocks = blocks_of(module.backbone)
    parameters = dict(module.backbone.named_parameters())
    for index, block in enumerate(blocks):
        trains = index >= len(blocks) - n
        assert all(parameters[name].requires_grad == trains for name in block)
    by_name = rates(module)
    assert {f"backbone.{name}" for block in blocks[-n:] for name in block} < set(by_name)
    for child in module.backbone.modules():
        own = list(child.parameters())
        if own and not list(child.children()):
            assert child.training == any(p.requires_grad for p in own)


def test_batch_statistics_of_frozen_blocks_are_unchanged():
    module = make_module("resnet18", trainable=1).train()
    before = {k: v.clone() for k, v in module.state_dict().items() if "running_mean" in k}
    module(torch.randn(4, 3, 64, 64))
    moved = {k for k, v in before.items() if not torch.equal(v, module.state_dict()[k])}
    assert moved == {"backbone.layer4.1.bn1.running_mean", "backbone.layer4.1.bn2.running_mean"}


@pytest.mark.parametrize("name", BACKBONES)
def test_pretrained_backbone_has_lower_learning_rate(name):
    mine, others = (rates(make_module(name, pretrained=p)) for p in (True, False))
    for parameter, (rate, decay) in mine.items():
        share = PRETRAINED_RATE if parameter.startswith("backbone.") else 1
        assert_allclose((rate, decay), (others[parameter][0] * share, others[parameter][1]))


def test_pretrained_backbone_keeps_batch_statistics():
    module = make_module("resnet18", pretrained=True).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    module(torch.randn(4, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert module.backbone.layer1[0].training
    assert all(p.requires_grad for p in module.backbone.parameters())


@pytest.mark.parametrize("name", BACKBONES)
def test_auto_trainable_is_upper_blocks_of_pretrained_backbone(name):
    backbone = timm.create_model(name, num_classes=0)
    n_blocks = len(blocks_of(backbone))
    resolved = resolve_trainable("auto", backbone, pretrained=True)
    assert n_blocks / 2 < resolved < n_blocks
    assert resolve_trainable("auto", backbone, pretrained=False) == "all"
    assert resolve_trainable("auto", nn.Conv2d(3, 4, 3), pretrained=True) == "all"


@pytest.mark.parametrize("trainable", ["all", "head", 1, 3, "auto"])
def test_what_is_asked_for_is_resolved_and_told(trainable):
    backbone = timm.create_model("resnet18", num_classes=0)
    resolved = resolve_trainable(trainable, backbone, pretrained=True)
    assert trainable in (resolved, "auto")
    assert trainable_of(make_module("resnet18", trainable=resolved)) == resolved


def test_too_many_trainable_blocks_are_rejected():
    with pytest.raises(ValueError, match="trainable=99: the backbone has 13 blocks"):
        make_module("vit_tiny_patch16_224", trainable=99)


def test_number_of_blocks_without_block_list_is_rejected():
    with pytest.raises(ValueError, match="Conv2d does not list its blocks"):
        freeze(nn.Conv2d(3, 4, 3), 1)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("tf_efficientnet_lite0", 0.95), ("resnet18", 0.95), ("vit_tiny_patch16_224", 0.75)],
)
def test_auto_layer_decay_depends_on_backbone(name, factor):
    module = make_module(name)
    assert resolve_layer_decay(module.backbone, "auto") == factor
    assert resolve_layer_decay(None, "auto") == 1
    assert resolve_layer_decay(nn.Conv2d(3, 4, 3), "auto") == 1


def test_schedule_warms_up_and_follows_cosine():
    schedule = [warmup_cosine(step, n_steps=100, warmup_fraction=0.1) for step in range(101)]
    assert 0 < schedule[0] < 0.1
    assert schedule[:11] == sorted(schedule[:11])
    assert schedule[10] == 1
    assert schedule[10:] == sorted(schedule[10:], reverse=True)
    assert math.isclose(schedule[55], 0.5)
    assert schedule[100] == 0
    assert all(rate > 0 for rate in schedule[:-1])


def test_schedule_without_warmup_starts_at_peak():
    assert warmup_cosine(0, n_steps=5, warmup_fraction=0.0) == 1


def test_learning_rate_changes_every_step(clouds):
    recorder = Recorder(lambda net, batch: net.optimizer_.param_groups[0]["lr"])
    clf = head(batch_size=10, warmup_fraction=0.25, callbacks=[recorder]).fit(*clouds)
    rates = np.array(recorder.seen)
    assert len(rates) == 6 * 6
    assert_allclose(rates.max(), 0.01)
    assert np.argmax(rates) == 8
    assert rates[-1] == 0
    assert_allclose(clf.history_[:, "lr"], rates[5::6])


def test_optimizer_and_scheduler_can_be_replaced(clouds):
    params = {"optimizer": torch.optim.SGD, "callbacks__lr_scheduler": None}
    stepped = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1)
    clf = head(skorch_params=params, callbacks=[stepped]).fit(*clouds)
    assert isinstance(clf.net_.optimizer_, torch.optim.SGD)
    assert_allclose(clf.history_[:, "event_lr"], [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    pickle.loads(pickle.dumps(clf)).partial_fit(*clouds)


@pytest.mark.parametrize(("max_grad_norm", "largest"), [(0.01, 0.01), (None, np.inf)])
def test_gradients_are_clipped(max_grad_norm, largest, clouds):
    def norm(net, batch):
        grads = [p.grad.norm() for p in net.module_.parameters() if p.grad is not None]
        return torch.stack(grads).norm().item()

    recorder = Recorder(norm)
    head(max_grad_norm=max_grad_norm, callbacks=[recorder]).fit(*clouds)
    assert max(recorder.seen) <= largest * 1.001
    assert max(recorder.seen) > 0.009


def test_partly_frozen_module_trains_the_rest(capsys):
    backbone = TinyBackbone()
    next(backbone.parameters()).requires_grad_(False)
    X = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    clf = CLCEClassifier(backbone, max_epochs=1, image_size=16, verbose=1).fit(X, [0, 1] * 3)
    assert clf.trainable_ == "all"
    assert "trains all of TinyBackbone" in capsys.readouterr().out
