"""What the estimator should show, and whether the lines do."""

from typing import NamedTuple

from .frames import (
    MAP,
    METHODS,
    best_and_worst,
    better_script,
    by_set,
    differences,
    over_sets,
    select,
)
from .groups import LITE0, VIT_TINY

SLOWEST = 1.5  # times the fine-tuning that the default fit contains


class Goal(NamedTuple):
    """What was asked, what was measured, and whether that meets it; None: not measured."""

    what: str
    wanted: str
    measured: str = ""
    met: bool | None = None

    @property
    def word(self):
        """Say it in a word."""
        return {None: "not measured", True: "met", False: "MISSED"}[self.met]


def goals_of(frame):
    """Hold the frame of all runs against every goal."""
    league = select(frame, "league")
    head = select(frame, "head")
    found = []
    for backbone in (LITE0, VIT_TINY):
        for shots in (5, 15):
            lead = differences(
                select(frame, "head", backbone=backbone, shots=shots), "clce", "logistic"
            )
            what = f"head minus LogisticRegression(), {shots} a class, {backbone}"
            found += [mean_goal(what, lead, 1.0), worst_goal(what, lead, -1.0)]
    lead = differences(league, "clce", "logistic")
    what = "CLCEClassifier() minus LogisticRegression(), 10 a class"
    found += [mean_goal(what, lead, 5.0), worst_goal(what, lead, -1.0)]
    script = better_script(league)
    lead = differences(league, "clce", script)
    found.append(mean_goal(f"CLCEClassifier() minus the better script ({script})", lead, 2.0))
    for what, runs, wanted in (("fine-tuned", league, 1.5), ("frozen", head, 0.5)):
        lead = differences(runs, "clce", "ce")
        what = f"CLCE minus weight=0, {what}"
        found += [mean_goal(what, lead, wanted), clear_goal(what, lead, -0.5)]
    found.append(
        best_goal("CLCE minus weight=0, fine-tuned", differences(league, "clce", "ce"), 5.0)
    )
    for other, name in (("logistic", "LogisticRegression()"), ("ce", "weight=0")):
        loss = differences(league, "clce", other, "log_loss")
        found.append(loss_goal(f"log-loss of CLCEClassifier() minus that of {name}", loss))
    for one, wanted in (("clce", 4.0), ("head", 1.0)):
        lead = differences(select(frame, "multilabel"), one, "logistic", MAP)
        what = f"{METHODS[one]} minus LogisticRegression(), several labels"
        found += [mean_goal(what, lead, wanted), worst_goal(what, lead, -1.0)]
    found.append(time_goal(select(frame, "league", method="clce")))
    return found


def at_least(value, wanted):
    """Compare what was measured with what was asked, apart from rounding."""
    return bool(value >= wanted - 1e-9)


def mean_goal(what, lead, wanted):
    """Ask for a mean over sets."""
    goal = Goal(f"{what}: mean", f"at least {wanted:+.1f}")
    mean = over_sets(lead)
    if mean is None:
        return goal
    return goal._replace(measured=f"{mean:.2f}", met=at_least(mean.mean, wanted))


def worst_goal(what, lead, wanted):
    """Ask that no set is lower."""
    goal = Goal(f"{what}: worst set", f"not below {wanted:+.1f}")
    if not len(lead):
        return goal
    _, (name, worst) = best_and_worst(lead)
    return goal._replace(measured=f"{worst:.2f} ({name})", met=at_least(worst.mean, wanted))


def clear_goal(what, lead, wanted):
    """Ask that no set is lower beyond doubt; one whose doubt is unknown counts as it is."""
    goal = Goal(f"{what}: worst set", f"not clearly below {wanted:+.1f}")
    if not len(lead):
        return goal
    _, (name, worst) = best_and_worst(lead)
    clear = [one for one in by_set(lead).values() if one.mean < wanted and not one.high >= wanted]
    return goal._replace(measured=f"{worst:.2f} ({name})", met=not clear)


def best_goal(what, lead, wanted):
    """Ask for one set."""
    goal = Goal(f"{what}: best set", f"at least {wanted:+.1f}")
    if not len(lead):
        return goal
    (name, best), _ = best_and_worst(lead)
    return goal._replace(measured=f"{best:.2f} ({name})", met=at_least(best.mean, wanted))


def loss_goal(what, loss):
    """Ask that the mean is not higher."""
    goal = Goal(f"{what}: mean", "at most 0")
    if not len(loss):
        return goal
    mean = over_sets(loss).mean
    return goal._replace(measured=f"{mean:+.3f}", met=at_least(-mean, 0))


def time_goal(runs):
    """Ask that a fit takes little more than the fine-tuning that it contains."""
    goal = Goal("time of the default fit, of that of its epochs", f"at most {SLOWEST}")
    tuned = runs[runs["trainable"] != "head"] if len(runs) else runs
    if not len(tuned):
        return goal
    ratio = tuned["fit_seconds"].sum() / tuned["epoch_seconds"].sum()
    return goal._replace(measured=f"{ratio:.2f}", met=bool(ratio <= SLOWEST))
