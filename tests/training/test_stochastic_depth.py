"""Stochastic depth of pretrained backbones while they train."""

import numpy as np
import pytest
import timm
import torch
from skorch.callbacks import Callback
from timm.layers import DropPath
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce._network.drop_path import DROP_PATH, stochastic_depth
from sklearn_clce.backbones import fingerprint


def drops(module):
    """The rates of the layers that drop paths, by name."""
    named = module.named_modules()
    return {name: layer.drop_prob for name, layer in named if isinstance(layer, DropPath)}


class Watch(Callback):
    """Records the drop rates after each step."""

    def initialize(self):
        self.found = []
        return self

    def on_batch_end(self, net, **kwargs):
        self.found.append(drops(net.module_))


@pytest.mark.parametrize(
    "name", ["resnet10t", "tf_efficientnet_lite0", "test_vit", "test_convnext", "test_byobnet"]
)
def test_drop_rate_grows_with_depth_and_is_undone(name):
    backbone = timm.create_model(name, pretrained=False)
    before, digest = (
        [(name, type(layer)) for name, layer in backbone.named_modules()],
        fingerprint(backbone),
    )
    with stochastic_depth(backbone, 0.3):
        rates = list(drops(backbone).values())
        assert rates == sorted(rates)
        assert 0 < rates[0] < rates[-1] == 0.3
    assert [(name, type(layer)) for name, layer in backbone.named_modules()] == before
    assert fingerprint(backbone) == digest


def test_error_removes_drop_path_layers():
    backbone = timm.create_model("test_vit")
    with pytest.raises(ZeroDivisionError), stochastic_depth(backbone):
        assert 1 / 0
    assert drops(backbone) == {}


def test_existing_drop_path_is_kept():
    backbone = timm.create_model("test_vit", drop_path_rate=0.5)
    before = drops(backbone)
    with stochastic_depth(backbone):
        assert drops(backbone) == before


def test_custom_module_is_unchanged():
    backbone = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    backbone[0].drop_path = 0.2  # a rate, not a layer
    with stochastic_depth(backbone):
        assert drops(backbone) == {}
        assert backbone[0].drop_path == 0.2


def test_drop_path_drops_whole_samples():
    block = nn.Module()
    block.drop_path = None
    with stochastic_depth(nn.Sequential(timm.create_model("test_vit"), block), 0.5):
        kept = block.drop_path(torch.ones(400, 3))
    assert set(kept.unique().tolist()) == {0.0, 2.0}  # twice, so that the mean is as before
    assert ((kept == kept[:, :1]).all(dim=1)).all()


@pytest.mark.parametrize(
    ("parameters", "dropped"),
    [
        ({}, True),
        ({"trainable": "head"}, False),
        ({"trainable": "head", "augment": lambda images: images}, False),
        ({"pretrained": False}, False),
    ],
)
def test_only_finetuned_pretrained_backbone_drops_paths(parameters, dropped):
    X, y = np.random.default_rng(0).random((4, 32, 32, 3)), [0, 0, 1, 1]
    watch = Watch()
    clf = CLCEClassifier(
        image_size=32, max_epochs=1, device="cpu", random_state=0, callbacks=[watch]
    ).set_params(**parameters)
    for train in (clf.fit, clf.partial_fit):
        train(X, y)
        (found,) = watch.found
        assert max(found.values(), default=0) == dropped * DROP_PATH
        assert drops(clf.module_) == {}
