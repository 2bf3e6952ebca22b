"""What is measured: a table of experiments, in groups that the report shows one by one."""

from dataclasses import dataclass

from .configuration import Configuration, product

SEEDS = list(range(5))
METHODS = ["ce", "supcon", "clce"]
RATES = [3e-4, 1e-3, 3e-3]
BRIEF = {"max_epochs": 15, "learning_rate": 1e-3}
THOROUGH = {"max_epochs": 40, "learning_rate": 1e-3}
BUDGETS = [BRIEF, THOROUGH, {"max_epochs": 40, "learning_rate": 3e-4}]
LITE0 = {"backbone": "efficientnet_lite0", "image_size": 64}
VIT_TINY = {"backbone": "vit_tiny", "image_size": 64}
VIT_TINY_96 = {"backbone": "vit_tiny", "image_size": 96}
LITE0_224 = {"backbone": "efficientnet_lite0", "image_size": 224}

# The defaults of weight, temperature, hardness, projection_dim, rates and epochs are chosen
# on these data sets, with draws that no other group makes; classes and images may meet again.
TUNING_DATA = ["cifar100", "fashion_mnist"]
TUNING_SEEDS = list(range(100, 103))
TUNING_CRITERIA = [(0.5, 0.1), (0.5, 0.5), (0.9, 0.5)]

FEW = [
    {"data": "cifar100", "n_classes": 10},
    {"data": "caltech101", "n_classes": 20},
    {"data": "fashion_mnist"},
    {"data": "digits"},
]
TUNING_PICTURES = [one for one in FEW if one["data"] in TUNING_DATA]
TRANSFER = [
    {"data": "cifar100", "n_classes": 10},
    {"data": "caltech101", "n_classes": 20},
    {"data": "omniglot", "n_classes": 50},
]


@dataclass(frozen=True)
class Group:
    """Experiments that one part of the report shows.

    Parameters
    ----------
    title : str
        Its heading.
    about : str
        What is compared, for readers.
    configurations : tuple of Configuration
        The runs.
    goal : float or None, default=None
        Points by which CLCE should beat cross-entropy in the mean over data sets.
    usual : dict or None, default=None
        Settings that all methods of the group have instead of the estimator's defaults.
    evidence : bool, default=True
        Whether it counts in the summary: not where defaults are chosen, nor where another
        group has the same runs.
    """

    title: str
    about: str
    configurations: tuple[Configuration, ...]
    goal: float | None = None
    usual: dict | None = None
    evidence: bool = True


def group(title, about, *products, **options):
    """Put products of choices together.

    Parameters
    ----------
    title, about : str
        Heading and text.
    *products : dict of str to list
        Arguments of :func:`~.configuration.product`.
    **options : object
        See :class:`Group`.

    Returns
    -------
    Group
        With each configuration once.
    """
    configurations = [one for choices in products for one in product(**choices)]
    return Group(title, about, tuple(dict.fromkeys(configurations)), **options)


def floor(pictures, backbones, **choices):
    """Choose logistic regression on frozen features for the same pictures."""
    return {
        "pictures": pictures,
        "backbone": backbones,
        "method": ["logistic"],
        "seed": SEEDS,
        **choices,
    }


GROUPS = {
    "tuning": group(
        "Choice of the defaults",
        "Criterion by criterion, and budget by budget, on the data sets that the defaults are "
        "chosen on, with draws of classes and images that no other part makes.",
        {
            "pictures": TUNING_PICTURES,
            "backbone": [LITE0],
            "budget": [THOROUGH],
            "variant": [
                {"method": "ce"},
                *[
                    {"weight": weight, "temperature": temperature, "hardness": hardness}
                    for weight, temperature in TUNING_CRITERIA
                    for hardness in (0.0, 1.0)
                ],
                {"projection_dim": 128},
            ],
            "seed": TUNING_SEEDS,
        },
        {
            "pictures": TUNING_PICTURES,
            "backbone": [LITE0],
            "budget": [
                BRIEF,
                {"max_epochs": 40, "learning_rate": 3e-4},
                {"max_epochs": 40, "learning_rate": 3e-3},
            ],
            "method": METHODS,
            "seed": TUNING_SEEDS,
        },
        evidence=False,
    ),
    "tuning_frozen": group(
        "Choice of the defaults of a head",
        "A head on frozen features, with and without a projection, on the same data sets.",
        {
            "pictures": TUNING_PICTURES,
            "shots": [5, 20],
            "backbone": [LITE0_224, VIT_TINY_96],
            "trainable": ["head"],
            "budget": [
                {"max_epochs": 20, "learning_rate": 1e-3},
                {"max_epochs": 20, "learning_rate": 3e-3},
                {"max_epochs": 40, "learning_rate": 1e-3},
            ],
            "variant": [
                {"method": method, **projection}
                for method in ("ce", "clce")
                for projection in ({}, {"projection_dim": None})
            ],
            "seed": TUNING_SEEDS,
        },
        floor(TUNING_PICTURES, [LITE0_224, VIT_TINY_96], shots=[5, 20], seed=TUNING_SEEDS),
        evidence=False,
    ),
    "few_labels": group(
        "Few labels",
        "20 training images of each class, the backbone fine-tuned end to end.",
        {
            "pictures": FEW,
            "backbone": [LITE0],
            "budget": BUDGETS,
            "method": METHODS,
            "seed": SEEDS,
        },
        {
            "pictures": FEW[:2],
            "backbone": [VIT_TINY],
            "budget": [BRIEF],
            "method": METHODS,
            "seed": SEEDS,
        },
        floor(FEW, [LITE0]),
        floor(FEW[:2], [VIT_TINY]),
        goal=2.5,
    ),
    "transfer": group(
        "Transfer",
        "All training images at hand (100, up to 40, and 10 of each class), of some classes and of "
        "all of Caltech-101, the backbone fine-tuned end to end. Omniglot, which has half as many "
        "images as CIFAR-100, is seen twice as often too; there balanced batches, which CLCE takes "
        "where classes are many, are set apart from it.",
        {
            "pictures": TRANSFER,
            "backbone": [LITE0],
            "shots": [None],
            "budget": [
                {"max_epochs": 10, "learning_rate": 3e-4},
                {"max_epochs": 10, "learning_rate": 1e-3},
            ],
            "method": METHODS,
            "seed": SEEDS,
        },
        {
            "pictures": TRANSFER[-1:],
            "backbone": [LITE0],
            "shots": [None],
            "budget": [{"max_epochs": 20, "learning_rate": 1e-3}],
            "variant": [
                *[{"method": method} for method in METHODS],
                {"method": "ce", "sampler": "balanced"},
                {"method": "clce", "sampler": "shuffle"},
            ],
            "seed": SEEDS,
        },
        {
            "data": ["caltech101"],
            "backbone": [LITE0],
            "shots": [None],
            "budget": [{"max_epochs": 10, "learning_rate": 1e-3}],
            "method": METHODS,
            "seed": SEEDS,
        },
        floor([*TRANSFER, {"data": "caltech101"}], [LITE0], shots=[None]),
        goal=0.7,
    ),
    "few_shot": group(
        "Few-shot episodes from a backbone trained on base classes",
        "The backbone is fine-tuned on 30 images of each base class of CIFAR-FS and FC100; then "
        "5-way episodes of their test classes are learned by logistic regression, and by the "
        "nearest class mean, on its embeddings.",
        {
            "data": ["cifar_fs", "fc100"],
            "task": ["base"],
            "shots": [30],
            "backbone": [LITE0],
            "batch_size": [128],
            "max_epochs": [5],
            "learning_rate": [1e-3],
            "method": METHODS,
            "seed": SEEDS,
        },
        {
            "data": ["cifar_fs", "fc100"],
            "task": ["base"],
            "shots": [30],
            "backbone": [LITE0],
            "method": ["logistic"],
            "seed": SEEDS,
        },
    ),
    "episodes": group(
        "Few-shot episodes, fine-tuned one by one",
        "In each 5-way episode of the test classes of CIFAR-FS the pretrained backbone is "
        "fine-tuned on the support images, two views of each, so that an only image has a "
        "positive.",
        {
            "data": ["cifar_fs"],
            "task": ["episodes"],
            "n_classes": [5],
            "shots": [1, 5],
            "backbone": [LITE0],
            "n_views": [2],
            "budget": [BRIEF],
            "method": METHODS,
            "seed": SEEDS,
        },
        {
            "data": ["cifar_fs"],
            "task": ["episodes"],
            "n_classes": [5],
            "shots": [1, 5],
            "backbone": [LITE0],
            "method": ["logistic"],
            "seed": SEEDS,
        },
        usual={"n_views": 2},
    ),
    "batch_size": group(
        "Batch size",
        "20 training images of each class. The number of epochs is the same, so that smaller "
        "batches make more steps.",
        {
            "pictures": TUNING_PICTURES,
            "backbone": [LITE0],
            "budget": [BRIEF],
            "batch_size": [8, 16, 32, 64, 128, 256],
            "method": METHODS,
            "seed": SEEDS[:3],
        },
        {
            "pictures": TUNING_PICTURES,
            "backbone": [LITE0],
            "budget": [BRIEF],
            "batch_size": [8, 16],
            "variant": [  # of so small batches "auto" makes balanced ones
                {"sampler": "shuffle"},
                {"sampler": "shuffle", "n_views": 2},
                {"n_views": 2},
                {"method": "ce", "n_views": 2},
            ],
            "seed": SEEDS[:3],
        },
    ),
    "longer": group(
        "The largest batch, for longer",
        "20 training images of each class, which a batch of 256 holds in one step. 105 epochs make "
        "as many steps as 15 epochs of batches of 32: this tells the size of a batch from the "
        "number of steps.",
        {
            "pictures": TUNING_PICTURES,
            "backbone": [LITE0],
            "batch_size": [256],
            "budget": [BRIEF, {"max_epochs": 105, "learning_rate": 1e-3}],
            "method": METHODS,
            "seed": SEEDS[:3],
        },
    ),
    "ablation": group(
        "Hardness and projection head, fine-tuned",
        "20 training images of each class; CLCE at its defaults but for what is named.",
        {
            "pictures": FEW[:2],
            "backbone": [LITE0],
            "budget": [BRIEF],
            "variant": [
                {"method": "ce"},
                {"method": "ce", "projection_dim": 128},
                *[{"hardness": hardness} for hardness in (0.0, 0.5, 1.0, 2.0)],
                *[{"hardness": h, "projection_dim": 128} for h in (0.0, 1.0)],
            ],
            "seed": SEEDS,
        },
        evidence=False,
    ),
    "two_views": group(
        "Few labels, two views of each image",
        "As above with two augmented copies of each image in a batch, for cross-entropy too, which "
        "doubles the cost of an epoch.",
        {
            "pictures": FEW,
            "backbone": [LITE0],
            "n_views": [2],
            "budget": [BRIEF],
            "method": ["ce", "clce"],
            "seed": SEEDS,
        },
        usual={"n_views": 2},
    ),
    "random_start": group(
        "Few labels, from a classifier that starts at random",
        "What the start of the classifier does: 20 training images of each class, as above, but "
        "from random weights, as is usual, instead of zeros.",
        {
            "pictures": TUNING_PICTURES,
            "backbone": [LITE0],
            "budget": [THOROUGH],
            "classifier": ["random", "zero"],
            "method": ["ce", "clce"],
            "seed": SEEDS,
        },
        usual={"classifier": "random"},
    ),
    "frozen": group(
        "Frozen backbone",
        "A head on frozen features; 5 and 20 training images of each class.",
        {
            "pictures": FEW,
            "shots": [5, 20],
            "backbone": [LITE0_224, VIT_TINY_96],
            "trainable": ["head"],
            "variant": [
                {"method": "ce"},
                {"method": "ce", "projection_dim": None},
                *[{"hardness": hardness} for hardness in (0.0, 0.5, 1.0, 2.0)],
                {"projection_dim": None},
            ],
            "seed": SEEDS,
        },
        floor(FEW, [LITE0_224, VIT_TINY_96], shots=[5, 20]),
    ),
    "large": group(
        "Larger, on a GPU",
        "All classes and all training images at 224 pixels, the backbone fine-tuned end to end.",
        {
            "data": ["cifar100", "caltech101", "fashion_mnist"],
            "shots": [None],
            "backbone": [LITE0_224, {"backbone": "vit_tiny", "image_size": 224}],
            "batch_size": [128],
            "max_epochs": [20],
            "learning_rate": RATES,
            "method": METHODS,
            "seed": SEEDS,
        },
    ),
}
