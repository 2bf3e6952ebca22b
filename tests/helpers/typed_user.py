"""What a user with a type checker writes; mypy --strict and pyright find nothing in it."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import get_scorer
from torch import Tensor, nn

from sklearn_clce import (
    BackboneFeatures,
    ClassBalancedBatchSampler,
    CLCEClassifier,
    CLCELoss,
    FeatureStore,
    LabelAwareContrastiveLoss,
    backbone_aliases,
    clce_loss,
    few_shot_score,
    label_aware_contrastive_loss,
    list_images,
    load_image_folder,
)


def darker(images: Tensor) -> Tensor:
    return images / 2


def own_score(estimator: CLCEClassifier, X: NDArray[np.float64], y: list[str]) -> float:
    return -estimator.score(X, y)


def classifiers() -> list[CLCEClassifier]:
    return [
        CLCEClassifier(trainable=2),
        CLCEClassifier(trainable="lora", lora_rank=4),
        CLCEClassifier(nn.Identity()),
        CLCEClassifier(pretrained="w.safetensors"),
        CLCEClassifier(pretrained=Path("w.safetensors"), trainable="head"),
        CLCEClassifier(layer_decay=0.75),
        CLCEClassifier(projection_dim=None),
        CLCEClassifier(projection_dim=64),
        CLCEClassifier(max_grad_norm=None),
        CLCEClassifier(augment=darker),
        CLCEClassifier(augment=nn.Identity()),
        CLCEClassifier(augment=None),
        CLCEClassifier(device=torch.device("cpu")),
        CLCEClassifier(weight=1, temperature=1, hardness=0, positives="mean"),
        CLCEClassifier(image_size=64, image_shape=(8, 8), micro_batch_size=8),
        CLCEClassifier(class_weight={"cat": 2.0, "dog": 1}),
        CLCEClassifier(class_weight="balanced", sampler="balanced"),
        CLCEClassifier(random_state=np.random.RandomState(0), verbose=True),
        CLCEClassifier(memory=FeatureStore("features"), checkpoint=Path("checkpoint")),
        CLCEClassifier(early_stopping=True, scoring="neg_log_loss"),
        CLCEClassifier(early_stopping=True, scoring=get_scorer("f1_macro")),
        CLCEClassifier(early_stopping=True, scoring=own_score),
        CLCEClassifier(max_time=60, precision="float16"),
        CLCEClassifier(max_time=0.5),
        CLCEClassifier(skorch_params={"optimizer": torch.optim.SGD}, callbacks=[]),
    ]


def use(X: NDArray[np.float64], y: list[str], folder: Path) -> float:
    clf = CLCEClassifier().fit(X, y, sample_weight=[1.0] * len(y))
    clf = clf.fit(X, y, X_val=X, y_val=y, sample_weight_val=[1.0] * len(y))
    clf = clf.partial_fit(X, y, classes=["cat", "dog"])
    embedding: NDArray[np.float32] = clf.transform(X)
    probabilities: NDArray[np.float32] = clf.predict_proba(X) + clf.decision_function(X)
    labels: NDArray[np.str_] = clf.predict(X)
    clf.save(folder / "model.safetensors")
    clf.export_onnx(folder / "model.onnx", input_dtype="float32")
    loaded: CLCEClassifier = CLCEClassifier.load("model.safetensors", device="cpu")
    losses: list[float] = [epoch["train_loss"] for epoch in loaded.history_]
    loaded = loaded.add_classes(X, ["bird"] * len(X)).calibrate_offset(X, contamination=0.1)
    known: NDArray[np.bool_] = loaded.score_samples(X) >= loaded.offset_
    classes: list[str] = loaded.classes_.tolist()
    module: nn.Module = loaded.module_
    print(
        embedding.shape, probabilities.max(), labels, known, losses, classes, module, loaded.n_iter_
    )
    return clf.score(X, y)


def features(paths: list[Path]) -> NDArray[np.float32]:
    BackboneFeatures(nn.Identity())
    names = ["beit", "vit"]
    CLCEClassifier(names), CLCEClassifier(("beit", nn.Identity()), trainable="head")
    return BackboneFeatures("beit", pretrained=False, memory="features").fit(paths).transform(paths)


def criterion(logits: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = CLCELoss(weight=0.5)(logits, embeddings, labels)
    loss = loss + clce_loss(logits, embeddings, labels, weight=0.5)
    loss = loss + LabelAwareContrastiveLoss(temperature=0.1)(embeddings, labels)
    return loss + label_aware_contrastive_loss(embeddings, labels, temperature=0.1)


def others(X: NDArray[np.float64], y: list[str]) -> None:
    for batch in ClassBalancedBatchSampler(y, classes_per_batch=2, samples_per_class=2):
        print(len(batch))
    low, high = few_shot_score(CLCEClassifier(), X, y, k_shot=5).interval
    paths, names = load_image_folder("pictures")
    print(low < high, backbone_aliases()["beit"], paths[0], names[0])
    CLCEClassifier().fit(paths, names).predict_frame(list_images(Path("new"))).to_csv("table.csv")
