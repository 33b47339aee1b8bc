"""Checks of the exercises in the chapters on practice: a real policy, audits, reproductions, and scale."""

import numpy as np
from scipy.stats import norm
from scipy.stats import t as t_distribution

from rvlib.exercises.checking import exercise, near

# ---- A real policy, two real rewards ---------------------------------------------------------------------------------


@exercise
def price_of_ties(accuracy: float) -> str | None:
    """Accuracy of a proxy that ties 30 % of the pairs and orders 70 % of the others correctly."""
    if near(accuracy, 0.7 * 0.7 + 0.15):
        return "this is with ties broken at random; by Def. 1 a tied pair is wrong."
    return None if near(accuracy, 0.49) else "tied pairs are wrong, and of the others 70 % are right."


# ---- Audit your own reward model -------------------------------------------------------------------------------------


@exercise
def enough_prompts(n: float) -> str | None:
    """Prompts at which an interval of ±0.15 over 20 prompts about 0.12 does not extend below 0."""
    if n < 1 or n != round(n):
        return "the number of prompts is a whole number, and at least 1."
    if near(n, 20 * 0.15 / 0.12):
        return "an interval narrows as the square root of the prompts."
    if 0.15 * np.sqrt(20 / n) > 0.12:
        return "with so many prompts the interval still extends below 0."
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


# ---- Bring your own replies and scores -------------------------------------------------------------------------------


@exercise
def whole_reply(ratio: float) -> str | None:
    """How many times as often 3 tokens of probability 0.2 are written as 10 tokens of probability 0.5."""
    right = 0.2**3 / 0.5**10
    if near(ratio, np.log(right)):
        return "this is the difference of the log-probabilities; its exponential is the ratio."
    if near(ratio, 0.2 / 0.5):
        return "this compares single tokens; the probability of a reply is the product over all its tokens."
    if near(ratio, 1 / right):
        return "this is how often the long reply is written for each short one."
    if not near(ratio, right):
        return "multiply the probabilities of the tokens of each reply, and divide the two products."
    return None


@exercise
def drawn_four_times(covariance: float) -> str | None:
    """The sample covariance of eight replies, of which one was drawn four times and one twice."""
    times, reward, truth = (4, 2, 1, 1), np.array([0.0, 2, 1, 3]), np.array([2.0, 0, 1, 3])
    right = np.cov(np.repeat(reward, times), np.repeat(truth, times))[0, 1]
    if near(covariance, np.cov(reward, truth)[0, 1]):
        return "this counts each row once; a row counts as often as its reply was drawn."
    if near(covariance, right * 7 / 8):
        return "a sample covariance divides by one less than the number of replies."
    if near(covariance, -right):
        return "look at the sign."
    if not near(covariance, right):
        return "first find the two means over all eight replies."
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
    """The top-1 regret of a predictor that picks the second best of gains 0.2, 0.4, 0.5, 0.9."""
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


# ---- Live RLHF -------------------------------------------------------------------------------------------------------


@exercise
def noise_and_accuracy(share: float) -> str | None:
    """Share of pairs ordered alike by two normal rewards with a noise of 0.6."""
    if near(share, 0.5 + np.arcsin(0.6) / np.pi):
        return "the correlation is √(1 - ν²), not ν."
    return (
        None if near(share, 0.5 + np.arcsin(0.8) / np.pi) else "use Sheppard's formula with the correlation √(1 - ν²)."
    )


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
    """The batch size at which reading the weights and multiplying by them take equally long."""
    if near(replies, 989e12 / 4.8e12 * 2) or near(replies, 989e12 / 4.8e12 / 2):
        return "a bfloat16 weight is two bytes, and two operations are made with it."
    if not near(replies, 989e12 / 4.8e12):
        return "at this batch one of the two times is still the longer."
    return None
