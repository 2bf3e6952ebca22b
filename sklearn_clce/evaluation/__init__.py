"""How good a classifier is on one's own images, against others and with few images of a class."""

from ._comparison import Comparison, compare
from ._few_shot import EpisodeSplit, FewShotScore, few_shot_score

__all__ = ["Comparison", "EpisodeSplit", "FewShotScore", "compare", "few_shot_score"]
