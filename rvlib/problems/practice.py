"""Problems of the chapters on practice: a real policy, audits, reproductions, and scale."""

import numpy as np
from scipy.stats import norm
from scipy.stats import t as t_distribution

from rvlib.problems.making import Question, pick, problem

# ---- A real policy, two real rewards ---------------------------------------------------------------------------------


@problem
def price_of_ties(rng: np.random.Generator) -> Question:
    """Accuracy with ties."""
    tied, right = pick(rng, 0.2, 0.4, 0.5), pick(rng, 0.6, 0.8, 0.9)
    text = f"""The ground truth has no ties. A reward model ties a share {tied} of the pairs and orders a share
    {right} of the others correctly. What is its accuracy?"""
    return text, (1 - tied) * right


# ---- Audit your own reward model -------------------------------------------------------------------------------------


@problem
def enough_prompts(rng: np.random.Generator) -> Question:
    """Prompts until an interval does not extend below 0."""
    now, half, difference = int(pick(rng, 25, 40, 50)), pick(rng, 0.2, 0.25), pick(rng, 0.1, 0.16)
    text = f"""An audit of {now} prompts finds a difference of {difference} with an interval of $\\pm{half}$. If the
    difference stays as it is, what is the smallest number of prompts for which the interval does not extend
    below 0?"""
    return text, int(np.ceil(now * (half / difference) ** 2 - 1e-9))


@problem
def pass_mark(rng: np.random.Generator) -> Question:
    """Covariance of a pass mark with a normal truth."""
    share = pick(rng, 0.05, 0.2, 0.3)
    text = f"""Within every prompt the ground truth is standard normal under the policy, and a reward model gives 1 to
    the best {share:.0%} of the replies and 0 to the others. In units of its own standard deviation, what is its
    covariance with the ground truth?"""
    return text.replace("%", " %"), float(norm.pdf(norm.isf(share)) / np.sqrt(share * (1 - share)))


@problem
def worth_of_silence(rng: np.random.Generator) -> Question:
    """Accuracy of a noisy teacher that is worth a silent one."""
    heard = pick(rng, 0.36, 0.49, 0.64)
    text = f"""A reward model is the ground truth on a share {heard} of the prompts and (almost) 0 on the others;
    another is the ground truth plus independent normal noise. Rewards are normal within a prompt. Which accuracy
    must the noisy one have for the same covariance with the truth in units of its own standard deviation over all
    prompts?"""
    return text, float(0.5 + np.arcsin(np.sqrt(heard)) / np.pi)


# ---- Bring your own replies and scores -------------------------------------------------------------------------------


@problem
def whole_reply(rng: np.random.Generator) -> Question:
    """Ratio of the probabilities of two replies."""
    short, long = int(pick(rng, 2, 3, 4)), int(pick(rng, 8, 12))
    rare, common = pick(rng, 0.1, 0.3), pick(rng, 0.5, 0.6)
    text = f"""One reply has {short} tokens, each of probability {rare} given the tokens before it, and another has
    {long}, each of probability {common}. The token that ends a reply is counted. How many times as often as the longer
    reply does the policy write the shorter one?"""
    return text, rare**short / common**long


@problem
def drawn_four_times(rng: np.random.Generator) -> Question:
    """Sample covariance where a reply was drawn several times."""
    times = int(pick(rng, 3, 4, 5)), int(pick(rng, 1, 2)), 1
    reward, truth = rng.permutation([0, 1, 3]), rng.permutation([0, 2, 5])
    counts = [{1: "once", 2: "twice"}.get(n, f"{n} times") for n in times]
    text = f"""Of {sum(times)} replies that a policy wrote to one prompt, A was drawn {counts[0]}, B {counts[1]} and C
    {counts[2]}. Their rewards are {reward[0]}, {reward[1]} and {reward[2]}, and their ground truths are {truth[0]},
    {truth[1]} and {truth[2]}. What is the sample covariance of reward and ground truth over all {sum(times)}
    replies?"""
    return text, float(np.cov(np.repeat(reward, times), np.repeat(truth, times))[0, 1])


# ---- Reproducing Sections 4.1 and 4.2 --------------------------------------------------------------------------------


@problem
def scaled_away(rng: np.random.Generator) -> Question:
    """Normalised variance after scaling."""
    within, between, mean = pick(rng, 0.2, 0.4), pick(rng, 0.3, 0.6), pick(rng, 0.8, 1.5)
    text = f"""Rewards have mean variance within prompts {within}, variance of the prompts' means {between} and mean
    {mean}. A quarter of the prompts, chosen at random, is multiplied by (almost) 0. What is the mean reward
    variance after joint normalisation?"""
    return text, within / (within + between + 0.25 * mean**2)


@problem
def six_points(rng: np.random.Generator) -> Question:
    """Least significant correlation."""
    points = int(pick(rng, 5, 8, 10, 12))
    quantile = t_distribution.ppf(0.975, points - 2)
    text = f"""How large must a Pearson correlation over {points} points be, in absolute value, to be significant at 5
    %, two-sided, for normal data?"""
    return text, float(quantile / np.sqrt(points - 2 + quantile**2))


@problem
def exact_order(rng: np.random.Generator) -> Question:
    """Chance of a perfect order."""
    models = int(pick(rng, 3, 5, 6))
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


# ---- Which number picks the teacher? ---------------------------------------------------------------------------------


@problem
def collapse_of_four(rng: np.random.Generator) -> Question:
    """Probability that a group has a spread."""
    rate, group = pick(rng, 0.05, 0.15, 0.2), int(pick(rng, 3, 4, 6))
    text = f"""Rewards are 1 with probability {rate} and 0 otherwise. With which probability do the {group} rewards of
    a group not all agree?"""
    return text, 1 - rate**group - (1 - rate) ** group


@problem
def lost_by_lot(rng: np.random.Generator) -> Question:
    """Top-1 regret of a predictor."""
    gains = np.sort(rng.permutation([0.1, 0.25, 0.3, 0.45, 0.6, 0.8])[:4])
    text = f"""Four teachers gain {gains[0]}, {gains[1]}, {gains[2]} and {gains[3]} in ground truth. A predictor picks
    the second best. What is its top-1 regret, the loss as a share of what the best teacher has above the mean?"""
    return text, float((gains[3] - gains[2]) / (gains[3] - gains.mean()))


@problem
def unseen(rng: np.random.Generator) -> Question:
    """Draws until a rare output is seen."""
    rare, sure = pick(rng, 0.005, 0.02, 0.001), pick(rng, 0.9, 0.99)
    text = (
        f"""An output has probability {rare}. How many draws does it take at least to see it with probability {sure}?"""
    )
    return text, int(np.ceil(np.log(1 - sure) / np.log(1 - rare)))


# ---- Live RLHF -------------------------------------------------------------------------------------------------------


@problem
def noise_and_accuracy(rng: np.random.Generator) -> Question:
    """Share of pairs ordered alike."""
    noise = pick(rng, 0.3, 0.5, 0.7, 0.9)
    text = f"""Two rewards are jointly normal within a prompt, with correlation $\\sqrt{{1-\\nu^2}}$ and
    $\\nu={noise}$. Which share of pairs do they order alike?"""
    return text, float(0.5 + np.arcsin(np.sqrt(1 - noise**2)) / np.pi)


# ---- Scaling to 8B ---------------------------------------------------------------------------------------------------


@problem
def steps_until_it_moves(rng: np.random.Generator) -> Question:
    """Steps until a bfloat16 weight moves under stochastic rounding."""
    weight, step = pick(rng, 0.3, 0.6, 1.5), pick(rng, 1e-6, 2e-7)
    spacing = 2.0 ** (np.floor(np.log2(weight)) - 7)
    text = f"""A bfloat16 weight of {weight} receives steps of {step:g}, each rounded at random so that it is right on
    average. How many steps does it take, on average, until the weight moves?"""
    return text, float(spacing / step)


@problem
def balanced_batch(rng: np.random.Generator) -> Question:
    """Batch size at which memory and arithmetic take equally long."""
    rate, bandwidth = pick(rng, 312, 660, 800), pick(rng, 2.0, 3.35, 4.2)
    text = f"""A GPU multiplies at {rate} TFLOP/s in bfloat16 and reads {bandwidth:g} TB/s. For which batch of
    replies does reading the weights take as long as multiplying by them?"""
    return text, rate / bandwidth
