"""Problems for marks: the book's exercises with a number for an answer, with other numbers for every seed.

    make("silent-group", seed=3)   →   Problem(slug, text, answers)

A problem is a function here, named as the slug of its exercise, that draws its numbers from a generator and returns the
question and the right answers. `rvlib.problem_sets` makes sheets of them, and marks what comes back.
"""

import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as t_distribution

from rvlib.tabular import autoregressive, best_of_n, bounds, estimators, geometry, rlhf_gradient, scores

Question = tuple[str, float | tuple[float, ...]]


@dataclass(frozen=True)
class Problem:
    """A question in Markdown, and the numbers that answer it."""

    slug: str
    text: str
    answers: tuple[float, ...]


_PROBLEMS: dict[str, Callable[[np.random.Generator], Question]] = {}


def names() -> tuple[str, ...]:
    """The slugs of all problems, in the order of the book."""
    return tuple(_PROBLEMS)


def make(slug: str, seed: int) -> Problem:
    """The variant of the problem `slug` for `seed`; ValueError for a problem that does not exist."""
    if slug not in _PROBLEMS:
        raise ValueError(f"slug must name a problem, got {slug!r}; there are {', '.join(_PROBLEMS)}.")
    text, answers = _PROBLEMS[slug](np.random.default_rng([seed, zlib.crc32(slug.encode())]))
    return Problem(slug, " ".join(text.split()), tuple(map(float, np.atleast_1d(answers))))


def problem(function: Callable[[np.random.Generator], Question]) -> Callable[[np.random.Generator], Question]:
    """Register a function as the problem of its name, with - for _."""
    _PROBLEMS[function.__name__.replace("_", "-")] = function
    return function


def _pick(rng: np.random.Generator, *values: float) -> float:
    """One of `values`, as a Python number."""
    return values[int(rng.integers(len(values)))]


@problem
def nearly_certain(rng: np.random.Generator) -> Question:
    """The most that the logits of a nearly certain policy move."""
    delta, prompts = _pick(rng, 0.01, 0.03, 0.05), int(_pick(rng, 2, 5, 10))
    text = f"""A tabular policy gives one output with probability {1 - delta:g}, and rewards lie in $[-1,1]$; there
    are {prompts} prompts. What is the bound of the first chapter on $\\sum_y\\lvert\\dot\\theta_y\\rvert$?"""
    return text, 4 * delta / prompts


@problem
def rough_loses(rng: np.random.Generator) -> Question:
    """The rise in the long run under a reward model that praises the middling output most."""
    best, middling = _pick(rng, 0.1, 0.15, 0.2), _pick(rng, 0.2, 0.3, 0.4)
    worst = 1 - best - middling
    text = f"""A policy gives three outputs with probabilities $({best},{middling},{worst:.2f})$, and the ground truth
    is $(1,0,-1)$. A reward model gives them $(0.5,1,-1)$. By how much has the ground truth risen in the long run
    under gradient flow without a penalty?"""
    return text, worst - best


@problem
def two_outputs(rng: np.random.Generator) -> Question:
    """Time between two probabilities in closed form."""
    start, end, gap = _pick(rng, 0.1, 0.25, 0.3), _pick(rng, 0.6, 0.8), _pick(rng, 0.5, 2.0)
    text = f"""Two outputs have rewards that differ by {gap}; one prompt, $\\lambda=0$, gradient flow on the logits.
    In which time does the better output rise from probability {start} to {end}?"""
    return text, float(geometry.two_output_time(start, end, gap=gap))


@problem
def certain_variance(rng: np.random.Generator) -> Question:
    """The largest variance for a nearly certain policy."""
    delta = _pick(rng, 0.05, 0.2, 0.25)
    text = f"""A policy gives one output with probability {1 - delta}. What is the largest reward variance of a reward
    model with values in $[-1,1]$?"""
    return text, 4 * delta * (1 - delta)


@problem
def many_prompts(rng: np.random.Generator) -> Question:
    """Least time until quiet prompts have risen."""
    prompts, deviation, gain = int(_pick(rng, 20, 100, 200)), _pick(rng, 0.02, 0.05), _pick(rng, 0.3, 0.8)
    text = f"""A training set has {prompts} prompts. On a third of them the standard deviation of the reward under the
    initial policy is at most {deviation}. Before which time cannot a reward in $[-1,1]$, averaged over that third,
    have risen by {gain}? Use the theorem with the paper's constant, $2\\lvert\\mathcal
    S\\rvert(1-e^{{-\\gamma/2}})$."""
    return text, float(bounds.tabular_slow_time_bound(deviation**2, gain, prompts))


@problem
def best_cut(rng: np.random.Generator) -> Question:
    """The least of a/c² + bc."""
    a, b = _pick(rng, 2, 3, 5, 6), _pick(rng, 1, 3, 4)
    return f"What is the least value of ${a}/c^2+{b}c$ over $c>0$?", 3 * (a * b * b / 4) ** (1 / 3)


@problem
def share_of_bound(rng: np.random.Generator) -> Question:
    """Gradient norm over the sharper bound for one rewarded output."""
    length = int(_pick(rng, 2, 3, 5))
    prefixes, _ = autoregressive.shape_of(2, length)
    reward = np.array([float(sum(y) == 0) for y in itertools.product(range(2), repeat=length)])
    gradient = autoregressive.policy_gradient(np.zeros((prefixes, 2)), reward).sum(0)
    bound = bounds.sharper_gradient_norm_bound(reward.mean() * (1 - reward.mean()), length, 1.0)
    text = f"""A policy over two tokens has the same two logits $(0,0)$ after every prefix. The reward of an output of
    {length} tokens is 1 if all of them are the first token, and 0 otherwise. What share of the sharper bound
    $J\\sqrt{{LW/2}}$, with $J=1$, is the norm of the gradient?"""
    return text, float(np.linalg.norm(gradient) / bound)


@problem
def lambda_takes_over(rng: np.random.Generator) -> Question:
    """The λ from which on the second term of the paper's Theorem 4 is the smaller."""
    gain = _pick(rng, 0.2, 0.3, 0.7, 0.9)
    text = f"""For $\\gamma={gain}$, from which $\\lambda$ on is $1-e^{{-7/(3\\lambda)}}$ smaller than
    $1-e^{{-\\gamma/9}}$?"""
    return text, 21 / gain


@problem
def thousandth_of_the_variance(rng: np.random.Generator) -> Question:
    """Factors by which two least times grow."""
    factor = int(_pick(rng, 64, 125, 729, 10_000))
    text = f"""A reward model has $1/{factor}$ of another's reward variance, everything else being equal. By which
    factors do a bound in proportion to $\\mathrm{{Var}}^{{-1/3}}$ and one in proportion to
    $\\mathrm{{Var}}^{{-1/2}}$ grow? Give both."""
    return text, (factor ** (1 / 3), factor**0.5)


@problem
def hardly_right(rng: np.random.Generator) -> Question:
    """Least accuracy of a reward model that ranks the best output first."""
    outputs = int(_pick(rng, 10, 15, 25, 60))
    text = f"""A ground truth over {outputs} outputs has no ties, and pairs are weighed uniformly. What is the least
    accuracy of a reward model that ranks the best output first?"""
    return text, 2 / outputs


@problem
def fast_numbers(rng: np.random.Generator) -> Question:
    """The upper bound on t_γ for a fast teacher."""
    gain, second = _pick(rng, 0.3, 0.5), _pick(rng, 0.15, 0.25, 0.3)
    probs, truth, reward = np.full(4, 0.25), np.array([1.0, 0.0, 0.0, -1.0]), np.array([1.0, second, 0.1, 0.05])
    right = float(bounds.sharper_tabular_fast_time_bound(probs, reward, truth, gain, [0])) / 1.6
    text = f"""Four outputs have probability $\\frac14$ each and ground truth $(1,0,0,-1)$; $\\gamma={gain}$,
    $\\lambda=0$, one prompt. The reward model gives them $(1,{second},0.1,0.05)$. Compute
    $\\bigl(\\frac1{{P_0}}-\\frac1\\rho\\bigr)/\\kappa$ of the chapter *Accurate is not enough* for
    $Y^+=\\{{\\text{{the first output}}\\}}$."""
    return text, right


@problem
def falls_at_first(rng: np.random.Generator) -> Question:
    """The reward b at which the first output begins to fall."""
    first, second = _pick(rng, 0.04, 0.08, 0.1), _pick(rng, 0.6, 0.65)
    probs = np.array([first, second, 1 - first - second])

    def slope(b: float) -> float:
        gradient = rlhf_gradient(np.log(probs), np.array([1.0, b, -1.0]), np.log(probs), 0.0)
        return float(gradient[0] - probs @ gradient)

    text = f"""Three outputs have probabilities $({first},{second},{probs[2]:.2f})$; $\\lambda=0$. The reward model
    gives them $(1,b,-1)$ with $b<1$. From which $b$ on does the probability of the first output fall at the start
    of gradient flow on the logits?"""
    return text, brentq(slope, -1, 1 - 1e-9)


@problem
def certain_order(rng: np.random.Generator) -> Question:
    """T from which on the matching teacher is certainly the faster."""
    likely, rho, gain = _pick(rng, 0.1, 0.25, 0.3), _pick(rng, 0.5, 0.7), _pick(rng, 0.4, 0.6)
    fast = 0.8 / (1 - rho) ** 3 * (1 / likely - 1 / rho)
    text = f"""Let $c={likely}$, $\\rho={rho}$, $\\gamma={gain}$, $\\lambda=0$ in the theorem on different policies
    and different teachers. From which $T$ on does it guarantee that the matching teacher is the faster one?"""
    return text, float(fast / (2 * -np.expm1(-gain / 2)))


@problem
def too_rare(rng: np.random.Generator) -> Question:
    """Least time with two rewards and rare praise."""
    rare, gain = _pick(rng, 0.002, 0.0005, 0.01), _pick(rng, 0.2, 0.4, 0.5)
    text = f"""A reward model gives 1 to outputs of total probability {rare} and $-1$ to all others; one prompt,
    $\\lambda=0$, gradient flow on the logits. Before which time can no reward in $[-1,1]$ have risen by {gain}? Use
    the theorem on praise for what is rarely said."""
    return text, float(bounds.two_marks_time_bound(rare, gain))


@problem
def best_of_three(rng: np.random.Generator) -> Question:
    """Expected truth of Best-of-N with a tie."""
    n, first = int(_pick(rng, 2, 4, 5)), _pick(rng, 0.1, 0.15, 0.25)
    probs, truth = np.array([first, 0.4, 0.6 - first]), np.array([1.0, 0.0, -1.0])
    text = f"""Three outputs have probabilities $({first},0.4,{0.6 - first:.2f})$ and ground truth $(1,0,-1)$. The
    reward model ties the first two above the third. What is the expected ground truth of Best-of-{n}?"""
    return text, float(best_of_n(probs, np.array([1.0, 1.0, 0.0]), truth, n))


@problem
def enough_samples(rng: np.random.Generator) -> Question:
    """Least N for Best-of-N to keep a rare output."""
    rare, sure = _pick(rng, 0.005, 0.02, 0.03), _pick(rng, 0.9, 0.99)
    text = f"""The policy gives the best output with probability {rare}, and the reward model ranks it first. What is
    the smallest $N$ for which Best-of-N keeps it with probability at least {sure}?"""
    return text, float(np.ceil(np.log(1 - sure) / np.log(1 - rare)))


@problem
def silent_group(rng: np.random.Generator) -> Question:
    """Share of groups without a gradient."""
    rate, group = _pick(rng, 0.1, 0.25, 0.3, 0.4), int(_pick(rng, 3, 5, 8))
    text = f"""A policy solves a problem with probability {rate}; rewards are right or wrong, and groups have {group}
    samples. What share of the groups gives no gradient?"""
    return text, estimators.no_spread_probability(np.array([rate, 1 - rate]), np.array([1.0, 0.0]), group)


@problem
def win_variance(rng: np.random.Generator) -> Question:
    """Variance of the win rate with a tie."""
    first = _pick(rng, 0.15, 0.2, 0.25)
    masses = np.array([first, 0.3, 0.7 - first])
    text = f"""Four outputs have probabilities $({first},0.3,0.2,{0.5 - first:.2f})$, and a reward model gives them
    $(0.003,0.002,0.001,0.001)$. What is the variance of the win rate?"""
    return text, float((1 - (masses**3).sum()) / 3)


@problem
def enough_group(rng: np.random.Generator) -> Question:
    """Least group size that the cap on signal to noise allows."""
    variance, noise, outputs = _pick(rng, 0.02, 0.04, 0.05), _pick(rng, 0.4, 0.6, 0.8), int(_pick(rng, 20, 50, 200))
    text = f"""A reward model has reward variance {variance} under a policy that is uniform over {outputs} outputs,
    and its rewards have independent noise with standard deviation {noise}. At least how many samples must a group
    have for a signal-to-noise ratio of 1 not to be excluded by the cap of the chapter on samples?"""
    return text, float(np.ceil(2 * (1 - 1 / outputs) * noise**2 / variance - 1e-9))


@problem
def first_slope(rng: np.random.Generator) -> Question:
    """Rate of the truth at the start."""
    first, second = _pick(rng, 0.1, 0.25, 0.4), _pick(rng, 0.2, 0.35)
    probs = np.array([first, second, 1 - first - second])
    rate = scores.teacher_scores(probs, np.array([1.0, -1.0, 0.0]), np.array([1.0, 0.0, -1.0]))
    text = f"""Three outputs have probabilities $({first},{second},{probs[2]:.2f})$, ground truth $(1,0,-1)$ and
    rewards $(1,-1,0)$; one prompt. At which rate does the ground truth rise at the start of gradient flow on the
    logits?"""
    return text, float(rate["π²-weighted covariance"])


@problem
def which_bound(rng: np.random.Generator) -> Question:
    """Ratio of two lower bounds when praise is rare."""
    rare, gain = _pick(rng, 1e-3, 1e-5), _pick(rng, 0.2, 0.5)
    ratio = bounds.gradient_slow_time_bound(2 * rare, gain) / (
        2 * bounds.tabular_slow_time_bound(4 * rare * (1 - rare), gain)
    )
    text = f"""A reward model gives 1 to an output of probability {rare:g} and $-1$ to many others of small
    probability each; $\\gamma={gain}$, $\\lambda=0$, one prompt, and its gradient has norm $2\\cdot{rare:g}$. How
    many times as large as the sharper bound by the variance is the bound from the gradient?"""
    return text, float(ratio)


@problem
def harmless_until(rng: np.random.Generator) -> Question:
    """Time until which the truth has certainly risen."""
    cosine, size = _pick(rng, 0.2, 0.4, 0.8), _pick(rng, 0.05, 0.2)
    text = f"""A reward model's gradient has norm {size} and cosine {cosine} with that of the ground truth; one
    prompt, $\\lambda=0$. Until which time is it certain, by the envelope of the chapter on what is sharp, that the
    ground truth is above its initial value?"""
    return text, cosine / (1 + cosine) / (1.6 * size)


@problem
def scaled_away(rng: np.random.Generator) -> Question:
    """Normalised variance after scaling."""
    within, between, mean = _pick(rng, 0.2, 0.4), _pick(rng, 0.3, 0.6), _pick(rng, 0.8, 1.5)
    text = f"""Rewards have mean variance within prompts {within}, variance of the prompts' means {between} and mean
    {mean}. A quarter of the prompts, chosen at random, is multiplied by (almost) 0. What is the mean reward
    variance after joint normalisation?"""
    return text, within / (within + between + 0.25 * mean**2)


@problem
def six_points(rng: np.random.Generator) -> Question:
    """Least significant correlation."""
    points = int(_pick(rng, 5, 8, 10, 12))
    quantile = t_distribution.ppf(0.975, points - 2)
    text = f"""How large must a Pearson correlation over {points} points be, in absolute value, to be significant at 5
    %, two-sided, for normal data?"""
    return text, float(quantile / np.sqrt(points - 2 + quantile**2))


@problem
def exact_order(rng: np.random.Generator) -> Question:
    """Chance of a perfect order."""
    models = int(_pick(rng, 3, 5, 6))
    text = f"""There are {models} reward models, without ties. With what probability does a property that has nothing
    to do with the increase in ground truth order all of them perfectly, from least to largest?"""
    return text, 1 / float(np.prod(np.arange(1, models + 1)))


@problem
def swapped_best(rng: np.random.Generator) -> Question:
    """One teacher for all against the best for each."""
    table = rng.permutation([0.1, 0.2, 0.3, 0.5, 0.6, 0.8]).reshape(2, 3)
    text = f"""Policy $A$ gains {table[0, 0]}, {table[0, 1]} and {table[0, 2]} in ground truth under teachers 1, 2 and
    3, and policy $B$ gains {table[1, 0]}, {table[1, 1]} and {table[1, 2]}. What is the largest mean gain with one
    teacher for both, and what is it with the best teacher for each? Give both."""
    return text, (float(table.mean(0).max()), float(table.max(1).mean()))


@problem
def prefixes(rng: np.random.Generator) -> Question:
    """Rows of a table of logits."""
    length, vocabulary = int(_pick(rng, 3, 4, 6)), int(_pick(rng, 5, 8, 20))
    text = f"How many rows has the table of logits of a model that writes {length} tokens from {vocabulary}?"
    return text, float(autoregressive.shape_of(vocabulary, length)[0])


@problem
def least_jacobian(rng: np.random.Generator) -> Question:
    """The Jacobian norm that a gradient norm needs."""
    gradient, variance, length = _pick(rng, 0.9, 1.5, 2.0), _pick(rng, 0.25, 0.5, 0.64), int(_pick(rng, 2, 4, 8))
    text = f"""A policy that writes {length} tokens has a gradient of norm {gradient} and reward variance {variance}.
    What is the least $J$ that the bound $J\\sqrt{{LW/2}}$ allows?"""
    return text, float(gradient / np.sqrt(length * variance / 2))


@problem
def price_of_ties(rng: np.random.Generator) -> Question:
    """Accuracy with ties."""
    tied, right = _pick(rng, 0.2, 0.4, 0.5), _pick(rng, 0.6, 0.8, 0.9)
    text = f"""The ground truth has no ties. A reward model ties a share {tied} of the pairs and orders a share
    {right} of the others correctly. What is its accuracy?"""
    return text, (1 - tied) * right


@problem
def noise_and_accuracy(rng: np.random.Generator) -> Question:
    """Share of pairs ordered alike."""
    noise = _pick(rng, 0.3, 0.5, 0.7, 0.9)
    text = f"""Two rewards are jointly normal within a prompt, with correlation $\\sqrt{{1-\\nu^2}}$ and
    $\\nu={noise}$. Which share of pairs do they order alike?"""
    return text, float(0.5 + np.arcsin(np.sqrt(1 - noise**2)) / np.pi)


@problem
def enough_prompts(rng: np.random.Generator) -> Question:
    """Prompts until an interval leaves out 0."""
    now, half, difference = int(_pick(rng, 25, 40, 50)), _pick(rng, 0.2, 0.25), _pick(rng, 0.1, 0.16)
    text = f"""An audit of {now} prompts finds a difference of {difference} with an interval of $\\pm{half}$. If the
    difference stays as it is, how many prompts does it take at least until the interval no longer contains 0?"""
    return text, float(np.ceil(now * (half / difference) ** 2 - 1e-9))


@problem
def pass_mark(rng: np.random.Generator) -> Question:
    """Covariance of a pass mark with a normal truth."""
    share = _pick(rng, 0.05, 0.2, 0.3)
    text = f"""Within every prompt the ground truth is standard normal under the policy, and a reward model gives 1 to
    the best {share:.0%} of the replies and 0 to the others. In units of its own standard deviation, what is its
    covariance with the ground truth?"""
    return text.replace("%", " %"), float(norm.pdf(norm.isf(share)) / np.sqrt(share * (1 - share)))


@problem
def worth_of_silence(rng: np.random.Generator) -> Question:
    """Accuracy of a noisy teacher that is worth a silent one."""
    heard = _pick(rng, 0.36, 0.49, 0.64)
    text = f"""A reward model is the ground truth on a share {heard} of the prompts and (almost) 0 on the others;
    another is the ground truth plus independent normal noise. Rewards are normal within a prompt. Which accuracy
    must the noisy one have for the same covariance with the truth in units of its own standard deviation over all
    prompts?"""
    return text, float(0.5 + np.arcsin(np.sqrt(heard)) / np.pi)


@problem
def steps_until_it_moves(rng: np.random.Generator) -> Question:
    """Steps until a bfloat16 weight moves under stochastic rounding."""
    weight, step = _pick(rng, 0.3, 0.6, 1.5), _pick(rng, 1e-6, 2e-7)
    spacing = 2.0 ** (np.floor(np.log2(weight)) - 7)
    text = f"""A bfloat16 weight of {weight} receives steps of {step:g}, each rounded at random so that it is right on
    average. How many steps does it take, on average, until the weight moves?"""
    return text, float(spacing / step)


@problem
def balanced_batch(rng: np.random.Generator) -> Question:
    """Batch size at which memory and arithmetic take equally long."""
    rate, bandwidth = _pick(rng, 312, 660, 800), _pick(rng, 2.0, 3.35, 4.2)
    text = f"""A GPU multiplies at {rate} TFLOP/s in bfloat16 and reads {bandwidth} TB/s. At how many replies at once
    does reading the weights take as long as multiplying by them?"""
    return text, rate / bandwidth


@problem
def million_to_one(rng: np.random.Generator) -> Question:
    """Time under the natural gradient from a rare start."""
    rare, end = _pick(rng, 1e-4, 1e-5, 1e-8), _pick(rng, 0.5, 0.8, 0.99)
    text = f"""Two outputs have rewards 1 and $-1$, and the better one has probability {rare:g}. How long does natural
    gradient flow without a penalty take until it has probability {end}?"""
    return text, float(geometry.two_output_time(rare, end, power=0.0))


@problem
def two_reasons(rng: np.random.Generator) -> Question:
    """Bounds under the natural gradient at one variance, for two reasons."""
    variance, gain = _pick(rng, 1e-4, 1e-6), _pick(rng, 0.3, 0.8)
    widths = (2.0, 2 * variance**0.5)
    text = f"""Two reward models have reward variance {variance:g} under a policy. The first has values $\\pm1$, the
    second $\\pm{variance**0.5:g}$. Compute the least time to gain {gain} under the natural gradient for both."""
    return text, tuple(float(geometry.natural_slow_time_bound(variance, gain, width)) for width in widths)


@problem
def first_spread(rng: np.random.Generator) -> Question:
    """Mean number of steps until a group has a spread."""
    rare, group = _pick(rng, 0.002, 0.005, 0.01), int(_pick(rng, 4, 16))
    text = f"""A group has {group} samples, and the praised outputs have probability {rare}; there are two rewards.
    After how many steps, on average, does the first update come that is not zero?"""
    return text, float(1 / (1 - rare**group - (1 - rare) ** group))


@problem
def smoothed_difference(rng: np.random.Generator) -> Question:
    """Difference of two rewards trained on smoothed labels."""
    difference, smoothing = _pick(rng, 1.0, 1.5, 3.0), _pick(rng, 0.05, 0.2)
    text = f"""A Bradley–Terry model sees two outputs whose true rewards differ by {difference}, with labels smoothed
    by $\\varepsilon={smoothing}$. By how much do its rewards differ after training without a penalty?"""
    return text, float(logit((1 - 2 * smoothing) * expit(difference) + smoothing))


@problem
def keep_two(rng: np.random.Generator) -> Question:
    """Variance of the two extremes over that of all four."""
    rewards = np.array([0.0, _pick(rng, 0.2, 0.3), _pick(rng, 0.5, 0.6), 1.0])
    text = f"""Four samples have rewards 0, {rewards[1]:g}, {rewards[2]:g} and 1. Two are kept, those of the largest
    variance. What is their variance over that of all four, each divided by the number of samples?"""
    return text, float(0.25 / rewards.var())


@problem
def plateau_wait(rng: np.random.Generator) -> Question:
    """Time to leave a plateau."""
    mediocre, rare = _pick(rng, 0.2, 0.4, 0.6, 0.8), _pick(rng, 0.002, 0.0005)
    text = f"""A policy gives a mediocre answer of reward {mediocre} almost always and a good one of reward 1 with
    probability $q={rare}$. About how long does gradient flow on the logits take to leave, to first order in $1/q$?"""
    return text, 1 / (2 * (1 - mediocre) * rare)


@problem
def collapse_of_four(rng: np.random.Generator) -> Question:
    """Probability that a group has a spread."""
    rate, group = _pick(rng, 0.05, 0.15, 0.2), int(_pick(rng, 3, 4, 6))
    text = f"""Rewards are 1 with probability {rate} and 0 otherwise. With which probability do the {group} rewards of
    a group not all agree?"""
    return text, 1 - rate**group - (1 - rate) ** group


@problem
def lost_by_lot(rng: np.random.Generator) -> Question:
    """Top-1 regret of a score."""
    gains = np.sort(rng.permutation([0.1, 0.25, 0.3, 0.45, 0.6, 0.8])[:4])
    text = f"""Four teachers gain {gains[0]}, {gains[1]}, {gains[2]} and {gains[3]} in ground truth. A score picks the
    second best. What is its top-1 regret, the loss as a share of what the best teacher has above the mean?"""
    return text, float((gains[3] - gains[2]) / (gains[3] - gains.mean()))


@problem
def unseen(rng: np.random.Generator) -> Question:
    """Draws until a rare output is seen."""
    rare, sure = _pick(rng, 0.005, 0.02, 0.001), _pick(rng, 0.9, 0.99)
    text = (
        f"""An output has probability {rare}. How many draws does it take at least to see it with probability {sure}?"""
    )
    return text, float(np.ceil(np.log(1 - sure) / np.log(1 - rare)))
