"""Reward models made to order: to an accuracy and a variance, and as in the proofs of the paper's Theorems 5 and 6.

A reward model is made in two steps. Its ranking comes first (`rankings`): the ground truth's, blurred by noise that the
seed draws, until exactly the wanted pairs are misordered. Values follow, increasing along the ranking. Evenly spaced
ones, scaled down, have any small variance. For a large one they are drawn towards the step that is -1 below some level
and 1 above it:

    r = (1 - τ) even + τ step,    Var r ≤ Var step = max 4 P (1 - P),    P the policy's probability of the outputs above

and no values of that ranking have more: r is an average of steps, and variance is convex. Numbering as in arXiv
2503.15477.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.metrics import reward_covariance, reward_variance
from rvlib.tabular.rankings import pairs, random, ranking, wrong_counts

__all__ = [
    "accurate_but_slow",
    "attainable_accuracies",
    "attainable_accuracy",
    "attainable_variance",
    "inaccurate_but_fast",
    "make_reward_model",
    "policy_specific_teachers",
    "random",
]

# 1 - τ at least: keeps neighbours distinct in double precision, and costs less than 1e-9 of the variance
_APART = 1e-10


def attainable_accuracies(ground_truth: ArrayLike, first: int | None = None) -> NDArray[np.float64]:
    """Every accuracy over uniform pairs that some reward model has (the paper's Def. 3), increasing, in [0, 1].

    ground_truth: (n,), n >= 2. first: index of an output that the reward model must rank strictly first; none by
    default. Without ties in the ground truth these are all multiples of one over the number of pairs. With ties some
    near 1 are missing, since a tie is kept only by tying; the list is complete unless several values of the ground
    truth are shared by hundreds of outputs each, and then lacks some more of those.
    """
    truth = _one_prompt("ground_truth", ground_truth)
    rest, known_right = _without(truth, first)
    free, few = wrong_counts(rest)
    right = pairs(rest.size) - np.concatenate([few, np.arange(free, pairs(rest.size) + 1)])[::-1]
    return (known_right + right) / pairs(truth.size)


def attainable_variance(
    ground_truth: ArrayLike, probs: ArrayLike, accuracy: float, seed: int, first: int | None = None
) -> tuple[float, float]:
    """(low, high): `make_reward_model` reaches every reward variance v with low < v <= high at this accuracy and seed.

    Arguments as there. low is 0, which takes a reward model that ties all outputs; where high is 0 too, only 0 is
    reached. Another seed ranks otherwise and has another high. Rewards of more than two levels come within 1e-9 of
    high, not to it.
    """
    truth, probs = _one_policy(ground_truth, probs)
    return 0.0, _step(_levels(truth, accuracy, seed, first), probs)[1]


def attainable_accuracy(
    ground_truth: ArrayLike, probs: ArrayLike, variance: float, seed: int, first: int | None = None
) -> tuple[float, float]:
    """(least, greatest) accuracy at which `make_reward_model` reaches this variance with this seed.

    Arguments as there. Between the two there may be accuracies whose ranking does not allow it: `attainable_variance`
    tells. Every accuracy is tried, n(n - 1)/2 of them: meant for up to some 100 outputs.
    """
    truth, probs = _one_policy(ground_truth, probs)
    variance = _checks.number("variance", variance, low=0.0)
    accuracies = attainable_accuracies(truth, first)
    largest = np.array([_step(_levels(truth, accuracy, seed, first), probs)[1] for accuracy in accuracies])
    reached = accuracies[(0 < variance) & (variance <= largest) | (variance == largest)]
    if not reached.size:
        raise ValueError(
            f"variance must be in (0, {largest.max():.9g}] for this policy and seed {seed}, got {variance:.9g}."
        )
    return float(reached[0]), float(reached[-1])


def make_reward_model(
    ground_truth: ArrayLike, probs: ArrayLike, accuracy: float, variance: float, seed: int, first: int | None = None
) -> NDArray[np.float64]:
    """Rewards (n,) in [-1, 1] with exactly this accuracy and, to 1e-9 of itself, this variance under probs.

    ground_truth, probs: (n,), n >= 2. accuracy: over uniform pairs, one of `attainable_accuracies`. variance: as
    `attainable_variance` says. seed: chooses the misordered pairs; a lower accuracy adds to the pairs that a higher one
    misorders (where the ground truth has no ties), and rewards move continuously with the variance. first: index of an
    output to rank strictly first. ValueError, naming what is attainable, for what is not: see the book's `prop-free`.
    """
    truth, probs = _one_policy(ground_truth, probs)
    variance = _checks.number("variance", variance, low=0.0)
    levels = _levels(truth, accuracy, seed, first)
    step, largest = _step(levels, probs)
    even = 2 * levels / levels.max() - 1 if levels.any() else np.zeros(truth.size)
    if variance == largest == 0:
        return even
    if not 0 < variance <= largest * (1 + 1e-12):
        raise ValueError(
            f"variance must be in (0, {largest:.9g}] for accuracy {accuracy:.6g} with seed {seed}, got {variance:.9g}."
        )
    # Var((1 - τ) even + τ step) is convex in τ. Where it falls at first, τ begins at its minimum, so that more variance
    # means more of the step.
    away = step - even
    # Half the slopes at both ends.
    falls, rises = -float(reward_covariance(even, away, probs)), float(reward_covariance(step, away, probs))
    start = min(falls / (falls + rises), 1 - _APART) if falls > 0 and rises > 0 else 0.0
    base = (1 - start) * even + start * step
    gentle = float(reward_variance(base, probs))
    if variance <= gentle or levels.max() == 1:
        return base * min(float(np.sqrt(variance / gentle)), 1.0)
    missing = max(largest - variance, 0.0)
    discriminant = max(rises * rises - float(reward_variance(away, probs)) * missing, 0.0)
    rest = missing / (rises + float(np.sqrt(discriminant)))  # 1 - τ
    rest = min(max(rest, _APART), 1 - start)
    return rest * even + (1 - rest) * step


def accurate_but_slow(ground_truth: ArrayLike, accuracy: float, slowness: float, seed: int = 0) -> NDArray[np.float64]:
    """The slow teacher of the paper's Theorem 5: rewards (n,) in (0, 1/T) with the accuracy wanted.

    slowness: T >= 1. Its reward variance is below T^-2 under every policy: `bounds.accurate_but_slow_time_bound`.
    """
    truth = _one_prompt("ground_truth", ground_truth)
    slowness = _checks.number("slowness", slowness, low=1.0)
    levels = _levels(truth, accuracy, seed)
    return (levels + 1) / (levels.max() + 2) / slowness


def inaccurate_but_fast(
    ground_truth: ArrayLike, probs: ArrayLike, best: int, accuracy: float | None = None, seed: int = 0
) -> NDArray[np.float64]:
    """The fast teacher of the paper's Theorem 5: 1 on output `best`, the others between 0 and π(best).

    ground_truth, probs: (n,). accuracy: attainable with `best` ranked first, by default the smallest such accuracy, as
    in the paper's Theorem 2. `bounds.inaccurate_but_fast_time_bound` bounds its t_γ from above.
    """
    truth, probs = _one_policy(ground_truth, probs)
    best = _index("best", best, truth.size)
    if accuracy is None:
        accuracy = attainable_accuracies(truth, first=best)[0]
    levels = _levels(truth, accuracy, seed, best)
    # The others' rewards lie in (0, π(best)), since `best` alone has the top level.
    reward = probs[best] * (levels + 1) / (levels.max() + 1)
    reward[best] = 1.0
    return reward


def policy_specific_teachers(
    outputs: int, good: int, other_good: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two teachers of the paper's Theorem 6: rewards (n,), 1 on `good` or on `other_good`, -1 elsewhere.

    outputs: n >= 2. A policy that gives `good` often and `other_good` hardly ever learns fast from the first and slowly
    from the second; one that gives them the other way round learns the other way round:
    `bounds.matching_teacher_time_bound` and `bounds.mismatched_teacher_time_bound`. So neither is better for all
    policies, the book's `cor-no-order`.
    """
    outputs = _checks.whole("outputs", outputs, low=2)
    good, other_good = (_index(name, y, outputs) for name, y in [("good", good), ("other_good", other_good)])
    if good == other_good:
        raise ValueError(f"other_good must be another output than good, got {good} for both.")
    likes_good, likes_other = (np.where(np.arange(outputs) == y, 1.0, -1.0) for y in (good, other_good))
    return likes_good, likes_other


def _one_prompt(name: str, value: ArrayLike) -> NDArray[np.float64]:
    value = _checks.array(name, value)
    if value.ndim != 1 or value.size < 2:
        raise ValueError(f"{name} must be one prompt's, of shape (n,) with n >= 2 outputs, got shape {value.shape}.")
    return value


def _one_policy(ground_truth: ArrayLike, probs: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    return _checks.broadcast(
        ground_truth=_one_prompt("ground_truth", ground_truth), probs=_checks.probabilities("probs", probs)
    )


def _index(name: str, value: int, outputs: int) -> int:
    value = _checks.whole(name, value, low=0)
    if value >= outputs:
        raise ValueError(f"{name} must be the index of one of {outputs} outputs, got {value}.")
    return value


def _without(truth: NDArray[np.float64], first: int | None) -> tuple[NDArray[np.float64], int]:
    """The ground truth of the outputs that a ranking is free to order, and how many right pairs `first` brings."""
    if first is None:
        return truth, 0
    first = _index("first", first, truth.size)
    return np.delete(truth, first), int((truth < truth[first]).sum())


def _levels(truth: NDArray[np.float64], accuracy: float, seed: int, first: int | None = None) -> NDArray[np.intp]:
    """Levels (n,), 0 the worst, of the ranking that this accuracy and seed mean.

    ValueError unless the accuracy is attainable.
    """
    accuracy = _checks.number("accuracy", accuracy, low=0.0, high=1.0)
    seed = _checks.whole("seed", seed, low=0)
    rest, known_right = _without(truth, first)
    total = pairs(truth.size)
    wrong = known_right + pairs(rest.size) - round(accuracy * total)
    free, few = wrong_counts(rest)
    if (
        not (free <= wrong <= pairs(rest.size) or wrong in few)
        or abs(round(accuracy * total) - accuracy * total) > 1e-6
    ):
        known = attainable_accuracies(truth, first)
        nearest = known[np.abs(known - accuracy).argmin()]
        raise ValueError(
            f"accuracy must be attainable, from {known[0]:.6g} to {known[-1]:.6g} in steps of one over {total} pairs"
            f"{' but for what ties forbid' if free else ''}, got {accuracy:.9g}; the nearest is {nearest:.12g}."
        )
    if first is None:
        return ranking(truth, wrong, seed)
    levels = ranking(rest, wrong, seed)
    return np.insert(levels, first, levels.max() + 1)


def _step(levels: NDArray[np.intp], probs: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The step, -1 below some level and 1 from it on, whose variance is largest, and that variance 4 P (1 - P)."""
    mass = np.bincount(levels, probs)
    below, above = np.cumsum(mass)[:-1], np.cumsum(mass[::-1])[-2::-1]  # summed apart: 1 - P would lose a small P
    if not below.size:
        return np.zeros(levels.size), 0.0
    variance = below * above
    # The first of equals, whatever their last digit.
    split = np.flatnonzero(variance >= variance.max() * (1 - 1e-12))[0]
    step = np.where(levels > split, 1.0, -1.0)
    return step, float(reward_variance(step, probs))
