"""What a fine-tuned classifier is worth beside accuracy: retrieval, and corrupted images."""

import io

import numpy as np
import torch
from PIL import Image
from sklearn.preprocessing import normalize
from torchvision.transforms import v2

from .configuration import OURS
from .metrics import classification_metrics, retrieval_metrics
from .models import drawn, make_model, timed_fit


def as_jpeg(image, quality=15):
    """Write and read an image as JPEG: uint8 (3, H, W) -> the same."""
    file = io.BytesIO()
    v2.functional.to_pil_image(image).save(file, "JPEG", quality=quality)
    return v2.functional.pil_to_tensor(Image.open(file))


# About as strong as the middle severity of ImageNet-C (Hendrycks and Dietterich, 2019).
CORRUPTIONS = {
    "noise": v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.GaussianNoise(sigma=0.18),
            v2.ToDtype(torch.uint8, scale=True),
        ]
    ),
    "blur": v2.GaussianBlur(kernel_size=13, sigma=3.0),
    "jpeg": as_jpeg,
    "contrast": v2.ColorJitter(contrast=(0.3, 0.3)),
    "brightness": v2.ColorJitter(brightness=(1.6, 1.6)),
}


def transfer(configuration, surroundings):
    """Train on images of some classes, then classify others of them, find them, and spoil them."""
    x_train, y_train, x_test, y_test = drawn(configuration, surroundings, configuration.shots)
    model = make_model(configuration, surroundings)
    training = timed_fit(model, x_train, y_train, surroundings)
    probabilities = model.predict_proba(x_test)
    metrics = classification_metrics(model.classes_, y_test, probabilities)
    embed = model.transform if configuration.method in OURS else model[0].transform
    metrics |= retrieval_metrics(normalize(embed(x_test)), y_test)
    for name in CORRUPTIONS:
        spoilt = corrupt(name, x_test, configuration.seed)
        metrics[f"{name}_accuracy"] = float(np.mean(model.predict(spoilt) == y_test))
    return {"metrics": metrics, **training, "images": [len(x_train), len(x_test)]}


def corrupt(name, images, seed):
    """Spoil images, the same way for everyone: uint8 (n, H, W, 3) -> the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels_first = torch.from_numpy(images).permute(0, 3, 1, 2)
        spoilt = [CORRUPTIONS[name](image) for image in channels_first]
    return torch.stack(spoilt).permute(0, 2, 3, 1).contiguous().numpy()
