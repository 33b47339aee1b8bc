"""Checks of the book's exercises that have a computable answer: right, or what the answer fails; never the answer.

    check("best-cut", 6.0)   →   Not yet: another c gives a smaller constant.

An exercise is a function here, named as its slug, that returns the property that an answer fails, or nothing for a
right one.
"""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as t_distribution

from rvlib.metrics import ranking_accuracy
from rvlib.tabular import (
    autoregressive,
    best_of_n,
    bounds,
    estimators,
    geometry,
    rlhf_gradient,
    scores,
    softmax,
    time_to_gain,
)


@dataclass(frozen=True)
class _Exercise:
    """The function that finds what an answer fails, and how many numbers an answer is made of."""

    failure: Callable[..., str | None]
    numbers: int


_EXERCISES: dict[str, _Exercise] = {}


def check(slug: str, answer: ArrayLike) -> bool:
    """Print whether `answer` solves the exercise called `slug`, and if not, what is wrong with it; True or False.

    Numbers may be off by 1e-3 of themselves. ValueError for an exercise that does not exist, or an answer that is not
    made of as many numbers as are asked for.
    """
    if slug not in _EXERCISES:
        raise ValueError(f"slug must name an exercise, got {slug!r}; there are {', '.join(sorted(_EXERCISES))}.")
    asked = _EXERCISES[slug]
    try:
        numbers = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if numbers.size != asked.numbers or not np.isfinite(numbers).all():
        raise ValueError(f"answer must be {asked.numbers} number{'s' * (asked.numbers > 1)}, got {answer!r}.")
    given = tuple(map(float, numbers.ravel()))
    failure = asked.failure(*given)
    if failure and _right_once_rounded(asked, given):
        failure = "this is close; give more digits."
    elif failure and _right_once_rounded(asked, tuple(number / 100 for number in given)):
        failure = "this looks like a percentage; give a share, as 0.25 for 25 %."
    print(f"Not yet: {failure}" if failure else "Right.")
    return not failure


def _right_once_rounded(asked: _Exercise, given: tuple[float, ...]) -> bool:
    """Whether some right answer, rounded to the digits that were given, is the answer that was given.

    Not of three numbers and more, of which there are too many to try.
    """
    if len(given) > 2:
        return False
    candidates = []
    for number in given:
        exponent = Decimal(repr(number)).normalize().as_tuple().exponent
        half = min(0.5 * 10.0 ** int(exponent), 0.05 * abs(number))
        # A check accepts 1e-3 of a number to either side, so steps of twice that size miss none.
        candidates.append(np.append(number, np.arange(number - half, number + half, 1.9e-3 * abs(number) or 1.0)))
    return any(asked.failure(*map(float, numbers)) is None for numbers in itertools.product(*candidates))


def exercise(function: Callable[..., str | None]) -> Callable[..., str | None]:
    """Register a function as the check of the exercise of its name, with - for _; it takes the answer's numbers."""
    parameters = inspect.signature(function).parameters
    _EXERCISES[function.__name__.replace("_", "-")] = _Exercise(function, len(parameters))
    return function


def near(value: float | NDArray[np.float64], right: float | NDArray[np.float64]) -> bool:
    """Whether a number is `right` to 1e-3 of it."""
    return abs(float(value) - float(right)) <= 1e-3 * abs(float(right))


# ---- What makes a good teacher? --------------------------------------------------------------------------------------


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
    if n != round(n):
        return "N is a whole number."
    if 1 - 0.99**n < 0.95:
        return "with so many samples the best output is missed too often."
    if 1 - 0.99 ** (n - 1) >= 0.95:
        return "fewer samples are enough."
    return None


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


# ---- Which grade tells a good teacher? How loose, and what is sharp? -------------------------------------------------


@exercise
def first_slope(rate: float) -> str | None:
    """dV_G/dt at the start: the π²-weighted covariance of three outputs."""
    probs, truth, marks = np.array([0.2, 0.3, 0.5]), np.array([1.0, 0.0, -1.0]), np.array([1.0, -1.0, 0.0])
    grades = scores.teacher_scores(probs, marks, truth)
    if near(rate, grades["covariance"]):
        return "this is the covariance; the law has the squares of the probabilities."
    if not near(rate, grades["π²-weighted covariance"]):
        return "it is not the sum of π²(r_RM - V_RM)(r_G - V_G): check both means."
    return None


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


# ---- Reproducing Sections 4.1 and 4.2 --------------------------------------------------------------------------------


@exercise
def scaled_away(variance: float) -> str | None:
    """Mean reward variance, jointly normalised, after a quarter of the prompts has been multiplied by 0."""
    within, between, mean, share = 0.3, 0.5, 1.2, 0.25
    if near(variance, within / (within + between)):
        return "this is the variance before anything is scaled."
    if near(variance, (1 - share) * within / (within + between + share * mean**2)):
        return "the share of prompts that are not scaled cancels in the quotient."
    if not near(variance, within / (within + between + share * mean**2)):
        return "the normalised variance is not that: find mean variance within, and variance of all, after scaling."
    return None


@exercise
def six_points(least: float) -> str | None:
    """The least Pearson correlation of six points that is significant at 5 %, two-sided."""
    half = t_distribution.ppf(0.975, 4)
    if near(least, half):
        return "this is the quantile of t; solve r √(n - 2)/√(1 - r²) = t for r."
    if near(least, t_distribution.ppf(0.95, 4) / np.sqrt(4 + t_distribution.ppf(0.95, 4) ** 2)):
        return "the test is two-sided: half of the 5 % lies on either side."
    if not near(least, half / np.sqrt(4 + half**2)):
        return "that r does not have this t with 4 degrees of freedom."
    return None


@exercise
def exact_order(chance: float) -> str | None:
    """The chance that a property without meaning orders four reward models perfectly."""
    if near(chance, 1 / 12):
        return "one of the two orders counts: a perfect Spearman correlation has one sign."
    if not near(chance, 1 / 24):
        return "count the orders of four models, and those that agree."
    return None


@exercise
def swapped_best(a: float, b: float) -> str | None:
    """The best teacher's mean over the policies, and the mean of each policy's best teacher."""
    table = np.array([[0.5, 0.2], [0.1, 0.4]])  # rows: policies, columns: teachers
    if near(a, table.mean(0).max()) and near(b, table.max(1).mean()):
        return None
    return "the left side is the best teacher's mean over the policies, the right side the mean of each policy's best."


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
    if not near(bounds.sharper_gradient_norm_bound(0.48, 3, least), 1.2):
        return "with this J the bound is not equal to the gradient norm."
    return None


# ---- A real policy, two real rewards ---------------------------------------------------------------------------------


@exercise
def price_of_ties(accuracy: float) -> str | None:
    """Accuracy of a proxy that ties 30 % of the pairs and orders 70 % of the others correctly."""
    if near(accuracy, 0.7 * 0.7 + 0.15):
        return "this is with ties broken at random; by Def. 1 a tied pair is wrong."
    return None if near(accuracy, 0.49) else "tied pairs are wrong, and of the others 70 % are right."


# ---- Live RLHF -------------------------------------------------------------------------------------------------------


@exercise
def noise_and_accuracy(share: float) -> str | None:
    """Share of pairs ordered alike by two normal rewards with a noise of 0.6."""
    if near(share, 0.5 + np.arcsin(0.6) / np.pi):
        return "the correlation is √(1 - ν²), not ν."
    return (
        None if near(share, 0.5 + np.arcsin(0.8) / np.pi) else "use Sheppard's formula with the correlation √(1 - ν²)."
    )


# ---- Audit your own reward model -------------------------------------------------------------------------------------


@exercise
def enough_prompts(n: float) -> str | None:
    """Prompts at which an interval of ±0.15 over 20 prompts about 0.12 leaves out 0."""
    if n != round(n):
        return "the number of prompts is a whole number."
    if near(n, 20 * 0.15 / 0.12):
        return "an interval narrows as the square root of the prompts."
    if 0.15 * np.sqrt(20 / n) > 0.12:
        return "with so many prompts the interval still contains 0."
    if 0.15 * np.sqrt(20 / (n - 1)) <= 0.12:
        return "fewer prompts are enough."
    return None


@exercise
def pass_mark(covariance: float) -> str | None:
    """Covariance with a standard normal truth, over the teacher's deviation, of a mark that one reply in ten passes."""
    density = norm.pdf(norm.isf(0.1))
    if near(covariance, density):
        return "this is in the teacher's own unit; divide by its standard deviation."
    if near(covariance, np.sqrt(2 / np.pi)):
        return "this is for a threshold that half of the replies pass."
    if not near(covariance, density / 0.3):
        return "it is not φ(c)/√(p(1 - p)) at the threshold c that one reply in ten passes."
    return None


@exercise
def worth_of_silence(accuracy: float) -> str | None:
    """Accuracy of the noisy teacher that is worth one that is silent on three quarters of the prompts."""
    if near(accuracy, 0.5):
        return "this is the correlation that the noisy teacher must have; Sheppard's formula gives its accuracy."
    if near(accuracy, 0.75):
        return "this is for a teacher that is 0 on half of the prompts."
    if not near(accuracy, 0.5 + np.arcsin(0.5) / np.pi):
        return "first find the first teacher's covariance, in units of its standard deviation over all prompts."
    return None


# ---- Scaling to 8B ---------------------------------------------------------------------------------------------------


@exercise
def steps_until_it_moves(steps: float) -> str | None:
    """Expected steps of 1e-7 until a bfloat16 weight of 0.75 moves, rounding at random."""
    spacing = 2.0**-8  # of bfloat16 numbers in [1/2, 1)
    if near(steps, spacing / 2 / 1e-7):
        return "half the spacing matters for rounding to nearest; stochastic rounding moves a weight by a whole one."
    if near(steps, 2 * spacing / 1e-7):
        return "this is the spacing above 1; 0.75 lies below it."
    if not near(steps, spacing / 1e-7):
        return "the probability of a move is the step over the spacing."
    return None


@exercise
def balanced_batch(replies: float) -> str | None:
    """Replies at once at which reading the weights and multiplying by them take equally long."""
    if near(replies, 989e12 / 4.8e12 * 2) or near(replies, 989e12 / 4.8e12 / 2):
        return "a bfloat16 weight is two bytes, and two operations are made with it."
    if not near(replies, 989e12 / 4.8e12):
        return "at this batch one of the two times is still the longer."
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


# ---- Which number picks the teacher? ---------------------------------------------------------------------------------


@exercise
def collapse_of_four(probability: float) -> str | None:
    """The probability that four rewards, each 1 with probability 0.1, do not all agree."""
    if near(probability, 0.1**4 + 0.9**4):
        return "this is the probability that they do all agree."
    if not near(probability, 1 - 0.1**4 - 0.9**4):
        return "find the probability that all four are 1, and that all four are 0."
    return None


@exercise
def lost_by_lot(regret: float) -> str | None:
    """The top-1 regret of a score that picks the second best of gains 0.2, 0.4, 0.5, 0.9."""
    gains = np.array([0.2, 0.4, 0.5, 0.9])
    if near(regret, gains.max() - 0.5):
        return "it is a share of the difference between the best gain and the mean gain."
    if not near(regret, (gains.max() - 0.5) / (gains.max() - gains.mean())):
        return "divide the loss by the difference between the best gain and the mean of all."
    return None


@exercise
def unseen(draws: float) -> str | None:
    """How many draws show an output of probability 0.01 with probability 0.95."""
    fewest = int(np.ceil(np.log(0.05) / np.log(0.99)))
    if draws < fewest:
        return "with so few it is missed more often than one time in twenty."
    if draws > fewest:
        return "fewer are enough."
    return None
