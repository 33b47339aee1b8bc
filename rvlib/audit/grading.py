"""What rewards of replies say of a reward model as a teacher: grade one, order several, advise; without torch."""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from rvlib import estimates
from rvlib.files import RESULTS, write_whole
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
    prompts: int
    per_prompt: dict[str, list]

    accuracy: Interval | None
    covariance: Interval
    tied: float  # share of the pairs of different replies

    preference_accuracy: Interval
    preference_covariance: Interval
    pairs: int

    rewards: list[list[float]]  # (prompts, replies); `audit` adds them, and (pairs, 2)
    preferences: list[list[float]]


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
            write_whole(pathlib.Path(folder, name), lambda path, text=text: path.write_text(text, encoding="utf-8"))

    def _repr_html_(self) -> str:
        from rvlib.audit import report  # which imports this module

        return report.tables(self)


@dataclass(frozen=True)
class _Agreement:
    """How a reward agrees with a ground truth, prompt by prompt, and the share of all pairs that it ties.

    accuracy: (prompts,), NaN where no two replies differ. covariance: (prompts,).
    """

    accuracy: NDArray[np.float64]
    covariance: NDArray[np.float64]
    tied: float


def grade(
    rewards: ArrayLike,
    ground_truth: ArrayLike | None = None,
    preferences: ArrayLike = (),
    different: ArrayLike | None = None,
) -> Grade:
    """What is known of one teacher, a dictionary; a mean over prompts is [value, low, high], with its 95 % interval.

    rewards, ground_truth: (prompts, replies). preferences: (pairs, 2), rewards of a preferred reply and of the other.
    different: (prompts, replies, replies), which two replies differ as texts, all by default; a reply that was drawn
    twice is no pair for accuracy. "per_prompt" has "reward_variance", and with a ground truth "covariance" and
    "accuracy" (None where no two differ).
    """
    rewards = np.asarray(rewards, dtype=float)
    scale = Normalizer.fit(rewards).scale if np.ptp(rewards) else 0.0
    variance = reward_variance(rewards)
    normalised = variance / (scale**2 or 1)
    flat = int((variance <= ALMOST_NONE * variance.mean()).sum())
    deciles = [0.1, 0.5, 0.9]
    result: Grade = {
        "mean": float(rewards.mean()),
        "scale": scale,
        "reward_variance": _mean(normalised),
        "reward_variance_own_unit": _mean(variance),
        "spread": np.quantile(normalised, deciles).tolist(),
        "spread_of_mean": (np.quantile(variance, deciles) / (variance.mean() or 1)).tolist(),
        "flat": _share(flat, len(variance)),
        "prompts": len(variance),
        "per_prompt": {"reward_variance": normalised.tolist()},
    }
    if ground_truth is not None:
        agreement = _agreement(rewards, np.asarray(ground_truth, dtype=float), different, scale or 1.0)
        defined = ~np.isnan(agreement.accuracy)
        result["accuracy"] = _mean(agreement.accuracy[defined]) if defined.sum() > 1 else None
        result["covariance"] = _mean(agreement.covariance)
        result["tied"] = agreement.tied
        result["per_prompt"]["accuracy"] = [
            None if np.isnan(accuracy) else float(accuracy) for accuracy in agreement.accuracy
        ]
        result["per_prompt"]["covariance"] = agreement.covariance.tolist()
    pairs = np.asarray(preferences, dtype=float)
    if len(pairs) > 1:
        margins = (pairs[:, 0] - pairs[:, 1]) / (scale or 1)
        covariance = margins / 2  # of the reward with 1 for the preferred reply and 0 for the other
        result["preference_accuracy"] = _share(int((margins > 0).sum()), len(margins))
        result["preference_covariance"] = _mean(covariance)
        result["pairs"] = len(margins)
        result["per_prompt"]["preference_covariance"] = covariance.tolist()
    return result


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
    values: dict[str, Any] = {name: teacher[by] for name, teacher in teachers.items()}  # type: ignore[literal-required]  # one of the three
    names = sorted(teachers, key=lambda name: -values[name][0])
    gaps = [
        _gap(np.array(teachers[better]["per_prompt"][by]), np.array(teachers[worse]["per_prompt"][by]))
        for better, worse in zip(names, names[1:])
    ]
    return {"by": by, "names": names, "gaps": gaps}


def advice(audit: Audit) -> list[str]:
    """Plain sentences on an `Audit`: what to mind, and what to do."""
    sentences = _advice_on_the_order(audit)
    for name, teacher in audit.teachers.items():
        sentences += _advice_on_a_teacher(audit, name, teacher)
    names = audit.order["names"]
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
            f"{name} gives (almost) the same reward to all {audit.sampling['samples']} replies on "
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
        if teacher["tied"] > 0.1:
            sentences.append(
                f"{name} ties {teacher['tied']:.0%} of the pairs, which accuracy counts as wrong and a policy gradient "
                "does not count at all: go by the covariance."
            )
    return sentences


def _agreement(
    rewards: NDArray[np.float64], truth: NDArray[np.float64], different: ArrayLike | None, scale: float
) -> _Agreement:
    """Accuracy on pairs of different replies, and covariance in units of `scale` and of the truth's deviation."""
    prompts, replies = rewards.shape
    pairs = np.ones((prompts, replies, replies)) if different is None else np.array(different, dtype=float)
    pairs *= ~np.eye(replies, dtype=bool)
    defined = pairs.any((1, 2))
    accuracy = np.full(prompts, np.nan)
    if defined.any():
        accuracy[defined] = ranking_accuracy(rewards[defined], truth[defined], pairs[defined])
    truth_scale = Normalizer.fit(truth).scale if np.ptp(truth) else 1.0
    tied = (pairs * (rewards[:, :, None] == rewards[:, None, :])).sum() / max(pairs.sum(), 1)
    return _Agreement(accuracy, reward_covariance(rewards, truth) / (scale * truth_scale), float(tied))


def _gap(better: NDArray[np.float64], worse: NDArray[np.float64]) -> Gap:
    """What separates two teachers; better, worse: (prompts,), what they are ordered by."""
    # One reward in two units differs from itself by rounding alone.
    value, low, high = _mean(np.where(np.isclose(better, worse, rtol=1e-9, atol=1e-12), 0.0, better - worse))
    # An interval narrows as the square root of the prompts; it must not reach 0 from the value.
    needed = None if low > 0 or value <= 0 else int(np.ceil(len(better) * ((value - low) / value) ** 2))
    return {"difference": [value, low, high], "prompts": needed, "apart": low > 0}


def _mean(values: ArrayLike) -> Interval:
    estimate = estimates.over_prompts(values)
    return [float(estimate.value), float(estimate.low), float(estimate.high)]


def _share(count: int, total: int) -> Interval:
    """A share with its exact interval (Clopper and Pearson's), which a bootstrap of zeros would miss."""
    ends = binomtest(count, total).proportion_ci()
    return [count / total, float(ends.low), float(ends.high)]
