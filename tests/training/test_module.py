"""The network: inference in parts, what it accepts, what the classifier reads."""

import pytest
import torch
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce._head import Head, HeadConfig
from sklearn_clce._network import Network
from sklearn_clce._training import CLCENet, plan_without_fit
from sklearn_clce.backbones import BackboneConfig, FrozenBackbone, run_backbone, run_in_parts
from sklearn_clce.backbones._running import PIXELS_AT_ONCE


class MeanColour(nn.Module):
    """A backbone that records the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.n_rows = []

    def forward(self, images):
        self.n_rows.append(len(images))
        return images.mean(dim=(2, 3)) * self.weight


IMAGES = torch.rand(2 * PIXELS_AT_ONCE // 64**2 + 1, 3, 64, 64)
CONFIG = BackboneConfig("MeanColour")


def net_of(backbone):
    network = Network(backbone, CONFIG, n_features=3, n_classes=2, head=HeadConfig(None))
    plan = plan_without_fit(CLCEClassifier(device="cpu"), network, seed=0)
    net = CLCENet(network, plan=plan, criterion=nn.CrossEntropyLoss, device="cpu")
    return net.initialize()


def test_cpu_inference_runs_large_batch_in_parts():
    backbone = MeanColour().eval()
    with torch.no_grad():
        features = run_in_parts(backbone, IMAGES)
        colours, doubled = run_in_parts(lambda part: (backbone(part), 2 * backbone(part)), IMAGES)
    assert backbone.n_rows[:3] == [98, 98, 1]
    torch.testing.assert_close(features, IMAGES.mean(dim=(2, 3)))
    torch.testing.assert_close((colours, doubled), (features, 2 * features))


def test_net_and_frozen_backbone_infer_in_parts():
    backbone = MeanColour().eval()
    run = FrozenBackbone(backbone, CONFIG).runner(torch.device("cpu"), "float32")
    torch.testing.assert_close(run(IMAGES), IMAGES.mean(dim=(2, 3)))
    net = net_of(backbone)
    net.module_.eval()
    with torch.no_grad():
        net.infer(IMAGES)
    assert backbone.n_rows == 2 * [98, 98, 1]


def test_training_runs_whole_batch_at_once():
    backbone = MeanColour()
    net = net_of(backbone)
    net.module_.train()
    net.infer(IMAGES)
    with torch.no_grad():  # the first pass of a batch in parts
        net.infer(IMAGES)
    net.module_.eval()
    net.infer(IMAGES)  # with gradients
    assert backbone.n_rows == 3 * [len(IMAGES)]


def test_single_part_batch_is_not_copied():
    images = torch.rand(2, 3, 1, 1)
    with torch.no_grad():
        assert run_in_parts(nn.Flatten(), images).data_ptr() == images.data_ptr()


@pytest.mark.parametrize("n_rows", [1, len(IMAGES)])
def test_backbone_without_pooled_features_is_rejected(n_rows):
    with pytest.raises(ValueError, match=r"Identity gave .* pool over height"):
        run_backbone(nn.Identity().eval(), IMAGES[:n_rows])


@pytest.mark.parametrize("projection_dim", [None, 3])
def test_classifier_reads_features_and_embedding(projection_dim):
    module = Head([[5]], 4, HeadConfig(projection_dim))
    nn.init.normal_(module.classifier.weight)
    module.standardize.adapt(torch.randn(20, 5), torch.ones(20))
    batch = torch.randn(7, 5)
    logits, embeddings = module(batch)
    features = module.standardize(batch)
    read = [features] if projection_dim is None else [features, module.projection(features)]
    torch.testing.assert_close(logits, torch.cat(read, dim=1) @ module.classifier.weight.T)
    torch.testing.assert_close(embeddings, read[-1])
    assert embeddings.shape == (7, module.n_embedding)


def test_classifier_starts_at_zero():
    module = Head([[5]], 4, HeadConfig(3))
    assert not module(torch.randn(7, 5))[0].any()


@pytest.mark.parametrize("n_features", [3, 64, 131, 259, 1283])
def test_row_scores_are_independent_of_batch_position(n_features):
    module = Head([[n_features]], 3, HeadConfig(128))
    nn.init.normal_(module.classifier.weight)
    rows = torch.randn(20, n_features)
    with torch.inference_mode():
        logits, embeddings = module.eval()(rows)
        for seed in range(20):
            order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
            logits_moved, embeddings_moved = module(rows[order])
            assert torch.equal(logits[order], logits_moved)
            assert torch.equal(embeddings[order], embeddings_moved)
            assert torch.equal(logits[:7], module(rows[:7])[0])
