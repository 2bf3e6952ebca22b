"""What is measured: groups of runs, which the report shows one by one."""

from dataclasses import dataclass, replace
from functools import cached_property

from .configuration import (
    CRITERIA,
    FROZEN,
    HEADS,
    RECIPE_OF_AUTHORS,
    TRAINED,
    VOTE,
    Configuration,
    product,
)

MOST_DRAWS = 5
PHOTOGRAPHS = ["flowers", "textures", "waste", "mri", "satellite", "histology", "sketches", "hands"]
SETS = [*PHOTOGRAPHS, "cifar100", "caltech101", "omniglot"]
ALL_IMAGES = 25  # of each class: "all" within hours on a CPU
LITE0, VIT_TINY = "efficientnet_lite0", "vit_tiny"
TWO_BACKBONES = [f"{LITE0}+efficientnet_lite2", f"{LITE0}+{VIT_TINY}"]
LEAGUE = ("clce", "ce", "supcon")  # of ours, in the league
FEW_SHOT = {
    "data": ["cifar_fs", "fc100"],
    "task": ["few_shot"],
    "n_classes": [64],
    "shots": [40],
    "image_size": [96],
    "max_epochs": [10],
}
ABOUT_FEW_SHOT = (
    "The backbone is trained on all base classes, with 40 images each, at 96 pixels, for 10 "
    "epochs. ``LogisticRegression()`` then learns the novel classes in 3,000 5-way episodes with "
    "15 queries per class, on L2-normalised features or embeddings."
)
OF_KINDS = ["clce", "ce", "head", "logistic"]
FEW_IMAGES, ALL_AT_HAND = 100, 400  # of several labels; no set has more than 400 for training
STEPS, N_EQUAL, SHOTS_EQUAL = 64, 8, 32  # 8 x 32 images, which batches of 8 to 256 divide


@dataclass(frozen=True)
class Group:
    """Runs that one part of the report shows.

    Parameters
    ----------
    title : str
        Its heading.
    about : str
        What is compared, for readers.
    settings : tuple of Configuration
        The runs of the first draw.
    draws : int
        How many are made, unless more or fewer are asked for.
    needs_gpu : bool, default=False
        Whether a CPU would take days; such a group is run only if it is named.
    """

    title: str
    about: str
    settings: tuple[Configuration, ...]
    draws: int = 3
    needs_gpu: bool = False

    @cached_property
    def batch_size(self):
        """The batch size that its runs name, if it is one; else 0."""
        sizes = {dict(run.parameters).get("batch_size", 0) for run in self.settings} - {0}
        return sizes.pop() if len(sizes) == 1 else 0

    def runs(self, draws=None):
        """Return the configurations of so many draws, draw by draw."""
        n_draws = self.draws if draws is None else draws
        return [replace(one, seed=seed) for seed in range(n_draws) for one in self.settings]


def group(title, about, *products, **options):
    """Put products of choices together, each configuration once."""
    configurations = [one for choices in products for one in product(**choices)]
    return Group(title, about, tuple(dict.fromkeys(configurations)), **options)


GROUPS = {
    "league": group(
        "Comparison with 10 images per class",
        "All methods at their own defaults, with the same images and weights, at the backbone's "
        "own size.",
        {"data": SETS, "method": [*LEAGUE, "head", *FROZEN, *TRAINED]},
    ),
    "league_few": group(
        "Comparison with 5 images per class",
        "Few images: a fit of 20 epochs has 20 to 40 steps.",
        {"data": SETS, "shots": [5], "method": ["clce", "ce", "logistic", "logistic_cv"]},
    ),
    "vote": group(
        "A vote with a head, 2 and 5 images per class",
        "The default, and the mean of its probabilities and those of a head "
        '(``VotingClassifier(..., voting="soft")``).',
        {"data": SETS, "shots": [2, 5], "method": ["clce", VOTE, "logistic"]},
    ),
    "league_all": group(
        "Comparison with all images",
        f"The same methods with up to {ALL_IMAGES} images per class.",
        {
            "data": SETS,
            "shots": [ALL_IMAGES],
            "method": ["clce", "ce", "logistic", "logistic_cv", *TRAINED],
        },
        draws=1,
    ),
    "league_vit": group(
        "Comparison on a transformer, 10 images per class",
        "The same methods on the backbone ``vit_tiny``.",
        {"data": SETS, "backbone": [VIT_TINY], "method": ["clce", "ce", "logistic"]},
    ),
    "head": group(
        "A head on frozen features",
        "The backbone runs once per image. Heads of ``CLCEClassifier`` also read its lower blocks. "
        "Logistic regression reads the last features. Heads were trained for 20 epochs.",
        {
            "data": SETS,
            "task": ["head"],
            "backbone": [LITE0, VIT_TINY],
            "shots": [2, 5, 15, 40],
            "method": ["clce", "ce", "logistic"],
        },
        draws=5,
    ),
    "lite": group(
        "EfficientNet-Lite 0, 1 and 2",
        "A head on frozen features, 10 images per class: accuracy against time.",
        {
            "data": SETS,
            "task": ["head"],
            "backbone": [LITE0, "efficientnet_lite1", "efficientnet_lite2"],
            "method": ["clce", "logistic"],
        },
    ),
    "two_backbones": group(
        "Two backbones in one head",
        "A head on ``efficientnet_lite0`` alone, and on the features of a second backbone too, "
        "5 and 10 images a class.",
        {
            "data": SETS,
            "task": ["head"],
            "backbone": [LITE0, *TWO_BACKBONES],
            "shots": [5, 10],
            "method": ["clce"],
        },
        draws=1,
    ),
    "many_classes": group(
        "Many classes",
        "25 classes with 8 images each, so that there are many hard negatives.",
        {
            "data": ["cifar100", "caltech101", "omniglot"],
            "n_classes": [25],
            "shots": [8],
            "method": [*LEAGUE, "logistic"],
        },
    ),
    "new_classes": group(
        "New classes from a fine-tuned backbone",
        "The whole backbone is fine-tuned on 10 images each of 16 classes. Then 5-way episodes of "
        "other classes (30 images each) are learned on its embeddings, and on its features.",
        {
            "data": ["cifar_fs", "caltech_fs"],
            "task": ["new_classes"],
            "n_classes": [16],
            "method": list(LEAGUE),
            "trainable": ["all"],
        },
        {
            "data": ["cifar_fs", "caltech_fs"],
            "task": ["new_classes"],
            "n_classes": [16],
            "method": ["logistic"],
        },
    ),
    "few_shot": group(
        "Few-shot: novel classes of CIFAR-FS and FC100",
        ABOUT_FEW_SHOT,
        FEW_SHOT | {"method": ["logistic", *CRITERIA, *RECIPE_OF_AUTHORS]},
        draws=2,
    ),
    "few_shot_vit": group(
        "Few-shot with a transformer",
        ABOUT_FEW_SHOT,
        FEW_SHOT | {"backbone": [VIT_TINY], "method": ["logistic", *CRITERIA, *RECIPE_OF_AUTHORS]},
        draws=1,
    ),
    "transfer": group(
        "Transfer: the effect of the criterion",
        "10 images per class. Recall and mean average precision are those of the embeddings of "
        "test images. Corrupted images are test images with noise, blur, JPEG blocks, low contrast "
        "or too much light.",
        {"data": SETS, "task": ["transfer"], "method": [*CRITERIA, "head", "logistic"]},
    ),
    "head_criteria": group(
        "The criterion of a head",
        "The same criteria on frozen features, trained for 20 epochs.",
        {
            "data": SETS,
            "task": ["head"],
            "backbone": [LITE0, VIT_TINY],
            "shots": [5, 15],
            "method": list(CRITERIA),
        },
    ),
    "sixty_classes": group(
        "Sixty classes",
        "60 classes with 5 images each.",
        {
            "data": ["cifar100", "caltech101"],
            "n_classes": [60],
            "shots": [5],
            "method": OF_KINDS,
        },
        draws=1,
    ),
    "kinds": group(
        "Grey of 16 bits, imbalance, wrong labels",
        "Grey images of 8 and of 16 bits (the same images). "
        "Imbalance: 50 images of the first class to 5 of the last. Wrong labels: a fifth.",
        {
            "data": ["textures", "satellite", "mri"],
            "task": ["grey_8_bits", "grey_16_bits", "wrong_labels"],
            "method": OF_KINDS,
        },
        {
            "data": ["textures", "satellite", "mri"],
            "task": ["imbalanced"],
            "shots": [50],
            "method": OF_KINDS,
        },
        draws=1,
    ),
    "multilabel": group(
        "Several labels an image",
        "Photographs of clothes (6 labels of colour and kind, 2.0 per image, 400 for training) and "
        "of COCO (12 supercategories, 2.4 per image, 240 for training). A random split fixes 100 "
        "of them for training. All test images are ranked by each label. *LogisticRegression()* "
        "has one model per label (``OneVsRestClassifier``).",
        {
            "data": ["apparel", "coco12"],
            "task": ["multilabel"],
            "n_classes": [12],
            "shots": [FEW_IMAGES, ALL_AT_HAND],
            "method": ["logistic", *HEADS, "clce", "ce"],
        },
    ),
    "batch_size": group(
        "Batch size",
        f"{N_EQUAL} classes with {SHOTS_EQUAL} images each, at 64 pixels: {STEPS} steps with every "
        "batch size.",
        {
            "data": ["textures", "hands"],
            "n_classes": [N_EQUAL],
            "shots": [SHOTS_EQUAL],
            "image_size": [64],
            "size": [
                {"batch_size": size, "max_epochs": STEPS * size // (N_EQUAL * SHOTS_EQUAL)}
                for size in (8, 16, 32, 64, 128, 256)
            ],
            "method": ["clce", "ce", "mean_5", "mean_9"],
        },
    ),
    "large": group(
        "Larger, on a GPU",
        "All classes with 40 images each. The whole backbone is fine-tuned. One process made all "
        "runs, with CLCE first on each set, so its seconds include what CUDA prepares for new "
        "shapes.",
        {
            "data": SETS,
            "n_classes": [242],
            "shots": [40],
            "backbone": [LITE0, VIT_TINY],
            "batch_size": [128],
            "trainable": ["all"],
            "method": list(LEAGUE),
        },
        {
            "data": SETS,
            "n_classes": [242],
            "shots": [40],
            "backbone": [LITE0, VIT_TINY],
            "method": ["logistic"],
        },
        needs_gpu=True,
    ),
}
