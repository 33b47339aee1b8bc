"""Problems of the chapters that go beyond the paper's theorems: samples, transformers, geometries, remedies."""

import numpy as np
from scipy.special import expit, logit

from rvlib.problems.making import Question, pick, problem
from rvlib.tabular import autoregressive, bounds, estimators, geometry, predictors

# ---- From exact gradients to samples ---------------------------------------------------------------------------------


@problem
def silent_group(rng: np.random.Generator) -> Question:
    """Share of groups without a gradient."""
    rate, group = pick(rng, 0.1, 0.25, 0.3, 0.4), int(pick(rng, 3, 5, 8))
    text = f"""A policy solves a problem with probability {rate}; rewards are right or wrong, and groups have {group}
    samples. What share of the groups gives no gradient?"""
    return text, estimators.no_spread_probability(np.array([rate, 1 - rate]), np.array([1.0, 0.0]), group)


@problem
def win_variance(rng: np.random.Generator) -> Question:
    """Variance of the win rate with a tie."""
    first = pick(rng, 0.15, 0.2, 0.25)
    masses = np.array([first, 0.3, 0.7 - first])
    text = f"""Four outputs have probabilities $({first},0.3,0.2,{0.5 - first:g})$, and a reward model gives them
    $(0.003,0.002,0.001,0.001)$. What is the variance of the win rate?"""
    return text, float((1 - (masses**3).sum()) / 3)


@problem
def enough_group(rng: np.random.Generator) -> Question:
    """Least group size that the cap on signal to noise allows."""
    variance, noise, outputs = pick(rng, 0.02, 0.04, 0.05), pick(rng, 0.4, 0.6, 0.8), int(pick(rng, 20, 50, 200))
    text = f"""A reward model has reward variance {variance} under a policy that is uniform over {outputs} outputs,
    and its rewards have independent noise with standard deviation {noise}. At least how many samples must a group
    have for a signal-to-noise ratio of 1 not to be excluded by the cap of the chapter on samples?"""
    return text, int(np.ceil(2 * (1 - 1 / outputs) * noise**2 / variance - 1e-9))


# ---- A language model you can enumerate ------------------------------------------------------------------------------


@problem
def prefixes(rng: np.random.Generator) -> Question:
    """Rows of a table of logits."""
    length, vocabulary = int(pick(rng, 3, 4, 6)), int(pick(rng, 5, 8, 20))
    text = f"How many rows has the table of logits of a model that writes {length} tokens from {vocabulary}?"
    return text, int(autoregressive.shape_of(vocabulary, length)[0])


@problem
def least_jacobian(rng: np.random.Generator) -> Question:
    """The Jacobian norm that a gradient norm needs."""
    gradient, variance, length = pick(rng, 0.9, 1.5, 2.0), pick(rng, 0.25, 0.5, 0.64), int(pick(rng, 2, 4, 8))
    text = f"""A policy that writes {length} tokens has a gradient of norm {gradient:g} and reward variance {variance}.
    What is the least $J$ that the bound $J\\sqrt{{LW/2}}$ allows?"""
    return text, float(gradient / np.sqrt(length * variance / 2))


# ---- Geometry decides what rarity costs ------------------------------------------------------------------------------


@problem
def million_to_one(rng: np.random.Generator) -> Question:
    """Time under the natural gradient from a rare start."""
    rare, end = pick(rng, 1e-4, 1e-5, 1e-8), pick(rng, 0.5, 0.8, 0.99)
    text = f"""Two outputs have rewards 1 and $-1$, and the better one has probability {rare:g}. How long does natural
    gradient flow without a penalty take until it has probability {end}?"""
    return text, float(geometry.two_output_time(rare, end, power=0.0))


@problem
def two_reasons(rng: np.random.Generator) -> Question:
    """Bounds under the natural gradient at one variance, for two reasons."""
    variance, gain = pick(rng, 1e-4, 1e-6), pick(rng, 0.3, 0.8)
    widths = (2.0, 2 * variance**0.5)
    text = f"""Two reward models have reward variance {variance:g} under a policy. The first has values $\\pm1$, the
    second $\\pm{variance**0.5:g}$. Compute the least time to gain {gain} under the natural gradient for both."""
    return text, tuple(float(geometry.natural_slow_time_bound(variance, gain, width)) for width in widths)


@problem
def first_spread(rng: np.random.Generator) -> Question:
    """Mean number of steps until a group has a spread."""
    rare, group = pick(rng, 0.002, 0.005, 0.01), int(pick(rng, 4, 16))
    text = f"""A group has {group} samples, and the praised outputs have probability {rare}; there are two rewards.
    After how many steps, on average, does the first update come that is not zero?"""
    return text, float(1 / (1 - rare**group - (1 - rare) ** group))


# ---- How loose, and what is sharp? Which predictor tells a good teacher? ---------------------------------------------


@problem
def which_bound(rng: np.random.Generator) -> Question:
    """Ratio of two lower bounds when praise is rare."""
    digits, gain = int(pick(rng, 3, 5)), pick(rng, 0.2, 0.5)
    rare = 10.0**-digits
    ratio = bounds.gradient_slow_time_bound(2 * rare, gain) / (
        2 * bounds.tabular_slow_time_bound(4 * rare * (1 - rare), gain)
    )
    text = f"""A reward model gives 1 to an output of probability $10^{{-{digits}}}$ and $-1$ to many others
    of small probability each; $\\gamma={gain}$, $\\lambda=0$, one prompt, and its gradient has norm
    $2\\cdot10^{{-{digits}}}$. How
    many times as large as the sharper bound by the variance is the bound from the gradient?"""
    return text, float(ratio)


@problem
def harmless_until(rng: np.random.Generator) -> Question:
    """Time until which the truth has certainly risen."""
    cosine, size = pick(rng, 0.2, 0.4, 0.8), pick(rng, 0.05, 0.2)
    text = f"""A reward model's gradient has norm {size} and cosine {cosine} with that of the ground truth; one
    prompt, $\\lambda=0$. Until which time is it certain, by the envelope of the chapter on what is sharp, that the
    ground truth is above its initial value?"""
    return text, cosine / (1 + cosine) / (1.6 * size)


@problem
def first_slope(rng: np.random.Generator) -> Question:
    """Rate of the truth at the start."""
    first, second = pick(rng, 0.1, 0.25, 0.4), pick(rng, 0.2, 0.35)
    probs = np.array([first, second, 1 - first - second])
    rate = predictors.exact_predictors(probs, np.array([1.0, -1.0, 0.0]), np.array([1.0, 0.0, -1.0]))
    text = f"""Three outputs have probabilities $({first},{second},{probs[2]:g})$, ground truth $(1,0,-1)$ and
    rewards $(1,-1,0)$; one prompt. At which rate does the ground truth rise at the start of gradient flow on the
    logits?"""
    return text, float(rate["π²-weighted covariance"])


# ---- What to do about low variance -----------------------------------------------------------------------------------


@problem
def smoothed_difference(rng: np.random.Generator) -> Question:
    """Difference of two rewards trained on smoothed labels."""
    difference, smoothing = pick(rng, 1.0, 1.5, 3.0), pick(rng, 0.05, 0.2)
    text = f"""A Bradley–Terry model sees two outputs whose true rewards differ by {difference:g}, with labels smoothed
    by $\\varepsilon={smoothing}$. By how much do its rewards differ after training without a penalty?"""
    return text, float(logit((1 - 2 * smoothing) * expit(difference) + smoothing))


@problem
def keep_two(rng: np.random.Generator) -> Question:
    """Variance of the two extremes over that of all four."""
    rewards = np.array([0.0, pick(rng, 0.2, 0.3), pick(rng, 0.5, 0.6), 1.0])
    text = f"""Four samples have rewards 0, {rewards[1]:g}, {rewards[2]:g} and 1. Two are kept, those of the largest
    variance. What is their variance over that of all four, each divided by the number of samples?"""
    return text, float(0.25 / rewards.var())


# ---- Other views -----------------------------------------------------------------------------------------------------


@problem
def plateau_wait(rng: np.random.Generator) -> Question:
    """Time to leave a plateau."""
    mediocre, rare = pick(rng, 0.2, 0.4, 0.6, 0.8), pick(rng, 0.002, 0.0005)
    text = f"""A policy gives a mediocre answer of reward {mediocre} almost always and a good one of reward 1 with
    probability $q={rare}$. About how long does gradient flow on the logits take to leave, to first order in $1/q$?"""
    return text, 1 / (2 * (1 - mediocre) * rare)
