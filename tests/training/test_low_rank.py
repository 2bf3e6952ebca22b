"""Low-rank adaptation: trainable parameters, continuing, model files of plain layers."""

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce._network.low_rank import LowRankLinear, adapt, is_adapted, merge
from small_backbones import TinyBackbone
from small_fits import StopAfter, same_weights, weights_of

SIDE = 32


def vit(name="vit_tiny_patch16_224", **kwargs):
    torch.manual_seed(0)
    shape = {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": SIDE}
    return timm.create_model(name, num_classes=0, **shape | kwargs)


def lora(backbone=None, **params):
    defaults = {"trainable": "lora", "image_size": SIDE, "max_epochs": 2, "random_state": 0}
    backbone = vit() if backbone is None else backbone
    return CLCEClassifier(backbone, **defaults | {"learning_rate": 0.01} | params)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)
    X[::2, :16] //= 2
    return X, np.arange(16) % 2


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224"])
def test_every_linear_layer_learns_and_merges(name):
    """BEiT reads the weight of its qkv, so that an adapter on its output would not learn."""
    backbone, images = vit(name).eval(), torch.rand(2, 3, SIDE, SIDE)
    before = backbone(images)
    adapt(backbone, rank=2, seed=0)
    torch.testing.assert_close(backbone(images), before)  # up is 0
    layers = {n: each for n, each in backbone.named_modules() if isinstance(each, LowRankLinear)}
    ends = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    assert layers.keys() == {f"blocks.{block}.{end}" for block in range(2) for end in ends}
    backbone(images).square().sum().backward()
    assert all(layer.up.grad.abs().max() > 0 for layer in layers.values())
    assert all(layer.base.weight.grad is None for layer in layers.values())
    for layer in layers.values():
        nn.init.normal_(layer.up)
    adapted = backbone(images)
    assert (adapted - before).abs().max() > 0.01
    merge(backbone)
    assert not is_adapted(backbone)
    torch.testing.assert_close(backbone(images), adapted, rtol=1e-4, atol=1e-4)


def test_only_low_rank_matrices_and_head_train(pictures):
    clf = lora(lora_rank=3).fit(*pictures)
    assert clf.trainable_ == "lora"
    trained = {n for n, p in clf.module_.backbone.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 1)[1] for name in trained} == {"up", "down"}
    state = clf.module_.backbone.state_dict()
    plain = vit().state_dict()
    assert len(state) == len(plain) + len(trained)
    for name, value in plain.items():
        kept = (
            state[name]
            if name in state
            else state[name.replace("weight", "base.weight").replace("bias", "base.bias")]
        )
        assert kept.equal(value)
    assert all(len(state[name]) == 3 for name in trained if name.endswith("down"))
    assert all(state[name].abs().max() > 0 for name in trained)
    rates = {group["lr_scale"] for group in clf.net_.optimizer_.param_groups}
    assert rates == {1.0}


def test_seed_fixes_fit_and_torch_generator_is_unchanged(pictures):
    clf = lora()
    drawn = torch.get_rng_state()
    first = clf.fit(*pictures)
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.manual_seed(5)
    assert same_weights(weights_of(first), weights_of(clone(first).fit(*pictures)))
    other = clone(first).set_params(random_state=1).fit(*pictures)
    assert not same_weights(weights_of(first), weights_of(other))


def test_model_file_holds_merged_layers_and_trains(pictures, tmp_path):
    X, y = pictures
    backbone = vit()
    clf = lora(backbone).fit(X, y)
    path = tmp_path / "model.safetensors"
    clf.save(path)
    assert clf.trainable_ == "lora"  # as it was
    loaded = CLCEClassifier.load(path, backbone=vit())
    assert not is_adapted(loaded.module_.backbone)
    assert (loaded.trainable_, loaded.lora_rank) == ("lora", 8)
    np.testing.assert_allclose(
        loaded.decision_function(X), clf.decision_function(X), rtol=1e-4, atol=1e-5
    )
    loaded.partial_fit(X, y)
    assert is_adapted(loaded.module_.backbone)
    assert loaded.n_iter_ == 3


def test_pickle_and_copy_keep_adapted_layers(pictures):
    X, y = pictures
    clf = lora().fit(X, y)
    for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert other.trainable_ == "lora"
        np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))


def test_partial_fit_continues_low_rank_training(pictures):
    X, y = pictures
    clf = lora().partial_fit(X, y, classes=[0, 1])
    down = clf.module_.backbone.blocks[0].attn.qkv.down.clone()
    clf.partial_fit(X, y)
    assert 0 < (clf.module_.backbone.blocks[0].attn.qkv.down - down).abs().max() < 0.1
    steps = {float(state["step"]) for state in clf.net_.optimizer_.state.values()}
    assert steps == {2.0}


@pytest.mark.parametrize(
    ("change", "trained"),
    [({"trainable": "all"}, "all"), ({"trainable": "head"}, "head"), ({"lora_rank": 2}, "lora")],
)
def test_low_rank_learning_survives_change_of_trainable(pictures, change, trained):
    X, y = pictures
    clf = lora(warm_start=True).fit(X, y)
    before = clf.module_.merged().backbone.eval()
    clf.set_params(**change, max_epochs=1, learning_rate=1e-12).fit(X, y)
    assert clf.trainable_ == trained
    assert is_adapted(clf.module_.backbone) == (trained == "lora")
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(
            clf.module_.eval().backbone(images), before(images), rtol=1e-4, atol=1e-4
        )
    if trained == "lora":
        assert len(clf.module_.backbone.blocks[0].attn.qkv.down) == 2


def test_warm_start_switches_from_head_to_low_rank(pictures):
    clf = lora(trainable="head", warm_start=True).fit(*pictures)
    clf.set_params(trainable="lora", gradient_checkpointing=True).fit(*pictures)
    assert clf.trainable_ == "lora"
    assert clf.module_.backbone.grad_checkpointing


def test_checkpoint_resumes_to_equal_weights(pictures, tmp_path):
    whole = lora(max_epochs=3).fit(*pictures)
    folder = tmp_path / "checkpoint"
    with pytest.warns(UserWarning, match="cut short"):
        lora(max_epochs=3, checkpoint=folder, callbacks=[StopAfter(1)]).fit(*pictures)
    resumed = lora(max_epochs=3, checkpoint=folder).fit(*pictures)
    assert same_weights(weights_of(whole), weights_of(resumed))


def test_grid_search_tunes_lora_rank(pictures):
    search = GridSearchCV(lora(max_epochs=1), {"lora_rank": [1, 4]}, cv=2, error_score="raise")
    best = search.fit(*pictures).best_estimator_
    assert best.trainable_ == "lora"
    assert len(best.module_.backbone.blocks[0].attn.qkv.down) == best.lora_rank


def test_shared_layer_stays_shared():
    linear = nn.Linear(3, 3)
    backbone = nn.Sequential(linear, nn.Sequential(linear))
    adapt(backbone, rank=1, seed=0)
    assert backbone[0] is backbone[1][0]
    nn.init.ones_(backbone[0].up)
    given = backbone(torch.ones(1, 3))
    merge(backbone)
    assert backbone[0] is backbone[1][0] is linear
    torch.testing.assert_close(backbone(torch.ones(1, 3)), given)


def test_backbone_without_linear_layers_is_rejected(pictures):
    with pytest.raises(ValueError, match="backbone=TinyBackbone has no linear layers, as transf"):
        lora(TinyBackbone()).fit(*pictures)
    with pytest.raises(ValueError, match="'lora_rank' parameter"):
        lora(lora_rank=0).fit(*pictures)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))])
def test_copied_classifier_of_custom_module_continues(copied, pictures):
    X, y = pictures
    clf, other = (lora(warm_start=True).fit(X, y) for _ in range(2))
    other = copied(other)
    other.set_params(backbone=vit())
    assert same_weights(weights_of(clf.partial_fit(X, y)), weights_of(other.partial_fit(X, y)))
    other.add_classes(X[:4], [2, 2, 3, 3])
    with pytest.raises(ValueError, match="cannot change backbone when continuing"):
        other.set_params(backbone=vit(depth=1)).partial_fit(X, y)
