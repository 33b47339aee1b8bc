"""What rewards of replies say of a reward model: measure one, order several; without torch.

`outcome` says what a `Measurements` and an `Order` hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from rvlib import estimates
from rvlib.audit import statistics
from rvlib.audit.outcome import Gap, Measurements, Order, interval_of, listed
from rvlib.audit.statistics import Interval, averaged, covariances
from rvlib.metrics import Normalizer, harm_aware_accuracy, ranking_accuracy

ALMOST_NONE = 0.01  # of the mean reward variance: below it a prompt counts as having (almost) none
LARGEST = 1e50  # of a reward in size, and one over the least by which rewards may differ: beyond it, powers overflow


@dataclass(frozen=True)
class _Agreement:
    """How a reward agrees with a ground truth, prompt by prompt, and what share of all pairs it ties.

    accuracy, chance: (prompts,), NaN where no two replies differ. covariance: (prompts,), in units of both rewards;
    truth_covariance: the same of the ground truth in the reward's place, over the same replies.
    """

    accuracy: NDArray[np.float64]
    chance: NDArray[np.float64]
    covariance: NDArray[np.float64]
    truth_covariance: NDArray[np.float64]
    tied: float
    tied_in_error: float


def measurements_of(
    rewards: ArrayLike,
    ground_truth: ArrayLike | None = None,
    preferences: ArrayLike = (),
    different: ArrayLike | None = None,
    *,
    prompts: Sequence[str] | None = None,
    pair_prompts: Sequence[str] | None = None,
    group: int | None = None,
) -> Measurements:
    """What is known of one reward model; a mean over prompts is [value, low, high], with its 95 % interval.

    rewards, ground_truth: (prompts, replies), NaN where there is none, which is left out. preferences: (pairs, 2),
    rewards of a preferred reply and of the other. different: (prompts, replies, replies), which two replies differ as
    texts, all by default; a reply that was drawn twice is no pair for accuracy. prompts, pair_prompts: the texts, all
    different by default; equal ones count as one prompt, whose value is their mean. group: replies to a prompt from
    which a step of training learns, all by default. "per_prompt" has "reward_variance", and with a ground truth
    "covariance" and "accuracy" (None where no two differ), a value for every row of `rewards`. The unit of the ground
    truth is its deviation over all replies where it is known, with a reward or without, so that covariances of several
    reward models compare. ValueError unless two prompts have two rewards each, and with a ground truth two replies each
    of which both are known, and for rewards that `check_size` refuses.
    """
    rewards = np.asarray(rewards, dtype=float)
    check_size("rewards", rewards, preferences)
    if ground_truth is not None:
        check_size("ground_truth", ground_truth)
    prompt = _numbered(prompts, len(rewards))
    present = np.isfinite(rewards)
    own_unit = covariances(rewards, rewards)
    variances = averaged(own_unit, prompt)  # (prompts that differ,)
    variances = variances[np.isfinite(variances)]
    if len(variances) < 2:
        raise ValueError(
            f"rewards must hold at least two rewards of each of at least two prompts, got {len(variances)} such "
            f"prompts of {len(rewards)}; score more replies."
        )
    scale = Normalizer.fit(rewards[present]).scale if np.ptp(rewards[present]) else 0.0
    normalised = own_unit / (scale**2 or 1)
    variance = _mean(normalised, prompt)
    flat = np.where(np.isfinite(own_unit), own_unit <= ALMOST_NONE * variances.mean(), np.nan)
    deciles = [0.1, 0.5, 0.9]
    truth = None if ground_truth is None else np.asarray(ground_truth, dtype=float)
    group = min(group or rewards.shape[1], rewards.shape[1])
    moments = statistics.group_moments(rewards, truth, group=group)
    flat_groups = statistics.flat_groups(rewards, group)
    result: Measurements = {
        "mean": float(rewards[present].mean()),
        "scale": scale,
        "reward_variance": variance,
        "reward_variance_own_unit": [end * (scale**2 or 1) for end in variance],
        "spread": np.nanquantile(averaged(normalised, prompt), deciles).tolist(),
        "spread_of_mean": (np.quantile(variances, deciles) / (variances.mean() or 1)).tolist(),
        "flat": _share(flat, prompt),
        "prompts": len(variances),
        "unscored": int((~present).sum()),
        "group": group,
        "flat_groups": _share(flat_groups, prompt) if np.isfinite(flat_groups).any() else None,
        "signal_to_noise": statistics.signal_to_noise(moments, prompt),
        "replies_to_halve": statistics.replies_to_halve(rewards, truth),
        "per_prompt": {"reward_variance": listed(normalised)},
    }
    if len(np.unique(prompt)) < len(rewards):
        result["per_prompt"]["prompt"] = prompt.tolist()
    if truth is not None:
        by_truth = _measured_by_truth(rewards, truth, different, prompt)
        result["per_prompt"] |= by_truth.pop("per_prompt")
        result.update(by_truth)  # type: ignore[typeddict-item]  # keys of the measurements
    pairs = np.asarray(preferences, dtype=float).reshape(-1, 2)
    scored = np.isfinite(pairs).all(-1)
    pair_prompt = _numbered(pair_prompts, len(pairs))[scored]
    pairs = pairs[scored]
    if len(set(pair_prompt)) > 1:
        margins = (pairs[:, 0] - pairs[:, 1]) / (scale or 1)
        covariance = margins / 2  # of the reward with 1 for the preferred reply and 0 for the other
        result["preference_accuracy"] = _share(margins > 0, pair_prompt)
        result["preference_covariance"] = _mean(covariance, pair_prompt)
        result["pairs"] = len(margins)
        result["per_prompt"]["preference_covariance"] = covariance.tolist()
        if len(set(pair_prompt)) < len(pairs) or not scored.all():
            result["per_prompt"]["pair_prompt"] = pair_prompt.tolist()
    return result


def check_size(name: str, rewards: ArrayLike, preferences: ArrayLike = ()) -> None:
    """ValueError, in one sentence, for rewards so large, or so nearly equal, that their powers are no numbers."""
    tables = [np.asarray(table, dtype=float) for table in (rewards, preferences)]
    known, pairs = (table[np.isfinite(table)] for table in tables)
    largest = max(np.abs(values).max(initial=0.0) for values in (known, pairs))
    spread = np.ptp(known) if len(known) and largest <= LARGEST else 0.0
    if largest > LARGEST or 0 < spread < 1 / LARGEST:
        got = f"one of {largest:g}" if largest > LARGEST else f"a difference of at most {spread:g}"
        raise ValueError(
            f"{name} must be at most {LARGEST:g} in size and differ by {1 / LARGEST:g} or more, got {got}; multiply "
            "all of them by one number, which changes nothing but their own unit."
        )


def order_of_reward_models(measurements: Mapping[str, Measurements]) -> Order:
    """Who is expected to teach most, best first. measurements: {name: `measurements_of`}.

    By "covariance" with the ground truth, else by "preference_covariance", else by "reward_variance" alone.
    Returns {"by", "names" (best first), "gaps"}, one gap for each two neighbours in the order, paired over prompts:
    {"difference": [value, low, high] or None, "prompts": so many would tell them apart or None,
    "apart"}.
    """
    by = next(
        key
        for key in ("covariance", "preference_covariance", "reward_variance")
        if all(key in measured for measured in measurements.values())
    )
    names = sorted(measurements, key=lambda name: -interval_of(measurements[name], by)[0])
    number = "pair_prompt" if by == "preference_covariance" else "prompt"

    def per_prompt(name: str) -> dict[int, float]:
        row = measurements[name]["per_prompt"]
        numbers = np.array(row.get(number, range(len(row[by]))))
        return dict(zip(np.unique(numbers).tolist(), averaged(np.array(row[by], dtype=float), numbers)))

    gaps = [_gap(per_prompt(better), per_prompt(worse)) for better, worse in zip(names, names[1:])]
    return {"by": by, "names": names, "gaps": gaps}


def _measured_by_truth(
    rewards: NDArray[np.float64],
    truth: NDArray[np.float64],
    different: ArrayLike | None,
    prompt: NDArray[np.int64],
) -> dict[str, Any]:
    """What a ground truth adds to a `Measurements`, its "per_prompt" too."""
    common = averaged(covariances(rewards, truth), prompt)
    if np.isfinite(common).sum() < 2:
        raise ValueError(
            "ground_truth must be known for at least two replies with a reward to each of at least two prompts, got "
            f"{np.isfinite(common).sum()} such prompts of {len(common)}; score more replies."
        )
    agreement = _agreement(rewards, truth, different)
    harm_aware = harm_aware_accuracy(rewards, truth, different)
    enough = np.isfinite(averaged(agreement.accuracy, prompt)).sum() > 1
    ordered = np.isfinite(averaged(harm_aware.accuracy, prompt)).sum() > 1
    return {
        "accuracy": _mean(agreement.accuracy, prompt) if enough else None,
        "covariance": _mean(agreement.covariance, prompt),
        "relative_speed": statistics.relative_speed(agreement.covariance, agreement.truth_covariance, prompt),
        "chance": float(np.nanmean(averaged(agreement.chance, prompt))) if enough else 0.5,
        "tied": agreement.tied,
        "tied_in_error": agreement.tied_in_error,
        "harm_aware": _mean(harm_aware.accuracy, prompt) if ordered else None,
        "harm_aware_chance": float(np.nanmean(averaged(harm_aware.chance, prompt))) if ordered else None,
        "per_prompt": {"accuracy": listed(agreement.accuracy), "covariance": listed(agreement.covariance)},
    }


def _agreement(rewards: NDArray[np.float64], truth: NDArray[np.float64], different: ArrayLike | None) -> _Agreement:
    """Accuracy on pairs of different replies, and covariance in units of the deviations of both.

    All of it is of the replies that have both rewards, and so is the reward's unit; the ground truth's is of all
    replies where it is known, the same for every reward model, whichever replies that one abstains from.
    """
    prompts, replies = rewards.shape
    truth_unit = unit(truth)
    rewards, truth = statistics.jointly_known(rewards, truth)
    present = np.isfinite(truth)
    pairs = np.ones((prompts, replies, replies)) if different is None else np.array(different, dtype=float)
    pairs *= ~np.eye(replies, dtype=bool) & present[:, :, None] & present[:, None, :]
    counts = pairs.sum((1, 2))
    defined = counts > 0
    accuracy = np.full(prompts, np.nan)
    # A reply without both rewards is in no pair, so its 0 is never looked at.
    filled = np.where(present, rewards, 0.0)
    filled_truth = np.where(present, truth, 0.0)
    if defined.any():
        accuracy[defined] = ranking_accuracy(filled[defined], filled_truth[defined], pairs[defined])
    ties = pairs * (filled[:, :, None] == filled[:, None, :])
    truth_ties = pairs * (filled_truth[:, :, None] == filled_truth[:, None, :])
    with np.errstate(invalid="ignore"):  # NaN where no two replies differ
        tied = ties.sum((1, 2)) / counts
        truth_tied = truth_ties.sum((1, 2)) / counts
    ordered = pairs - truth_ties
    return _Agreement(
        accuracy=accuracy,
        chance=tied * truth_tied + (1 - tied) * (1 - truth_tied) / 2,
        covariance=covariances(rewards, truth) / (unit(rewards) * truth_unit),
        truth_covariance=covariances(truth, truth) / (unit(truth) * truth_unit),
        tied=float(ties.sum() / max(counts.sum(), 1)),
        tied_in_error=float((ties * ordered).sum() / max(ordered.sum(), 1)),
    )


def unit(rewards: NDArray[np.float64]) -> float:
    """The standard deviation of all rewards that are known, or 1 where they are equal."""
    known = rewards[np.isfinite(rewards)]
    return Normalizer.fit(known).scale if np.ptp(known) else 1.0


def _gap(better: Mapping[int, float], worse: Mapping[int, float]) -> Gap:
    """What separates two reward models, of each {prompt: what it is ordered by}, paired where both are known."""
    pairs = np.array([(better[key], worse[key]) for key in better if key in worse]).reshape(-1, 2)
    first, second = pairs[np.isfinite(pairs).all(-1)].T
    if len(first) < 2:
        return {"difference": None, "prompts": None, "apart": False}
    # One reward in two units differs from itself by rounding alone.
    value, low, high = _mean(np.where(np.isclose(first, second, rtol=1e-9, atol=1e-12), 0.0, first - second))
    # An interval narrows as the square root of the prompts; it must not reach 0 from the value.
    needed = None if low > 0 or value <= 0 else int(np.ceil(len(first) * ((value - low) / value) ** 2))
    return {"difference": [value, low, high], "prompts": needed, "apart": low > 0}


def _numbered(texts: Sequence[str] | None, count: int) -> NDArray[np.int64]:
    """(count,) numbers of the texts that differ, in the order in which they come first; all differ by default."""
    if texts is None:
        return np.arange(count)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)


def _mean(values: NDArray[np.float64], prompt: NDArray[np.int64] | None = None) -> Interval:
    """The mean over prompts that differ, [value, low, high], NaN left out."""
    values = averaged(values, prompt)
    estimate = estimates.over_prompts(values[np.isfinite(values)])
    return [float(estimate.value), float(estimate.low), float(estimate.high)]


def _share(flags: NDArray[Any], prompt: NDArray[np.int64]) -> Interval:
    """A share with its exact interval (Clopper and Pearson's), which a bootstrap of zeros would miss."""
    shares = averaged(flags, prompt)
    shares = shares[np.isfinite(shares)]
    count, total = shares.sum(), len(shares)  # by way of beta, which takes a fraction of a prompt too
    low = beta.ppf(0.025, count, total - count + 1) if count > 0 else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return [float(count / max(total, 1)), float(low), float(high)]
