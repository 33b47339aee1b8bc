"""Checks of the exercises in the chapters on the paper's theorems.

These are on what low variance costs, which teachers are fast, and Best-of-N.
"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from rvlib.exercises.checking import exercise, near
from rvlib.tabular import autoregressive, best_of_n, bounds, rlhf_gradient, softmax

# ---- Low variance, slow reward ---------------------------------------------------------------------------------------


@exercise
def many_prompts(time: float) -> str | None:
    """Least time until the mean over quiet prompts rises by 0.5: 50 prompts, a standard deviation of 0.01 on half."""
    right = float(bounds.tabular_slow_time_bound(0.01**2, 0.5, 50))
    if near(time, right / 2):
        return "the gradient is a mean over all 50 prompts, not only over those with low variance."
    if near(time, right / 50):
        return "a step is a mean over the prompts: the number of prompts is missing."
    if not near(time, right):
        return "one of the prompts with low variance must have risen by 0.5; use the theorem for it."
    return None


# ---- Low variance, vanishing gradient --------------------------------------------------------------------------------


@exercise
def best_cut(constant: float) -> str | None:
    """The least of 4/c² + 2c over c, in units of L J (M W)^(1/3)."""
    least = minimize_scalar(lambda c: 4 / c**2 + 2 * c, bracket=(0.5, 1, 3)).fun  # in units of L J (M W)^{1/3}
    if constant > least * 1.001:
        return "another c gives a smaller constant."
    if not near(constant, least):
        return "no c gives a constant as small as this: put your c into 4MW/c² + 2c."
    return None


@exercise
def share_of_bound(share: float) -> str | None:
    """Gradient norm over the sharper bound: four binary tokens, one row of logits, reward 1 for one output alone."""
    prefixes, _ = autoregressive.shape_of(2, 4)
    reward = np.array([float(sum(y) == 0) for y in itertools.product(range(2), repeat=4)])
    gradient = autoregressive.policy_gradient(np.zeros((prefixes, 2)), reward).sum(0)
    bound = bounds.sharper_gradient_norm_bound(reward.mean() * (1 - reward.mean()), 4, 1.0)
    if share > 1:
        return "the gradient norm cannot be above the bound."
    if near(share, abs(gradient[0]) / bound):
        return "the gradient has two entries, one for each logit: take the norm of both."
    if near(share, np.linalg.norm(gradient) / (bound * np.sqrt(2))):
        return "the bound has LW/2 under the root, not LW."
    if not near(share, np.linalg.norm(gradient) / bound):
        return (
            "it is not the gradient norm over the bound: check the variance, and that all four steps share the two "
            "logits."
        )
    return None


# ---- Low variance, slow reward, for language models ------------------------------------------------------------------


@exercise
def lambda_takes_over(lam: float) -> str | None:
    """The λ from which on the second term of the paper's Theorem 4 is the smaller, at γ = 1/2."""
    if lam <= 0:
        return "λ must be positive."

    def penalty_is_smaller(kl_coef: float) -> bool:
        without = bounds.slow_time_bound(1.0, 0.5, 1, 1.0)
        return bool(bounds.slow_time_bound(1.0, 0.5, 1, 1.0, kl_coef) < without * (1 - 1e-9))

    if not penalty_is_smaller(lam * 1.002):
        return "a little above this λ the first term is still the smaller."
    if penalty_is_smaller(lam * 0.998):
        return "a little below this λ the second term is the smaller already."
    return None


@exercise
def thousandth_of_the_variance(paper: float, book: float) -> str | None:
    """By what factors the two least times grow as the variance falls to a thousandth: the paper's, this book's."""
    cases: tuple[tuple[str, float, Callable[..., NDArray[np.float64]]], ...] = (
        ("the paper's", paper, bounds.slow_time_bound),
        ("this book's", book, bounds.sharper_slow_time_bound),
    )
    for name, factor, bound in cases:
        if not near(factor, bound(1e-5, 0.3, 3, 1.0) / bound(1e-2, 0.3, 3, 1.0)):
            return f"{name} bound on the time does not grow by this factor; look at the exponent of the variance."
    return None


# ---- Accurate is not enough ------------------------------------------------------------------------------------------


@exercise
def hardly_right(accuracy: float) -> str | None:
    """The least accuracy of a reward model that ranks the best of 40 outputs first."""
    pairs = 40 * 39 / 2
    if near(accuracy, 1 / 40):
        return "count each pair once: there are n(n - 1)/2 of them."
    if accuracy < 39 / pairs * 0.999:
        return "the best output is ranked first, so its pairs are right."
    if not near(accuracy, 39 / pairs):
        return "some more pairs can be wrong."
    return None


@exercise
def fast_numbers(time: float) -> str | None:
    """This book's greatest t_γ of the fast teacher's four outputs."""
    probs, truth, reward = np.full(4, 0.25), np.array([1.0, 0.0, 0.0, -1.0]), np.array([1.0, 0.2, 0.1, 0.05])
    right = bounds.sharper_tabular_fast_time_bound(probs, reward, truth, 0.4, [0]) / 1.6
    if near(time, bounds.inaccurate_but_fast_time_bound(probs, truth, 0.4, 0)):
        return "this is the bound of the paper's Theorem 5, which uses less of the teacher; use δ and κ."
    if near(time, 1.6 * right):
        return "there are no bad outputs and λ = 0: the factor in front is 1."
    if not near(time, right):
        return "it is not (1/P - 1/ρ)/κ: check ρ, then the mean of the proxy."
    return None


@exercise
def falls_at_first(b: float) -> str | None:
    """The reward b of the second output at which the first begins to fall at the start."""

    def slope(b: float) -> float:
        logits, reward = np.log([0.05, 0.6, 0.35]), np.array([1.0, b, -1.0])
        gradient = rlhf_gradient(logits, reward, logits, 0.0)
        return gradient[0] - softmax(logits) @ gradient

    if slope(b + 2e-3) > 0:
        return "a little above this b the first output still rises."
    if slope(b - 2e-3) < 0:
        return "a little below this b the first output falls already."
    return None


# ---- Another policy, another teacher ---------------------------------------------------------------------------------


@exercise
def certain_order(slowness: float) -> str | None:
    """The T of the paper's Theorem 6 from which on the order of the two teachers is certain."""
    fast = 0.8 / 0.4**3 * (1 / 0.2 - 1 / 0.6)
    if near(slowness, fast / bounds.mismatched_teacher_time_bound(0.5, 1.0)):
        return "this is with the paper's lower bound; the chapter's is larger."
    if near(slowness**2, fast / bounds.two_marks_time_bound(1.0, 0.5)):
        return "this is with the bound for two rewards, which is larger; the question is for the bound by the variance."
    if not near(slowness, fast / (2 * -np.expm1(-0.25))):
        return "at this T the two times are not equal."
    return None


@exercise
def too_rare(time: float) -> str | None:
    """The least t_γ under two marks where the liked outputs have probability 0.001 and γ = 0.3."""
    if near(time, bounds.tabular_slow_time_bound(4 * 0.001 * 0.999, 0.3)):
        return "this is the bound of the paper's Prop. 3; the one for two rewards is larger."
    if not near(time, bounds.two_marks_time_bound(0.001, 0.3)):
        return "it is not the bound for two rewards: check the probability and the gain."
    return None


# ---- Where accuracy is everything: Best-of-N -------------------------------------------------------------------------


@exercise
def best_of_three(reward: float) -> str | None:
    """Expected ground truth reward of Best-of-3 with a reward model that ties the first two outputs."""
    probs, truth = np.array([0.2, 0.3, 0.5]), np.array([1.0, 0.0, -1.0])
    if near(reward, best_of_n(probs, truth, truth, 3)):
        return "this reward model ties the first two outputs."
    if not near(reward, best_of_n(probs, np.array([1.0, 1.0, 0.0]), truth, 3)):
        return "first find the probability that the lower level is kept, then divide the rest within the upper one."
    return None


@exercise
def enough_samples(n: float) -> str | None:
    """Samples that hold an output of probability 1 % with probability 95 %."""
    if n < 1 or n != round(n):
        return "N is a whole number, and at least 1."
    if 1 - 0.99**n < 0.95:
        return "with so many samples the best output is missed too often."
    if 1 - 0.99 ** (n - 1) >= 0.95:
        return "fewer samples are enough."
    return None
