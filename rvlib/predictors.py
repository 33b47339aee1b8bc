"""Numbers measured before training that may say which reward model teaches best: `PREDICTORS`, each with its source.

All but off-policy accuracy are computed on the same replies y_1 … y_n ~ π(·|x) of the initial policy, with normalised
rewards r of the reward model and g of the ground truth; V is a prompt's mean; each but the signal-to-noise ratio is a
mean over prompts. A larger number is the better one.

    accuracy, uniform pairs         Def. 1, arXiv 2503.15477, over pairs of different replies, each counted once
    accuracy, on-policy pairs       Def. 1 over pairs of draws, two draws of the same reply being ordered right
    accuracy, off-policy pairs      Def. 1 over pairs of others' replies, as RewardBench has it (arXiv 2403.13787)
    harm-aware accuracy             arXiv 2604.25872: a pair counts if it is ranked right, or if r of its worse reply
                                    lies below V_RM
    reward variance                 Def. 2, arXiv 2503.15477
    variance and accuracy           the mean of the variance and the two accuracies' mean, its Table 2
    deviation × (2 accuracy − 1)    √Var(r) (2 accuracy − 1), on-policy pairs, this book's
    correlation                     of r and g within a prompt, 0 where either has no spread, this book's
    covariance                      of r and g within a prompt, this book's
    π²-weighted covariance          E_π[ π (r - V_RM)(g - V_G) ], dV_G/dt of a tabular policy at t = 0, this book's
    1 − group-collapse rate         the probability, before training, that k replies do not all have the same reward;
                                    arXiv 2605.21125 counts the batches of a training whose groups do
    signal-to-noise ratio           mean over deviation of A_i (g_i - V_G), A_i the RLOO advantages in groups of k, over
                                    all replies to all prompts
    best-of-4 gain, best-of-16 gain E g of the best of m replies by r, less V_G: on the gold-against-KL curve of arXiv
                                    2210.10760, at a divergence of at most ln m - (m - 1)/m = 0.64 and 1.84 nats; arXiv
                                    2505.12763 compares such a curve with the proxy's
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rvlib import metrics
from rvlib.tabular.estimators import advantages

Array = NDArray[np.float64]
NUM_GENERATIONS = 4  # replies to a prompt in a step of policy gradient


@dataclass(frozen=True)
class MeasuredReplies:
    """What a reward model and the ground truth give to the same replies, before training.

    proxy, ground_truth: normalised rewards (prompts, replies). outputs: (prompts, replies), equal for equal replies.
    probs: π(y|x) of each reply. off_policy_proxy, off_policy_truth: rewards of pairs by others (prompts, pairs, 2).
    Variances and covariances of the n replies to a prompt divide by n - 1; `weighted_covariance` divides by n.
    """

    proxy: Array
    ground_truth: Array
    outputs: NDArray[np.intp]
    probs: Array
    off_policy_proxy: Array
    off_policy_truth: Array


def uniform_accuracy(replies: MeasuredReplies) -> float:
    """Accuracy over pairs of different replies, each reply counted once however often it was drawn.

    Prompts to which all replies are the same have no pairs and are left out.
    """
    same = replies.outputs[:, :, None] == replies.outputs[:, None, :]
    once = 1 / same.sum(-1)
    weights = once[:, :, None] * once[:, None, :] * ~same
    paired = weights.any((-1, -2))
    kept = paired if paired.any() else ~paired  # of prompts that have no pair at all `ranking_accuracy` complains
    accuracy = metrics.ranking_accuracy(replies.proxy[kept], replies.ground_truth[kept], weights[kept])
    return float(accuracy.mean())


def on_policy_accuracy(replies: MeasuredReplies) -> float:
    """Accuracy over pairs of draws. Two draws of the same reply tie in both rewards: a pair that is ordered right."""
    return float(metrics.ranking_accuracy(replies.proxy, replies.ground_truth).mean())


def off_policy_accuracy(replies: MeasuredReplies) -> float:
    """Accuracy over pairs of others' replies."""
    return float(metrics.ranking_accuracy(replies.off_policy_proxy, replies.off_policy_truth).mean())


def harm_aware_accuracy(replies: MeasuredReplies) -> float:
    """Accuracy that forgives a wrong order if the worse reply has less reward than the policy's replies on average.

    Prompts of which the ground truth orders no pair are left out; NaN where these are all.
    """
    accuracy = metrics.harm_aware_accuracy(replies.proxy, replies.ground_truth).accuracy
    known = accuracy[np.isfinite(accuracy)]
    return float(known.mean()) if len(known) else float("nan")


def reward_variance(replies: MeasuredReplies) -> float:
    """The mean over prompts of the reward variance."""
    return float(metrics.reward_variance(replies.proxy).mean())


def variance_and_accuracy(replies: MeasuredReplies) -> float:
    """The mean of the reward variance and of the mean of on- and off-policy accuracy."""
    both = (on_policy_accuracy(replies) + off_policy_accuracy(replies)) / 2
    return (reward_variance(replies) + both) / 2


def deviation_times_accuracy(replies: MeasuredReplies) -> float:
    """√Var(r) (2 accuracy − 1), the mean over prompts."""
    accuracy = metrics.ranking_accuracy(replies.proxy, replies.ground_truth)
    return float((np.sqrt(metrics.reward_variance(replies.proxy)) * (2 * accuracy - 1)).mean())


def correlation(replies: MeasuredReplies) -> float:
    """Pearson's correlation within a prompt, the mean over prompts."""
    spread = np.sqrt(metrics.reward_variance(replies.proxy) * metrics.reward_variance(replies.ground_truth))
    values = metrics.reward_covariance(replies.proxy, replies.ground_truth)
    return float(np.where(spread > 0, values / np.where(spread > 0, spread, 1), 0.0).mean())


def covariance(replies: MeasuredReplies) -> float:
    """The covariance within a prompt, the mean over prompts."""
    return float(metrics.reward_covariance(replies.proxy, replies.ground_truth).mean())


def weighted_covariance(replies: MeasuredReplies) -> float:
    """E_π[ π (r - V_RM)(g - V_G) ], the mean over prompts, of all n replies to a prompt: the divisor is n."""
    first, last = (values - values.mean(-1, keepdims=True) for values in (replies.proxy, replies.ground_truth))
    return float((replies.probs * first * last).mean())


def spread_probability(replies: MeasuredReplies, num_generations: int = NUM_GENERATIONS) -> float:
    """The probability that `num_generations` replies, drawn without replacement, do not all have the same reward."""
    draws = replies.proxy.shape[-1]
    collapsed = [
        sum(comb(int(count), num_generations) for count in np.unique(rewards, return_counts=True)[1])
        / comb(draws, num_generations)
        for rewards in replies.proxy
    ]
    return 1 - float(np.mean(collapsed))


def signal_to_noise(replies: MeasuredReplies, num_generations: int = NUM_GENERATIONS) -> float:
    """Mean over standard deviation of the RLOO advantage times the ground truth's deviation, over all replies."""
    groups = replies.proxy.shape[-1] // num_generations
    rewards = replies.proxy[:, : groups * num_generations].reshape(-1, groups, num_generations)
    truth = (replies.ground_truth - replies.ground_truth.mean(-1, keepdims=True))[:, : groups * num_generations]
    products = advantages(rewards, "rloo").ravel() * truth.ravel()
    deviation = products.std(ddof=1)
    return float(products.mean() / deviation) if deviation > 0 else 0.0


def best_of_m_gain(replies: MeasuredReplies, m: int) -> float:
    """E g of the best by r of m replies drawn without replacement, less V_G; ties are broken evenly."""
    draws = replies.proxy.shape[-1]
    if m > draws:
        raise ValueError(f"m must be at most {draws}, the number of replies to a prompt, got {m}; measure on more.")
    chance = np.array([comb(rank, m) for rank in range(draws + 1)]) / comb(draws, m)  # all m are of the `rank` lowest
    gains = []
    for rewards, truth in zip(replies.proxy, replies.ground_truth):
        at_most, at_least = rankdata(rewards, "max").astype(int), rankdata(rewards, "min").astype(int)
        kept = (chance[at_most] - chance[at_least - 1]) / (at_most - at_least + 1)
        gains.append(kept @ truth - truth.mean())
    return float(np.mean(gains))


PREDICTORS: dict[str, Callable[[MeasuredReplies], float]] = {
    "accuracy, uniform pairs": uniform_accuracy,
    "accuracy, on-policy pairs": on_policy_accuracy,
    "accuracy, off-policy pairs": off_policy_accuracy,
    "harm-aware accuracy": harm_aware_accuracy,
    "reward variance": reward_variance,
    "variance and accuracy": variance_and_accuracy,
    "deviation × (2 accuracy − 1)": deviation_times_accuracy,
    "correlation": correlation,
    "covariance": covariance,
    "π²-weighted covariance": weighted_covariance,
    "1 − group-collapse rate": spread_probability,
    "signal-to-noise ratio": signal_to_noise,
    "best-of-4 gain": lambda replies: best_of_m_gain(replies, 4),
    "best-of-16 gain": lambda replies: best_of_m_gain(replies, 16),
}
NEEDED_REPLIES = {  # to a prompt, by those that need more than two
    "1 − group-collapse rate": NUM_GENERATIONS,
    "signal-to-noise ratio": NUM_GENERATIONS,
    "best-of-4 gain": 4,
    "best-of-16 gain": 16,
}


def chance_levels(replies: MeasuredReplies) -> dict[str, float]:
    """What the accuracies of `PREDICTORS` are by chance, by name: of rewards that know nothing of the ground truth.

    These tie as many pairs of different replies, as in `metrics.chance_accuracy`; two draws of the same reply stay a
    pair that is ordered right. So a reward model that ties many pairs is not taken for one that orders them wrongly.
    NaN where there are no pairs.
    """
    draws = replies.outputs.shape[-1]
    same = replies.outputs[:, :, None] == replies.outputs[:, None, :]
    once = 1 / same.sum(-1)

    def dealt(weights: Array) -> Array:
        ties = (rewards[:, :, None] == rewards[:, None, :] for rewards in (replies.proxy, replies.ground_truth))
        with np.errstate(invalid="ignore"):  # NaN where all replies to a prompt are the same
            tied, truth_tied = ((weights * tie).sum((-1, -2)) / weights.sum((-1, -2)) for tie in ties)
        return tied * truth_tied + (1 - tied) * (1 - truth_tied) / 2

    repeated = (same.sum((-1, -2)) / draws - 1) / (draws - 1)
    levels = {
        "accuracy, uniform pairs": dealt(once[:, :, None] * once[:, None, :] * ~same),
        "accuracy, on-policy pairs": repeated + (1 - repeated) * np.nan_to_num(dealt(1.0 * ~same)),
        "accuracy, off-policy pairs": metrics.chance_accuracy(replies.off_policy_proxy, replies.off_policy_truth),
        "harm-aware accuracy": metrics.harm_aware_accuracy(replies.proxy, replies.ground_truth).chance,
    }
    known = {name: values[np.isfinite(values)] for name, values in levels.items()}
    return {name: float(values.mean()) if values.size else float("nan") for name, values in known.items()}


def measured_by(replies: MeasuredReplies) -> dict[str, float]:
    """What each of `PREDICTORS` says of a reward model, by name, without those that need more replies to a prompt."""
    draws = replies.proxy.shape[-1]
    return {name: predictor(replies) for name, predictor in PREDICTORS.items() if NEEDED_REPLIES.get(name, 2) <= draws}
