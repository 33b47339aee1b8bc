"""Checks of the exercises in the chapters that go beyond the paper's theorems.

These are on samples, transformers, other geometries, sharper bounds and remedies.
"""

import numpy as np
from scipy.special import expit, logit

from rvlib.exercises.checking import exercise, near
from rvlib.tabular import autoregressive, bounds, estimators, geometry, predictors

# ---- From exact gradients to samples ---------------------------------------------------------------------------------


@exercise
def silent_group(share: float) -> str | None:
    """Probability that a group of four samples from (0.2, 0.8) has no spread."""
    silent = estimators.no_spread_probability(np.array([0.2, 0.8]), np.array([1.0, -1.0]), 4)
    if near(share, 0.8**4):
        return "a group in which all samples are right has no spread either."
    if near(1 - share, silent):
        return "this is the share that does give a gradient."
    if not near(share, silent):
        return "all four must be on one level: add that up over the two levels."
    return None


@exercise
def win_variance(variance: float) -> str | None:
    """Variance of the win rate of four outputs, two of them tied."""
    if near(variance, (1 - 0.4**3 - 0.3**3 - 0.2**3 - 0.1**3) / 3):
        return "two outputs are tied: they share a level."
    if near(variance, 1 / 3):
        return "this is the value without levels of positive probability."
    if not near(variance, (1 - 0.7**3 - 0.2**3 - 0.1**3) / 3):
        return "it is not the variance of the win rate; the values of the rewards must not matter."
    return None


@exercise
def enough_group(group_size: float) -> str | None:
    """Samples in a group from which on the cap of the signal-to-noise ratio allows 1."""
    least = 2 * 0.99 * 0.5**2 / 0.01
    if group_size != round(group_size):
        return "the number of samples is a whole number."
    if group_size < least:
        return "with so few the upper bound is below 1."
    if group_size - 1 >= least:
        return "fewer are not excluded by the upper bound."
    return None


# ---- A language model you can enumerate ------------------------------------------------------------------------------


@exercise
def prefixes(rows: float) -> str | None:
    """Rows of logits of a table for five tokens from ten."""
    right, outputs = autoregressive.shape_of(10, 5)
    if rows == outputs:
        return "these are the outputs; a whole output has no next token."
    if rows == right - 1:
        return "the empty prefix has a row too."
    if rows != right:
        return "there is a row for each beginning of 0, 1, 2, 3 or 4 tokens."
    return None


@exercise
def least_jacobian(least: float) -> str | None:
    """The Jacobian norm that a gradient norm of 1.2 needs at least, by the sharper bound."""
    if least < 0:
        return "a norm is not negative."
    if not near(bounds.sharper_gradient_norm_bound(0.48, 3, least), 1.2):
        return "with this J the bound is not equal to the gradient norm."
    return None


# ---- Geometry decides what rarity costs ------------------------------------------------------------------------------


@exercise
def million_to_one(time: float) -> str | None:
    """Time of natural gradient flow until an output of probability a millionth, with rewards of ±1, has 0.9."""
    right = float(geometry.two_output_time(1e-6, 0.9, power=0.0))
    if near(time, 2 * right):
        return "the odds grow by the difference of the two rewards, which is 2."
    if near(time, np.log(1e6) / 2):
        return "this is the time until its probability is one half."
    return None if near(time, right) else "look at how the odds p/(1 - p) grow with time."


@exercise
def two_reasons(first: float, second: float) -> str | None:
    """The least times under the natural gradient for two reward models of variance 4e-6 and a gain of 0.5."""
    for name, time, width in (("first", first, 2.0), ("second", second, 0.004)):
        if not near(time, float(geometry.natural_slow_time_bound(4e-6, 0.5, width))):
            return f"the bound for the {name} reward model is wrong; R is its largest reward minus its smallest."
    return None


@exercise
def first_spread(steps: float) -> str | None:
    """Mean number of steps until a group of eight has a spread, with praise of probability 0.001."""
    return None if near(steps, 1 / (1 - 0.001**8 - 0.999**8)) else "it is the inverse of the chance of a spread."


# ---- How loose, and what is sharp? Which predictor tells a good teacher? ---------------------------------------------


@exercise
def which_bound(factor: float) -> str | None:
    """How many times as large the bound from the gradient is as the sharper one, one rare output being liked."""
    p, gain = 1e-4, 0.3
    deviation = 2 * bounds.tabular_slow_time_bound(4 * p * (1 - p), gain)
    if near(factor, bounds.gradient_slow_time_bound(2 * p, gain) / (deviation / 2)):
        return "this is against the paper's Prop. 3; the question is about twice it."
    if factor < 1:
        return "the bound from the gradient is the larger one here."
    if not near(factor, bounds.gradient_slow_time_bound(2 * p, gain) / deviation):
        return "the two bounds do not have this ratio: check σ and the exponent."
    return None


@exercise
def harmless_until(time: float) -> str | None:
    """The time up to which the lower edge of the envelope cannot have come back to 0."""
    cosine, size = 0.5, 0.1
    right = cosine / (1 + cosine) / (1.6 * size)
    if near(time, 1.6 * right):
        return "κ is missing: z is κ times the gradient's norm times the time."
    if near(time, cosine / (1.6 * size)):
        return "the second term is z²/(1 - z), not z²."
    if not near(time, right):
        return "it is not where the lower edge of the envelope comes back to 0."
    return None


@exercise
def first_slope(rate: float) -> str | None:
    """dV_G/dt at the start: the π²-weighted covariance of three outputs."""
    probs, truth, marks = np.array([0.2, 0.3, 0.5]), np.array([1.0, 0.0, -1.0]), np.array([1.0, -1.0, 0.0])
    exact = predictors.exact_predictors(probs, marks, truth)
    if near(rate, exact["covariance"]):
        return "this is the covariance; the law has the squares of the probabilities."
    if not near(rate, exact["π²-weighted covariance"]):
        return "it is not the sum of π²(r_RM - V_RM)(r_G - V_G): check both means."
    return None


# ---- What to do about low variance -----------------------------------------------------------------------------------


@exercise
def smoothed_difference(difference: float) -> str | None:
    """Difference of two rewards after training on labels smoothed by 0.1, where the true one is 2."""
    label = 0.8 * expit(2.0) + 0.1
    if near(difference, label):
        return "this is the smoothed label; the difference is its logit."
    return None if near(difference, logit(label)) else "the loss is least where σ(d) is the smoothed label."


@exercise
def keep_two(ratio: float) -> str | None:
    """Variance of the two extremes of (0, 0.1, 0.4, 1), over that of all four."""
    rewards = np.array([0.0, 0.1, 0.4, 1.0])
    if near(ratio, rewards[[0, 3]].var(ddof=1) / rewards.var(ddof=1)):
        return "divide by the number of samples in both variances, not by one less."
    return None if near(ratio, 0.25 / rewards.var()) else "the two with the largest variance are the extremes."


# ---- Other views -----------------------------------------------------------------------------------------------------


@exercise
def plateau_wait(time: float) -> str | None:
    """Time to leave a plateau at a reward of 0.5 for an answer of reward 1 and probability 0.001."""
    if near(time, 500):
        return "the two rewards differ by 0.5, not by 1."
    return None if near(time, 1000) else "for small q the probability rises as 2Δq²."
