"""Attribution: it finds the right places, for the class that is asked for."""

import matplotlib
import numpy as np
import pytest
import timm
import torch
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_clce import AttributionDisplay, CLCEClassifier
from sklearn_clce.displays._attribution import run_to_map
from small_backbones import TinyBackbone

matplotlib.use("Agg")
SIDE = 32
CLASSES = np.array(["red", "green", "blue"])


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def squares(n=24, n_channels=3, seed=0):
    """Make grey noise with a square of one colour, which is its class, in one of four quarters."""
    rng = np.random.default_rng(seed)
    X = rng.integers(80, 120, (n, SIDE, SIDE, n_channels), dtype=np.uint8)
    colours, quarters = np.arange(n) % 3, rng.integers(0, 4, n)
    for image, colour, quarter in zip(X, colours, quarters, strict=True):
        top, left = 16 * (quarter // 2), 16 * (quarter % 2)
        image[top : top + 16, left : left + 16, colour] = 255
    return X, CLASSES[colours], quarters


def vit(name="vit_tiny_patch16_224", **kwargs):
    shape = {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8, "img_size": SIDE}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a few of other weights learn by what is next to the square
        return timm.create_model(name, num_classes=0, **shape | kwargs)


def fitted(backbone, X, y, **params):
    defaults = {"image_size": SIDE, "max_epochs": 25, "learning_rate": 3e-3, "augment": None}
    return CLCEClassifier(backbone, **defaults | {"random_state": 0} | params).fit(X, y)


def share_in_quarter(display, quarters):
    """Return how much of what speaks for the class lies where its square is: -> (n,)."""
    shares = []
    for places, quarter in zip(display.attributions, quarters, strict=True):
        light = places.clip(0)
        half = len(light) // 2
        rows = slice(half * (quarter // 2), half * (quarter // 2) + half)
        columns = slice(half * (quarter % 2), half * (quarter % 2) + half)
        shares.append(light[rows, columns].sum() / light.sum())
    return np.array(shares)


@pytest.mark.parametrize(
    ("backbone", "trainable"),
    [
        (TinyBackbone(), "all"),
        (vit(), "head"),
        (vit(global_pool="avg"), "head"),
        (vit("beit_base_patch16_224"), "all"),
    ],
    ids=["convolutional", "class token", "mean of tokens", "beit"],
)
def test_attribution_lies_on_the_square_that_the_class_is_named_after(backbone, trainable):
    X, y, quarters = squares(36)
    clf = fitted(backbone, X, y, trainable=trainable)
    assert clf.score(X, y) == 1
    display = AttributionDisplay.from_estimator(clf, X[:12])
    assert display.targets.tolist() == y[:12].tolist()
    np.testing.assert_allclose(
        display.probabilities, clf.predict_proba(X[:12]).max(axis=1), rtol=1e-4
    )
    shares = share_in_quarter(display, quarters[:12])
    assert np.median(shares) > 0.5  # a quarter of the image


def mean_correlation(first, second):
    return np.mean(
        [
            np.corrcoef(a.ravel(), b.ravel())[0, 1]
            for a, b in zip(first.attributions, second.attributions, strict=True)
        ]
    )


@pytest.mark.parametrize("backbone", [TinyBackbone, vit], ids=["convolutional", "vit"])
@pytest.mark.parametrize("what", ["head", "backbone"])
def test_map_changes_with_random_weights(backbone, what):
    """As "Sanity Checks for Saliency Maps" (Adebayo et al., 2018) asks of such a map."""
    X, y, _ = squares()
    clf = fitted(backbone(), X, y)
    before = AttributionDisplay.from_estimator(clf, X[:12], target=y[:12])
    again = AttributionDisplay.from_estimator(clf, X[:12], target=y[:12])
    assert mean_correlation(before, again) == pytest.approx(1)
    torch.manual_seed(0)
    module = clf.module_.backbone if what == "backbone" else clf.module_.head.classifier
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=float(parameter.detach().std()))
    after = AttributionDisplay.from_estimator(clf, X[:12], target=y[:12])
    assert mean_correlation(before, after) < 0.5


def test_target_selects_the_class():
    X, y, _ = squares()
    clf = fitted(TinyBackbone(), X, y)
    predicted = AttributionDisplay.from_estimator(clf, X[:3])
    red = AttributionDisplay.from_estimator(clf, X[:3], target="red")
    each = AttributionDisplay.from_estimator(clf, X[:3], target=["red", "red", "blue"])
    assert predicted.targets.tolist() == ["red", "green", "blue"]
    assert red.targets.tolist() == 3 * ["red"]
    column = clf.classes_.tolist().index("red")
    np.testing.assert_allclose(
        red.probabilities, clf.predict_proba(X[:3])[:, column], rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(each.attributions[1], red.attributions[1])
    np.testing.assert_array_equal(each.attributions[2], predicted.attributions[2])
    assert np.abs(red.attributions[1] - predicted.attributions[1]).max() > 0


def test_display_does_not_change_the_classifier_and_names_its_images():
    X, y, _ = squares(6)
    clf = fitted(TinyBackbone(), X, y, max_epochs=1)
    before = {name: value.clone() for name, value in clf.module_.state_dict().items()}
    figure, ax = plt.subplots()
    display = AttributionDisplay.from_estimator(clf, X[:3], ax=ax)
    assert display.figure_ is figure
    assert len(display.axes_) == 3
    assert display.axes_[0].get_title().startswith(f"{display.targets[0]} ")
    drawn = display.axes_[0].images[0].get_array()
    assert drawn.shape == (SIDE, SIDE, 3)
    assert drawn.max() <= 1
    changed = [name for name, v in clf.module_.state_dict().items() if not v.equal(before[name])]
    assert changed == []
    assert not any(layer._forward_hooks for layer in clf.module_.modules())


def test_display_is_the_same_in_inference_mode():
    X, y, _ = squares(6)
    clf = fitted(TinyBackbone(), X, y, max_epochs=1)
    expected = AttributionDisplay.from_estimator(clf, X[:2])
    with torch.inference_mode():
        display = AttributionDisplay.from_estimator(clf, X[:2])
    np.testing.assert_array_equal(display.attributions, expected.attributions)


def test_overlay_colours_what_speaks_for_the_class():
    grey = np.full((8, 8), 0.5)
    display = AttributionDisplay(
        [grey], [np.array([[1.0, -1.0]])], targets=["cat"], probabilities=[0.97]
    ).plot()
    overlay = display.axes_[0].images[0].get_array()
    assert np.ptp(overlay[:, -1], axis=1).max() == pytest.approx(0)  # grey
    assert (overlay[:, 0, 0] > overlay[:, 0, 2] + 0.2).all()  # red
    assert display.axes_[0].get_title() == "cat 97 %"
    assert repr(display) == "AttributionDisplay(1 image: cat 97 %)"


def test_map_of_bands_grey_images_and_any_size():
    bands, y, _ = squares(n_channels=5)
    backbone = nn.Sequential(nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    clf = fitted(backbone, bands, y, n_channels=5, max_epochs=1)
    (attribution,) = AttributionDisplay.from_estimator(clf, bands[:1]).attributions
    assert attribution.shape == (30, 30)
    X, y, _ = squares()
    clf = fitted(TinyBackbone(), X, y, image_size=None, max_epochs=1)
    display = AttributionDisplay.from_estimator(clf, [X[0, ..., 0], X[1, :16]])
    assert [each.shape for each in display.attributions] == [(16, 16), (8, 16)]


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("swin_tiny_patch4_window7_224", 224, (7, 7)),
        ("convnext_atto", 64, (2, 2)),
        ("resnet10t", 64, (2, 2)),
        ("vit_small_patch16_dinov3", 64, (4, 4)),
        ("cait_xxs24_224", 224, (14, 14)),  # its class token joins behind the last block
        ("nest_tiny", 224, (14, 14)),  # channels last, which it does not declare
        ("volo_d1_224", 224, (14, 14)),
        ("pit_ti_224", 224, (7, 7)),
        ("mvitv2_tiny", 224, (7, 7)),
        ("coat_tiny", 224, (7, 7)),
    ],
)
def test_map_is_that_of_the_last_layer_with_places(name, side, shape):
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} does not know it")
    backbone = timm.create_model(name, num_classes=0).eval()
    _, activation, arrange = run_to_map(backbone, torch.rand(1, 3, side, side))
    assert arrange(activation).shape[-2:] == shape


class Again(nn.Module):
    """A backbone that calls one layer on maps, and then on what has no places."""

    def __init__(self, pooled):
        super().__init__()
        self.convolution, self.relu, self.pooled = nn.Conv2d(3, 4, 3), nn.ReLU(), pooled

    def forward(self, images):
        return self.relu(self.pooled(self.relu(self.convolution(images)))).flatten(1)


@pytest.mark.parametrize("pooled", [nn.AdaptiveAvgPool2d(1), nn.Flatten()])
def test_layer_called_twice_counts_where_it_has_places(pooled):
    X, y, _ = squares(6)
    clf = fitted(Again(pooled), X, y, max_epochs=1)
    (attribution,) = AttributionDisplay.from_estimator(clf, X[:1]).attributions
    assert attribution.shape == (SIDE - 2, SIDE - 2)


class Attention(nn.Module):
    """A weight for each pair of 64 tokens, and tokens by head, which are no maps."""

    def __init__(self):
        super().__init__()
        self.heads, self.softmax = nn.Unflatten(2, (1, 3)), nn.Softmax(dim=-1)

    def forward(self, tokens):
        heads = self.heads(tokens).transpose(1, 2)  # (n, 1, 64, 3)
        return self.softmax(heads @ heads.mT) @ heads


class Pairs(nn.Module):
    """A backbone that compares places and gives no map of them."""

    def __init__(self):
        super().__init__()
        self.attn = Attention()

    def forward(self, images):
        pooled = nn.functional.adaptive_avg_pool2d(images, 8)
        return self.attn(pooled.flatten(2).transpose(1, 2)).mean(dim=(1, 2))


class Colours(nn.Module):
    """A backbone that keeps no places apart."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_wrong_calls_are_rejected(clouds):
    X, y, _ = squares(6)
    clf = fitted(TinyBackbone(), X, y, max_epochs=1)
    show = AttributionDisplay.from_estimator
    with pytest.raises(NotFittedError):
        show(CLCEClassifier(), X)
    with pytest.raises(ValueError, match="target='pink': a label of the classifier is required"):
        show(clf, X, target="pink")
    with pytest.raises(ValueError, match=r"target of shape \(2,\): .* one for each of 6 images"):
        show(clf, X, target=["red", "red"])
    on_features = CLCEClassifier("precomputed", max_epochs=1, random_state=0).fit(*clouds)
    with pytest.raises(ValueError, match="a backbone that reads images is required"):
        show(on_features, clouds[0])
    with pytest.raises(TypeError, match="estimator=StandardScaler: a CLCEClassifier is required"):
        show(StandardScaler().fit(clouds[0]), X)
    for backbone in (Colours(), Pairs()):
        name = type(backbone).__name__
        with pytest.raises(ValueError, match=f"backbone={name} has no layer that gives a map of"):
            show(fitted(backbone, X, y, max_epochs=1), X)
