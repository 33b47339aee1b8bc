"""Problems of the first chapters: the question, RLHF, accuracy and reward variance."""

import numpy as np

from rvlib.problems.making import Question, pick, problem
from rvlib.tabular import geometry

# ---- A number for a good teacher -------------------------------------------------------------------------------------


@problem
def nearly_certain(rng: np.random.Generator) -> Question:
    """The most that the logits of a nearly certain policy move."""
    delta, prompts = pick(rng, 0.01, 0.03, 0.05), int(pick(rng, 2, 5, 10))
    text = f"""A tabular policy gives one output with probability {1 - delta:g}, and rewards lie in $[-1,1]$; there
    are {prompts} prompts. What is the bound of the first chapter on $\\sum_y\\lvert\\dot\\theta_y\\rvert$?"""
    return text, 4 * delta / prompts


@problem
def rough_loses(rng: np.random.Generator) -> Question:
    """The rise in the long run under a reward model that praises the middling output most."""
    best, middling = pick(rng, 0.1, 0.15, 0.2), pick(rng, 0.2, 0.3, 0.4)
    worst = 1 - best - middling
    text = f"""A policy gives three outputs with probabilities $({best},{middling},{worst:g})$, and the ground truth
    is $(1,0,-1)$. A reward model gives them $(0.5,1,-1)$. By how much has the ground truth risen in the long run
    under gradient flow without a penalty?"""
    return text, worst - best


# ---- RLHF in one page ------------------------------------------------------------------------------------------------


@problem
def two_outputs(rng: np.random.Generator) -> Question:
    """Time between two probabilities in closed form."""
    start, end, gap = pick(rng, 0.1, 0.25, 0.3), pick(rng, 0.6, 0.8), pick(rng, 0.5, 2.0)
    text = f"""Two outputs have rewards that differ by {gap:g}; one prompt, $\\lambda=0$, gradient flow on the logits.
    In which time does the better output rise from probability {start} to {end}?"""
    return text, float(geometry.two_output_time(start, end, gap=gap))


# ---- Accuracy and reward variance ------------------------------------------------------------------------------------


@problem
def certain_variance(rng: np.random.Generator) -> Question:
    """The largest variance for a nearly certain policy."""
    delta = pick(rng, 0.05, 0.2, 0.25)
    text = f"""A policy gives one output with probability {1 - delta}. What is the largest reward variance of a reward
    model with values in $[-1,1]$?"""
    return text, 4 * delta * (1 - delta)
