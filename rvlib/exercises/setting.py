"""Checks of the exercises in the first chapters: the question, RLHF, accuracy and reward variance."""

import numpy as np

from rvlib.exercises.checking import exercise, near
from rvlib.metrics import ranking_accuracy
from rvlib.tabular import geometry, time_to_gain

# ---- A number for a good teacher -------------------------------------------------------------------------------------


@exercise
def nearly_certain(bound: float) -> str | None:
    """The most that the logits of a policy that is 98 % certain can move in a unit of time, one prompt."""
    if near(bound, 0.04):
        return "the likely output and the unlikely ones contribute 2δ each."
    return None if near(bound, 4 * 0.02) else "it is a multiple of δ = 0.02."


@exercise
def rough_loses(best: float, middling: float, worst: float) -> str | None:
    """Rewards of accuracy 2/3 for the first chapter's student under which its ground truth never rises by 1."""
    reward, truth = np.array([best, middling, worst]), np.array([1.0, 0.0, -1.0])
    if np.abs(reward).max() > 1:
        return "the rewards must lie in [-1, 1]."
    if not near(ranking_accuracy(reward, truth), 2 / 3):
        return "two of the three pairs must be in the right order, and the third must not."
    if np.isfinite(time_to_gain(np.log([0.1, 0.3, 0.6]), reward, 1.0, measured=truth)):
        return "under these rewards the ground truth does rise by 1: look at which pair is wrong."
    return None


# ---- RLHF in one page ------------------------------------------------------------------------------------------------


@exercise
def two_outputs(time: float) -> str | None:
    """Time in which the better of two outputs, 1 apart in reward, rises from probability 0.2 to 0.7."""
    right = float(geometry.two_output_time(0.2, 0.7, gap=1.0))
    if near(time, 2 * right) or near(time, right / 2):
        return "d + sinh d grows at the rate Δ: check a factor of two."
    return None if near(time, right) else "take d + sinh d at both ends, with d = ln(p/(1 - p))."


# ---- Accuracy and reward variance ------------------------------------------------------------------------------------


@exercise
def certain_variance(variance: float) -> str | None:
    """The largest reward variance in [-1, 1] for a policy that gives one output with probability 0.9."""
    if near(variance, 0.09):
        return "this is for rewards in [0, 1]."
    return (
        None if near(variance, 0.36) else "give the likely output one extreme reward and all others the opposite one."
    )
