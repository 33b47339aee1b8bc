"""What rewards of replies say of a reward model as a teacher: grade one, order several, advise; without torch."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from rvlib import estimates
from rvlib.files import RESULTS, write_text
from rvlib.metrics import Normalizer, ranking_accuracy, reward_covariance, reward_variance

ALMOST_NONE = 0.01  # of the mean reward variance: below it a prompt counts as having (almost) none
BOOK = RESULTS / "audit.json"  # what the book's chapter reads

Interval = list[float]  # [value, low, high], as JSON holds it


class Grade(TypedDict, total=False):
    """What is known of one teacher, as JSON holds it; `grade` makes it.

    The second part is there with a ground truth, the third with preferences.
    """

    mean: float  # of the reward, in its own unit
    scale: float  # its standard deviation over all replies, the unit of what follows
    reward_variance: Interval
    reward_variance_own_unit: Interval
    spread: list[float]  # the 10 %, 50 % and 90 % quantiles of the reward variance over prompts
    spread_of_mean: list[float]  # the same with the mean reward variance as the unit (scheme="variance")
    flat: Interval  # share of prompts with (almost) no reward variance
    prompts: int  # that differ
    per_prompt: dict[str, list]  # "prompt" and "pair_prompt" number those that differ, where some come more than once

    accuracy: Interval | None
    covariance: Interval
    chance: float  # the accuracy of a reward that ties as many pairs and has nothing to do with the ground truth
    tied: float  # share of the pairs of different replies
    tied_in_error: float  # the same of those pairs that the ground truth orders

    preference_accuracy: Interval
    preference_covariance: Interval
    pairs: int

    rewards: list[list[float]]  # (prompts, replies); `audit` adds them, and (pairs, 2)
    preferences: list[list[float]]
    noise: float  # what rounding changed in a reward at most, in its own unit
    chat_template: bool  # these three of models alone: whether it has one, one reply as it read it, what to know
    example: dict[str, Any]
    notes: list[str]


class Gap(TypedDict):
    """What separates a teacher from the next in the order, paired over prompts."""

    difference: Interval
    prompts: int | None  # so many would tell them apart; None where these do, or nothing would
    apart: bool


class Order(TypedDict):
    """Teachers, best first, and what they are ordered by."""

    by: str
    names: list[str]
    gaps: list[Gap]


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit, all of it made of what JSON can hold; `rvlib.audit.report` shows it.

    An interval is [value, low, high]. made: when, with what versions, where, in how many seconds. policy, sampling: as
    recorded. prompts: {"source", "names", "left_out"}. ground_truth: its name, or None. replies: {"cut_off", "same"},
    shares. teachers: {name: `grade`, "rewards" (prompts, replies) and "preferences" (pairs, 2)}; reference: the same of
    the ground truth. order: see `order_of_teachers`. advice: sentences.
    """

    made: dict[str, Any]
    policy: dict[str, Any]
    sampling: dict[str, Any]
    prompts: dict[str, Any]
    ground_truth: str | None
    replies: dict[str, float]
    teachers: dict[str, Grade]
    reference: Grade | None
    order: Order
    advice: list[str]

    @classmethod
    def load(cls, path: str | pathlib.Path = BOOK) -> "Audit":
        """The audit in an audit.json, or in the folder that has it; the book's by default."""
        path = pathlib.Path(path)
        return cls(**json.loads((path / "audit.json" if path.is_dir() else path).read_text(encoding="utf-8")))

    def write(self, folder: str | pathlib.Path) -> None:
        """Write audit.json and audit.html into `folder`."""
        from rvlib.audit import report  # which imports this module

        contents = {"audit.json": json.dumps(asdict(self), allow_nan=False), "audit.html": report.page(self)}
        for name, text in contents.items():
            write_text(pathlib.Path(folder, name), text)

    def _repr_html_(self) -> str:
        from rvlib.audit import report  # which imports this module

        return report.tables(self)


@dataclass(frozen=True)
class _Agreement:
    """How a reward agrees with a ground truth, prompt by prompt, and what share of all pairs it ties.

    accuracy, chance: (prompts,), NaN where no two replies differ. covariance: (prompts,).
    """

    accuracy: NDArray[np.float64]
    chance: NDArray[np.float64]
    covariance: NDArray[np.float64]
    tied: float
    tied_in_error: float


def grade(
    rewards: ArrayLike,
    ground_truth: ArrayLike | None = None,
    preferences: ArrayLike = (),
    different: ArrayLike | None = None,
    *,
    prompts: Sequence[str] | None = None,
    pair_prompts: Sequence[str] | None = None,
) -> Grade:
    """What is known of one teacher, a dictionary; a mean over prompts is [value, low, high], with its 95 % interval.

    rewards, ground_truth: (prompts, replies). preferences: (pairs, 2), rewards of a preferred reply and of the other.
    different: (prompts, replies, replies), which two replies differ as texts, all by default; a reply that was drawn
    twice is no pair for accuracy. prompts, pair_prompts: the texts, all different by default; equal ones count as one
    prompt, whose value is their mean. "per_prompt" has "reward_variance", and with a ground truth "covariance" and
    "accuracy" (None where no two differ), a value for every row of `rewards`.
    """
    rewards = np.asarray(rewards, dtype=float)
    prompt = _numbered(prompts, len(rewards))
    scale = Normalizer.fit(rewards).scale if np.ptp(rewards) else 0.0
    normalised = reward_variance(rewards) / (scale**2 or 1)
    variances = _averaged(reward_variance(rewards), prompt)  # (prompts that differ,)
    flat = reward_variance(rewards) <= ALMOST_NONE * variances.mean()
    deciles = [0.1, 0.5, 0.9]
    result: Grade = {
        "mean": float(rewards.mean()),
        "scale": scale,
        "reward_variance": _mean(normalised, prompt),
        "reward_variance_own_unit": _mean(variances),
        "spread": np.quantile(_averaged(normalised, prompt), deciles).tolist(),
        "spread_of_mean": (np.quantile(variances, deciles) / (variances.mean() or 1)).tolist(),
        "flat": _share(flat, prompt),
        "prompts": len(variances),
        "per_prompt": {"reward_variance": normalised.tolist()},
    }
    if len(variances) < len(rewards):
        result["per_prompt"]["prompt"] = prompt.tolist()
    if ground_truth is not None:
        agreement = _agreement(rewards, np.asarray(ground_truth, dtype=float), different, scale or 1.0)
        defined = ~np.isnan(agreement.accuracy)
        enough = len(set(prompt[defined])) > 1
        result["accuracy"] = _mean(agreement.accuracy[defined], prompt[defined]) if enough else None
        result["covariance"] = _mean(agreement.covariance, prompt)
        result["chance"] = float(_averaged(agreement.chance[defined], prompt[defined]).mean()) if enough else 0.5
        result["tied"] = agreement.tied
        result["tied_in_error"] = agreement.tied_in_error
        result["per_prompt"]["accuracy"] = [
            None if np.isnan(accuracy) else float(accuracy) for accuracy in agreement.accuracy
        ]
        result["per_prompt"]["covariance"] = agreement.covariance.tolist()
    pairs = np.asarray(preferences, dtype=float)
    pair_prompt = _numbered(pair_prompts, len(pairs))
    if len(set(pair_prompt)) > 1:
        margins = (pairs[:, 0] - pairs[:, 1]) / (scale or 1)
        covariance = margins / 2  # of the reward with 1 for the preferred reply and 0 for the other
        result["preference_accuracy"] = _share(margins > 0, pair_prompt)
        result["preference_covariance"] = _mean(covariance, pair_prompt)
        result["pairs"] = len(margins)
        result["per_prompt"]["preference_covariance"] = covariance.tolist()
        if len(set(pair_prompt)) < len(pairs):
            result["per_prompt"]["pair_prompt"] = pair_prompt.tolist()
    return result


def interval_of(grade: Grade, measure: str) -> Interval:
    """[value, low, high] of one of the measures that teachers are ordered by."""
    return grade[measure]  # type: ignore[literal-required]  # a variable is no literal


def order_of_teachers(teachers: Mapping[str, Grade]) -> Order:
    """Who is expected to teach most: by "covariance" with the ground truth, else by "preference_covariance", else by
    "reward_variance" alone. teachers: {name: `grade`}.

    {"by", "names" (best first), "gaps"}, one gap for each two neighbours in the order, paired over prompts:
    {"difference": [value, low, high], "prompts": so many would tell them apart, or None where these do, "apart"}.
    """
    by = next(
        key
        for key in ("covariance", "preference_covariance", "reward_variance")
        if all(key in teacher for teacher in teachers.values())
    )
    names = sorted(teachers, key=lambda name: -interval_of(teachers[name], by)[0])
    number = "pair_prompt" if by == "preference_covariance" else "prompt"

    def per_prompt(name: str) -> NDArray[np.float64]:
        row = teachers[name]["per_prompt"]
        return _averaged(np.array(row[by]), np.array(row.get(number, range(len(row[by])))))

    gaps = [_gap(per_prompt(better), per_prompt(worse)) for better, worse in zip(names, names[1:])]
    return {"by": by, "names": names, "gaps": gaps}


def advice(audit: Audit) -> list[str]:
    """Plain sentences on an `Audit`: what to mind, and what to do."""
    sentences = _advice_on_the_order(audit)
    for name, teacher in audit.teachers.items():
        sentences += _advice_on_a_teacher(audit, name, teacher)
    names, tied = audit.order["names"], share_the_truth_ties(audit)
    if tied > 0.1:
        sentences.append(
            f"{audit.ground_truth} itself ties {tied:.0%} of the pairs, and accuracy counts a tie as right only where "
            f"both tie: a reward that ties none has at most {1 - tied:.2f}, and {(1 - tied) / 2:.2f} by chance. "
            "Go by the covariance."
        )
    if audit.order["by"] == "covariance" and len(names) > 1:
        first_by = {
            "accuracy": max(names, key=lambda name: (audit.teachers[name]["accuracy"] or [0.0])[0]),
            "reward variance": max(names, key=lambda name: audit.teachers[name]["reward_variance"][0]),
        }
        for measure, first in first_by.items():
            if first != names[0]:
                sentences.append(f"{first} has the larger {measure}, and {names[0]} is expected to teach more.")
    if audit.replies["cut_off"] > 0.5:
        sentences.append(
            f"{audit.replies['cut_off']:.0%} of the replies were cut off at {audit.sampling['max_new_tokens']} tokens, "
            "and judged unfinished: raise --max-new-tokens if you train with longer ones."
        )
    if audit.replies["same"] > 0.2:
        sentences.append(
            f"{audit.replies['same']:.0%} of the replies repeat another to the same prompt: "
            "this policy has little left to choose from."
        )
    return sentences


def _advice_on_the_order(audit: Audit) -> list[str]:
    sentences, order = [], audit.order
    if order["by"] == "reward_variance":
        sentences.append(
            "There is no ground truth and there are no preferences: the order says who teaches fastest what it wants "
            "itself, not whether that is what you want. Add --ground-truth, or chosen and rejected replies."
        )
    elif order["by"] == "preference_covariance":
        sentences.append(
            "The preferences are over replies that the policy did not write: what a reward model knows of those need "
            "not hold for the policy's own. A ground truth for its own replies would tell more."
        )
    for better, worse, gap in zip(order["names"], order["names"][1:], order["gaps"]):
        if not gap["apart"]:
            more = f"; about {gap['prompts']} would" if gap["prompts"] else ""
            sentences.append(f"{better} and {worse} cannot be told apart with these prompts{more}.")
    return sentences


def _advice_on_a_teacher(audit: Audit, name: str, teacher: Grade) -> list[str]:
    if teacher["scale"] == 0:
        return [f"{name} gives every reply the same reward: it cannot teach."]
    sentences = []
    flat, count = teacher["flat"][0], teacher["prompts"]
    if flat > 0.2:
        sentences.append(
            f"{name} gives (almost) the same reward to all {audit.sampling['num_generations']} replies on "
            f"{round(flat * count)} of {count} prompts, from which nothing is learnt: leave such prompts out, "
            "draw more replies, or use a finer reward."
        )
    if teacher["reward_variance"][2] < 0.25:
        sentences.append(
            f"Of what {name} distinguishes, {teacher['reward_variance'][0]:.0%} is between replies to one prompt; "
            "the rest is between prompts and teaches nothing. Expect it to be slow."
        )
    if "covariance" in teacher:
        _, low, high = teacher["covariance"]
        if high < 0:
            sentences.append(f"{name} pulls against {audit.ground_truth}: training on it will lower what you want.")
        elif low <= 0:
            sentences.append(
                f"{name} cannot be told from one that has nothing to do with {audit.ground_truth}: "
                "its covariance may be 0."
            )
        tied = teacher.get("tied_in_error", teacher["tied"])
        if tied > 0.1:
            that_are_ordered = f" that {audit.ground_truth} orders" * (share_the_truth_ties(audit) > 0)
            sentences.append(
                f"{name} ties {tied:.0%} of the pairs{that_are_ordered}, which accuracy counts as wrong and a policy "
                "gradient does not count at all: go by the covariance."
            )
    elif "preference_covariance" in teacher:
        _, low, high = teacher["preference_covariance"]
        if high < 0:
            sentences.append(f"{name} pulls against the preferences: training on it will lower what you want.")
        elif low <= 0:
            sentences.append(
                f"{name} cannot be told from one that has nothing to do with the preferences: its covariance may be 0."
            )
    return sentences


def share_the_truth_ties(audit: Audit) -> float:
    """The share of the pairs of different replies that the ground truth ties; 0 without one."""
    return audit.reference["tied"] if audit.reference else 0.0


def _agreement(
    rewards: NDArray[np.float64], truth: NDArray[np.float64], different: ArrayLike | None, scale: float
) -> _Agreement:
    """Accuracy on pairs of different replies, and covariance in units of `scale` and of the truth's deviation."""
    prompts, replies = rewards.shape
    pairs = np.ones((prompts, replies, replies)) if different is None else np.array(different, dtype=float)
    pairs *= ~np.eye(replies, dtype=bool)
    counts = pairs.sum((1, 2))
    defined = counts > 0
    accuracy = np.full(prompts, np.nan)
    if defined.any():
        accuracy[defined] = ranking_accuracy(rewards[defined], truth[defined], pairs[defined])
    ties, truth_ties = (pairs * (r[:, :, None] == r[:, None, :]) for r in (rewards, truth))
    with np.errstate(invalid="ignore"):  # NaN where no two replies differ
        tied, truth_tied = (t.sum((1, 2)) / counts for t in (ties, truth_ties))
    truth_scale = Normalizer.fit(truth).scale if np.ptp(truth) else 1.0
    ordered = pairs - truth_ties
    return _Agreement(
        accuracy=accuracy,
        chance=tied * truth_tied + (1 - tied) * (1 - truth_tied) / 2,
        covariance=reward_covariance(rewards, truth) / (scale * truth_scale),
        tied=float(ties.sum() / max(counts.sum(), 1)),
        tied_in_error=float((ties * ordered).sum() / max(ordered.sum(), 1)),
    )


def _gap(better: NDArray[np.float64], worse: NDArray[np.float64]) -> Gap:
    """What separates two teachers; better, worse: (prompts,), what they are ordered by."""
    # One reward in two units differs from itself by rounding alone.
    value, low, high = _mean(np.where(np.isclose(better, worse, rtol=1e-9, atol=1e-12), 0.0, better - worse))
    # An interval narrows as the square root of the prompts; it must not reach 0 from the value.
    needed = None if low > 0 or value <= 0 else int(np.ceil(len(better) * ((value - low) / value) ** 2))
    return {"difference": [value, low, high], "prompts": needed, "apart": low > 0}


def _numbered(texts: Sequence[str] | None, count: int) -> NDArray[np.int64]:
    """(count,) numbers of the texts that differ, in the order in which they come first; all differ by default."""
    if texts is None:
        return np.arange(count)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)


def _averaged(values: NDArray, prompt: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean value of each prompt that differs, by its number."""
    _, prompt = np.unique(prompt, return_inverse=True)
    return np.bincount(prompt, values) / np.bincount(prompt)


def _mean(values: NDArray[np.float64], prompt: NDArray[np.int64] | None = None) -> Interval:
    """The mean over prompts that differ, [value, low, high]."""
    estimate = estimates.over_prompts(values if prompt is None else _averaged(values, prompt))
    return [float(estimate.value), float(estimate.low), float(estimate.high)]


def _share(flags: NDArray[np.bool_], prompt: NDArray[np.int64]) -> Interval:
    """A share with its exact interval (Clopper and Pearson's), which a bootstrap of zeros would miss."""
    shares = _averaged(flags, prompt)
    count, total = shares.sum(), len(shares)  # by way of beta, which takes a fraction of a prompt too
    low = beta.ppf(0.025, count, total - count + 1) if count > 0 else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return [float(count / total), float(low), float(high)]
