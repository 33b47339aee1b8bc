"""Checks of the book's exercises that have a computable answer: right, or which property the answer fails; never the
answer.

    check("best-cut", 6.0)   →   Not yet: another c gives a smaller constant.

An exercise is a function here, named as its slug, that returns the property that an answer fails, or nothing for a
right one.
"""

import itertools

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from scipy.stats import t as t_distribution

from rvlib.tabular import autoregressive, best_of_n, bounds, estimators, rlhf_gradient, scores, softmax

_EXERCISES = {}


def check(slug, answer):
    """Print whether `answer` solves the exercise called `slug`, and if not, what is wrong with it; True or False.

    Numbers may be off by 1e-3 of themselves. ValueError for an exercise that does not exist, or an answer that is not
    made of as many numbers as are asked for.
    """
    if slug not in _EXERCISES:
        raise ValueError(f"slug must name an exercise, got {slug!r}; there are {', '.join(sorted(_EXERCISES))}.")
    function, wanted = _EXERCISES[slug]
    try:
        numbers = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if numbers.size != wanted or not np.isfinite(numbers).all():
        raise ValueError(f"answer must be {wanted} number{'s' * (wanted > 1)}, got {answer!r}.")
    failed = function(*map(float, numbers.ravel()))
    print(f"Not yet: {failed}" if failed else "Right.")
    return not failed


def exercise(function):
    """Register a function as the check of the exercise of its name, with - for _; it takes the answer's numbers."""
    _EXERCISES[function.__name__.replace("_", "-")] = function, function.__code__.co_argcount
    return function


def near(value, right):
    return abs(value - right) <= 1e-3 * abs(right)


# ---- Low variance, vanishing gradient --------------------------------------------------------------------------------


@exercise
def best_cut(constant):
    least = minimize_scalar(lambda c: 4 / c**2 + 2 * c, bracket=(0.5, 1, 3)).fun  # in units of L J (M W)^{1/3}
    if constant > least * 1.001:
        return "another c gives a smaller constant."
    if not near(constant, least):
        return "no c gives a constant as small as this: put your c into 4MW/c² + 2c."


@exercise
def share_of_bound(share):
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


# ---- Low variance, slow reward, for language models ------------------------------------------------------------------


@exercise
def lambda_takes_over(lam):
    if lam <= 0:
        return "λ must be positive."

    def penalty_is_smaller(kl_coef):
        without = bounds.slow_time_bound(1.0, 0.5, 1, 1.0)
        return bounds.slow_time_bound(1.0, 0.5, 1, 1.0, kl_coef) < without * (1 - 1e-9)

    if not penalty_is_smaller(lam * 1.002):
        return "a little above this λ the first term is still the smaller."
    if penalty_is_smaller(lam * 0.998):
        return "a little below this λ the second term is the smaller already."


@exercise
def thousandth_of_the_variance(paper, ours):
    for name, factor, bound in (
        ("the paper's", paper, lambda v: bounds.slow_time_bound(v, 0.3, 3, 1.0)),
        ("this book's", ours, lambda v: bounds.sharper_slow_time_bound(v, 0.3, 3, 1.0)),
    ):
        if not near(factor, bound(1e-5) / bound(1e-2)):
            return f"{name} least time does not grow by this factor; look at the exponent of the variance."


# ---- Accurate is not enough ------------------------------------------------------------------------------------------


@exercise
def hardly_right(accuracy):
    pairs = 40 * 39 / 2
    if near(accuracy, 1 / 40):
        return "count each pair once: there are n(n - 1)/2 of them."
    if accuracy < 39 / pairs * 0.999:
        return "the best output is ranked first, so its pairs are right."
    if not near(accuracy, 39 / pairs):
        return "some more pairs can be wrong."


@exercise
def fast_numbers(time):
    probs, truth, reward = np.full(4, 0.25), np.array([1.0, 0.0, 0.0, -1.0]), np.array([1.0, 0.2, 0.1, 0.05])
    right = bounds.sharper_tabular_fast_time_bound(probs, reward, truth, 0.4, [0]) / 1.6
    if near(time, bounds.inaccurate_but_fast_time_bound(probs, truth, 0.4, 0)):
        return "this is Theorem 5's bound, which knows less of the teacher; use δ and κ."
    if near(time, 1.6 * right):
        return "there are no bad outputs and λ = 0: the factor in front is 1."
    if not near(time, right):
        return "it is not (1/P - 1/ρ)/κ: check ρ, then the mean of the proxy."


@exercise
def falls_at_first(b):
    def slope(b):
        logits, reward = np.log([0.05, 0.6, 0.35]), np.array([1.0, b, -1.0])
        gradient = rlhf_gradient(logits, reward, logits, 0.0)
        return gradient[0] - softmax(logits) @ gradient

    if slope(b + 2e-3) > 0:
        return "a little above this b the first output still rises."
    if slope(b - 2e-3) < 0:
        return "a little below this b the first output falls already."


# ---- Another policy, another teacher ---------------------------------------------------------------------------------


@exercise
def certain_order(slowness):
    fast = 0.8 / 0.4**3 * (1 / 0.2 - 1 / 0.6)
    if near(slowness, fast / bounds.mismatched_teacher_time_bound(0.5, 1.0)):
        return "this is with the paper's lower bound; the chapter's is larger."
    if near(slowness**2, fast / bounds.two_marks_time_bound(1.0, 0.5)):
        return (
            "this is with the bound for two marks, which tells it sooner; the question is for the bound by the "
            "variance."
        )
    if not near(slowness, fast / (2 * -np.expm1(-0.25))):
        return "at this T the two times are not equal."


@exercise
def too_rare(time):
    if near(time, bounds.tabular_slow_time_bound(4 * 0.001 * 0.999, 0.3)):
        return "this is Proposition 3's bound; the one for two marks is larger."
    if not near(time, bounds.two_marks_time_bound(0.001, 0.3)):
        return "it is not the bound for two marks: check the probability and the gain."


# ---- Where accuracy is everything: Best-of-N -------------------------------------------------------------------------


@exercise
def best_of_three(reward):
    probs, truth = np.array([0.2, 0.3, 0.5]), np.array([1.0, 0.0, -1.0])
    if near(reward, best_of_n(probs, truth, truth, 3)):
        return "this reward model ties the first two outputs."
    if not near(reward, best_of_n(probs, np.array([1.0, 1.0, 0.0]), truth, 3)):
        return "first find how likely the lower level is kept, then share out the rest within the upper one."


@exercise
def enough_samples(n):
    if n != round(n):
        return "N is a whole number."
    if 1 - 0.99**n < 0.95:
        return "with so many samples the best output is missed too often."
    if 1 - 0.99 ** (n - 1) >= 0.95:
        return "fewer samples are enough."


# ---- From exact gradients to samples ---------------------------------------------------------------------------------


@exercise
def silent_group(share):
    silent = estimators.no_spread_probability(np.array([0.2, 0.8]), np.array([1.0, -1.0]), 4)
    if near(share, 0.8**4):
        return "a group that is right throughout has no spread either."
    if near(1 - share, silent):
        return "this is the share that does give a gradient."
    if not near(share, silent):
        return "all four must be on one level: add that up over the two levels."


@exercise
def win_variance(variance):
    if near(variance, (1 - 0.4**3 - 0.3**3 - 0.2**3 - 0.1**3) / 3):
        return "two outputs are tied: they share a level."
    if near(variance, 1 / 3):
        return "this is the value without levels of positive probability."
    if not near(variance, (1 - 0.7**3 - 0.2**3 - 0.1**3) / 3):
        return "it is not the variance of the win rate; the marks' sizes must not matter."


@exercise
def enough_group(samples):
    least = 2 * 0.99 * 0.5**2 / 0.01
    if samples != round(samples):
        return "the number of samples is a whole number."
    if samples < least:
        return "with so few the cap is below 1."
    if samples - 1 >= least:
        return "fewer are not excluded by the cap."


# ---- How loose, and what is sharp? -----------------------------------------------------------------------------------


@exercise
def first_slope(rate):
    probs, truth, marks = np.array([0.2, 0.3, 0.5]), np.array([1.0, 0.0, -1.0]), np.array([1.0, -1.0, 0.0])
    grades = scores.teacher_scores(probs, marks, truth)
    if near(rate, grades["covariance"]):
        return "this is the covariance; the law has the squares of the probabilities."
    if not near(rate, grades["π²-weighted covariance"]):
        return "it is not the sum of π²(r_RM - V_RM)(r_G - V_G): check both means."


@exercise
def which_bound(factor):
    p, gain = 1e-4, 0.3
    deviation = 2 * bounds.tabular_slow_time_bound(4 * p * (1 - p), gain)
    if near(factor, bounds.gradient_slow_time_bound(2 * p, gain) / (deviation / 2)):
        return "this is against Proposition 3; the question is about twice it."
    if factor < 1:
        return "the bound from the gradient is the larger one here."
    if not near(factor, bounds.gradient_slow_time_bound(2 * p, gain) / deviation):
        return "the two bounds do not have this ratio: check σ and the exponent."


@exercise
def harmless_until(time):
    cosine, size = 0.5, 0.1
    right = cosine / (1 + cosine) / (1.6 * size)
    if near(time, 1.6 * right):
        return "κ is missing: z is κ times the gradient's norm times the time."
    if near(time, cosine / (1.6 * size)):
        return "the second term is z²/(1 - z), not z²."
    if not near(time, right):
        return "it is not where the lower edge of the envelope comes back to 0."


# ---- Reproducing Sections 4.1 and 4.2 --------------------------------------------------------------------------------


@exercise
def scaled_away(variance):
    within, between, mean, share = 0.3, 0.5, 1.2, 0.25
    if near(variance, within / (within + between)):
        return "this is the variance before anything is scaled."
    if near(variance, (1 - share) * within / (within + between + share * mean**2)):
        return "the share that is left divides numerator and denominator alike."
    if not near(variance, within / (within + between + share * mean**2)):
        return "the normalised variance is not that: find mean variance within, and variance of all, after scaling."


@exercise
def six_points(least):
    half = t_distribution.ppf(0.975, 4)
    if near(least, half):
        return "this is the quantile of t; solve r √(n - 2)/√(1 - r²) = t for r."
    if near(least, t_distribution.ppf(0.95, 4) / np.sqrt(4 + t_distribution.ppf(0.95, 4) ** 2)):
        return "the test is two-sided: half of the 5 % lies on either side."
    if not near(least, half / np.sqrt(4 + half**2)):
        return "that r does not have this t with 4 degrees of freedom."


@exercise
def exact_order(chance):
    if near(chance, 1 / 12):
        return "one of the two orders counts: a perfect Spearman correlation has one sign."
    if not near(chance, 1 / 24):
        return "count the orders of four models, and those that agree."


@exercise
def swapped_best(a, b):
    table = np.array([[0.5, 0.2], [0.1, 0.4]])  # rows: policies, columns: teachers
    if near(a, table.mean(0).max()) and near(b, table.max(1).mean()):
        return
    return "one is the best column's mean over the rows, the other the mean of each row's best."


# ---- A language model you can enumerate ------------------------------------------------------------------------------


@exercise
def prefixes(rows):
    right, outputs = autoregressive.shape_of(10, 5)
    if rows == outputs:
        return "these are the outputs; a whole output has no next token."
    if rows == right - 1:
        return "the empty prefix has a row too."
    if rows != right:
        return "there is a row for each beginning of 0, 1, 2, 3 or 4 tokens."


@exercise
def least_jacobian(least):
    if not near(bounds.sharper_gradient_norm_bound(0.48, 3, least), 1.2):
        return "with this J the bound is not equal to the gradient norm."


# ---- Audit your own reward model -------------------------------------------------------------------------------------


@exercise
def enough_prompts(n):
    if n != round(n):
        return "the number of prompts is a whole number."
    if near(n, 20 * 0.15 / 0.12):
        return "an interval narrows as the square root of the prompts."
    if 0.15 * np.sqrt(20 / n) > 0.12:
        return "with so many the interval still reaches 0."
    if 0.15 * np.sqrt(20 / (n - 1)) <= 0.12:
        return "fewer prompts are enough."


@exercise
def pass_mark(covariance):
    density = norm.pdf(norm.isf(0.1))
    if near(covariance, density):
        return "this is in the teacher's own unit; divide by its standard deviation."
    if near(covariance, np.sqrt(2 / np.pi)):
        return "this is for a mark that half of the replies pass."
    if not near(covariance, density / 0.3):
        return "it is not φ(c)/√(p(1 - p)) at the mark that one in ten passes."


@exercise
def worth_of_silence(accuracy):
    if near(accuracy, 0.5):
        return "this is the correlation that the noisy teacher must have; Sheppard's formula makes an accuracy of it."
    if near(accuracy, 0.75):
        return "this is for a teacher that is silent on half of the prompts."
    if not near(accuracy, 0.5 + np.arcsin(0.5) / np.pi):
        return "first find the covariance of the silent one, in units of its standard deviation over all prompts."


# ---- Scaling to 8B ---------------------------------------------------------------------------------------------------


@exercise
def steps_until_it_moves(steps):
    spacing = 2.0**-8  # of bfloat16 numbers in [1/2, 1)
    if near(steps, spacing / 2 / 1e-7):
        return "half the spacing is what rounding to nearest asks for; at random a weight goes a whole one."
    if near(steps, 2 * spacing / 1e-7):
        return "this is the spacing above 1; 0.75 lies below it."
    if not near(steps, spacing / 1e-7):
        return "the probability of a move is the step over the spacing."


@exercise
def balanced_batch(replies):
    if near(replies, 989e12 / 4.8e12 * 2) or near(replies, 989e12 / 4.8e12 / 2):
        return "a bfloat16 weight is two bytes, and two operations are made with it."
    if not near(replies, 989e12 / 4.8e12):
        return "at this batch one of the two times is still the longer."
