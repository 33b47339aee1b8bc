"""The problem that the explorables pose, in Python: what a figure shows can be taken to a notebook and computed on.

r_G(y_i) = 1 - 2 (i + 1/2 + jitter_i)/n,     logits θ_i = peakedness · z_i + skill · r_G(y_i),     z_i standard normal
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib.tabular.policy import softmax
from rvlib.tabular.rewards import attainable_accuracies, attainable_variance, make_reward_model, random


def problem(
    outputs: int, peakedness: float, skill: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(ground_truth, logits), each (outputs,), best output first: the same as web/problem.mjs, number for number."""
    draws = random(seed, 3 * outputs)
    ground_truth = 1 - 2 * (np.arange(outputs) + 0.5 + 0.7 * (draws[:outputs] - 0.5)) / outputs
    radius, angle = draws[outputs:].reshape(-1, 2).T
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)  # Box and Muller's
    return ground_truth, peakedness * normal + skill * ground_truth


def teacher(
    ground_truth: ArrayLike, logits: ArrayLike, accuracy: float, variance: float, seed: int
) -> NDArray[np.float64]:
    """The reward model (n,) nearest to this accuracy and variance under softmax(logits) that this seed can make."""
    probs, steps = softmax(logits), attainable_accuracies(ground_truth)
    nearest = steps[np.abs(steps - accuracy).argmin()]
    return make_reward_model(
        ground_truth, probs, nearest, min(variance, attainable_variance(ground_truth, probs, nearest, seed)[1]), seed
    )
