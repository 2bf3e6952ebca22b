"""The paper's recipe, as the documentation prints it, trains at full size."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


def printed_recipe():
    """Run the code that the page shows, and return its classifier."""
    page = (DOCS / "criterion.rst").read_text()
    section = page[page.index("The paper's recipe\n---") :]
    code = re.search(r"code-block:: python\n\n((?:    .*\n|\n)+)", section).group(1)
    names = {}
    exec(textwrap.dedent(code), names)
    return names["clf"]


def test_recipe_has_the_authors_criterion():
    clf = printed_recipe()
    assert (clf.positives, clf.weight, clf.temperature, clf.hardness) == ("mean", 0.9, 0.5, 1.0)
    assert (clf.learning_rate, clf.layer_decay, clf.weight_decay) == (7e-4, 0.65, 0.05)
    assert clf.warmup_fraction * clf.max_epochs == 5


@pytest.mark.slow
def test_recipe_trains_a_step_of_beit3():
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    clf = printed_recipe().set_params(pretrained=False, max_epochs=1, random_state=0)
    clf.fit(images, [0, 0, 1, 1])
    (epoch,) = list(clf.history_)
    assert epoch["train_batch_count"] == 1
    assert np.isfinite(epoch["train_loss"])
    assert clf.backbone_config_.image_size == 224
    assert clf.transform(images).shape == (4, 128)
    blocks = clf.module_.backbone.blocks
    assert all(p.requires_grad for p in blocks[0].parameters())
