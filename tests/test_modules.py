"""The network in parts: memory it takes, what it accepts."""

import pytest
import torch
from torch import nn

from sklearn_clce.modules import PIXELS_AT_ONCE, run_backbone


class MeanColour(nn.Module):
    """A backbone that remembers how many rows it was given at a time."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.n_rows = []

    def forward(self, images):
        self.n_rows.append(len(images))
        return images.mean(dim=(2, 3)) * self.weight


IMAGES = torch.rand(2 * PIXELS_AT_ONCE // 64**2 + 1, 3, 64, 64)


def test_inference_on_the_cpu_runs_a_large_batch_in_parts():
    backbone = MeanColour().eval()
    with torch.no_grad():
        features = run_backbone(backbone, IMAGES)
    assert backbone.n_rows == [98, 98, 1]
    torch.testing.assert_close(features, IMAGES.mean(dim=(2, 3)))


def test_training_runs_a_batch_at_once():
    with_gradients, with_statistics = MeanColour().eval(), MeanColour().train()
    run_backbone(with_gradients, IMAGES)
    with torch.no_grad():
        run_backbone(with_statistics, IMAGES)
    assert with_gradients.n_rows == with_statistics.n_rows == [len(IMAGES)]


def test_a_batch_that_is_one_part_is_not_copied():
    backbone = nn.Flatten().eval()
    images = torch.rand(2, 3, 1, 1)
    with torch.no_grad():
        assert run_backbone(backbone, images).data_ptr() == images.data_ptr()


@pytest.mark.parametrize("n_rows", [1, len(IMAGES)])
def test_a_backbone_that_gives_no_features_is_refused(n_rows):
    with torch.no_grad(), pytest.raises(ValueError, match=r"Identity gave .* pool over height"):
        run_backbone(nn.Identity().eval(), IMAGES[:n_rows])
