"""What rewards of replies say of a reward model as a teacher: `grade` one, order several, advise; all from arrays,
without torch."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from rvlib import estimates
from rvlib.files import RESULTS, write_text
from rvlib.metrics import Normalizer, ranking_accuracy, reward_covariance, reward_variance

ALMOST_NONE = 0.01  # of the mean reward variance: below it a prompt counts as having (almost) none
BOOK = RESULTS / "audit.json"  # what the book's chapter reads


@dataclass(frozen=True)
class Audit:
    """What an audit found, all of it made of what JSON can hold; `report` shows it. An interval is [value, low,
    high].

    made: when, with what versions, where, in how many seconds. policy, sampling: as recorded. prompts: {"source",
    "names", "left_out"}. ground_truth: its name, or None. replies: {"cut_off", "same"}, shares. teachers: {name:
    `grade`, "rewards" (prompts, samples) and "preferences" (pairs, 2)}; reference: the same of the ground truth. order:
    see `order_of_teachers`. advice: sentences.
    """

    made: dict
    policy: dict
    sampling: dict
    prompts: dict
    ground_truth: str | None
    replies: dict
    teachers: dict
    reference: dict | None
    order: dict
    advice: list

    @classmethod
    def load(cls, path: str | pathlib.Path = BOOK) -> Self:
        """The audit in an audit.json, or in the folder that has it; the book's by default."""
        path = pathlib.Path(path)
        return cls(**json.loads((path / "audit.json" if path.is_dir() else path).read_text(encoding="utf-8")))

    def write(self, folder: str | pathlib.Path) -> None:
        """Write audit.json and audit.html into `folder`."""
        from rvlib.audit import report

        for name, text in (
            ("audit.json", json.dumps(asdict(self), allow_nan=False)),
            ("audit.html", report.page(self)),
        ):
            write_text(pathlib.Path(folder, name), text)

    def _repr_html_(self) -> str:
        from rvlib.audit import report

        return report.tables(self)


def grade(
    rewards: ArrayLike,
    ground_truth: ArrayLike | None = None,
    preferences: Sequence[Sequence[float]] = (),
    different: ArrayLike | None = None,
) -> dict[str, Any]:
    """What is known of one teacher, a dictionary; a mean over prompts is [value, low, high], with its 95 % interval.

    rewards, ground_truth: (prompts, samples). preferences: (pairs, 2), rewards of a preferred reply and of the other.
    different: (prompts, samples, samples), which two replies differ as texts, all by default; a reply that was drawn
    twice is no pair for accuracy. "per_prompt" has "reward_variance", and with a ground truth "covariance" and
    "accuracy" (None where no two differ).
    """
    rewards = np.asarray(rewards, dtype=float)
    scale = Normalizer.fit(rewards).scale if np.ptp(rewards) else 0.0
    variance = reward_variance(rewards)
    normalised = variance / (scale**2 or 1)
    flat = int((variance <= ALMOST_NONE * variance.mean()).sum())
    properties = {
        "mean": float(rewards.mean()),
        "scale": scale,
        "reward_variance": _mean(normalised),
        "reward_variance_own_unit": _mean(variance),
        "spread": np.quantile(normalised, [0.1, 0.5, 0.9]).tolist(),
        "spread_of_mean": (
            np.quantile(variance, [0.1, 0.5, 0.9]) / (variance.mean() or 1)
        ).tolist(),  # scheme="variance": its mean is 1
        "flat": _share(flat, len(variance)),
        "prompts": len(variance),
        "per_prompt": {"reward_variance": normalised.tolist()},
    }
    if ground_truth is not None:
        truth = np.asarray(ground_truth, dtype=float)
        distinct = (
            np.ones((*rewards.shape, rewards.shape[1])) if different is None else np.array(different, dtype=float)
        )
        distinct *= ~np.eye(rewards.shape[1], dtype=bool)
        has_pairs = distinct.any((1, 2))
        accuracy = (
            ranking_accuracy(rewards[has_pairs], truth[has_pairs], distinct[has_pairs])
            if has_pairs.any()
            else np.array([])
        )
        units = (scale or 1) * (Normalizer.fit(truth).scale if np.ptp(truth) else 1)
        covariance = reward_covariance(rewards, truth) / units
        tied = (distinct * (rewards[:, :, None] == rewards[:, None, :])).sum() / max(distinct.sum(), 1)
        per_prompt = np.full(len(rewards), None)
        per_prompt[has_pairs] = accuracy
        properties |= {
            "accuracy": _mean(accuracy) if has_pairs.sum() > 1 else None,
            "covariance": _mean(covariance),
            "tied": float(tied),
        }
        properties["per_prompt"] |= {"accuracy": per_prompt.tolist(), "covariance": covariance.tolist()}
    if len(preferences) > 1:
        margin = np.subtract(*np.transpose(preferences)) / (scale or 1)
        properties |= {
            "preference_accuracy": _share(int((margin > 0).sum()), len(margin)),
            "preference_covariance": _mean(
                margin / 2
            ),  # of the reward with 1 for the preferred reply and 0 for the other
            "pairs": len(margin),
        }
        properties["per_prompt"]["preference_covariance"] = (margin / 2).tolist()
    return properties


def order_of_teachers(teachers: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Who is expected to teach most, {"by", "names" (best first), "gaps"}: by "covariance" with the ground truth, else
    by "preference_covariance", else by "reward_variance" alone. teachers: {name: `grade`}.

    gaps: of each neighbours in the order {"difference": [value, low, high], "prompts": so many would tell them apart,
    or None where these do}, paired over prompts.
    """
    by = next(
        key
        for key in ("covariance", "preference_covariance", "reward_variance")
        if all(key in found for found in teachers.values())
    )
    names = sorted(teachers, key=lambda name: -teachers[name][by][0])
    gaps = []
    for first, second in zip(names, names[1:]):
        one, other = (np.array(teachers[name]["per_prompt"][by]) for name in (first, second))
        # One reward in two units differs from itself by rounding alone.
        value, low, high = _mean(np.where(np.isclose(one, other, rtol=1e-9, atol=1e-12), 0.0, one - other))
        count = len(one)
        # An interval narrows as the square root of the prompts; it must not reach 0 from the value.
        needed = None if low > 0 or value <= 0 else int(np.ceil(count * ((value - low) / value) ** 2))
        gaps.append({"difference": [value, low, high], "prompts": needed, "apart": low > 0})
    return {"by": by, "names": names, "gaps": gaps}


def advice(audit: Audit) -> list[str]:
    """Plain sentences on an `Audit`: what to mind, and what to do."""
    sentences: list[str] = []
    samples, order = audit.sampling["samples"], audit.order
    if order["by"] == "reward_variance":
        sentences.append(
            "There is no ground truth and there are no preferences: the order says who teaches fastest what "
            "it wants itself, not whether that is what you want. Add --ground-truth, or chosen and rejected "
            "replies."
        )
    elif order["by"] == "preference_covariance":
        sentences.append(
            "The preferences are over replies that the policy did not write: what a reward model knows of "
            "those need not hold for the policy's own. A ground truth for its own replies would tell more."
        )
    for (first, second), gap in zip(zip(order["names"], order["names"][1:]), order["gaps"]):
        if not gap["apart"]:
            more = f"; about {gap['prompts']} would" if gap["prompts"] else ""
            sentences.append(f"{first} and {second} cannot be told apart with these prompts{more}.")
    for name, grade in audit.teachers.items():
        flat, count = grade["flat"][0], grade["prompts"]
        if grade["scale"] == 0:
            sentences.append(f"{name} gives every reply the same reward: it cannot teach.")
            continue
        if flat > 0.2:
            sentences.append(
                f"{name} gives (almost) the same reward to all {samples} replies on {round(flat * count)} of "
                f"{count} prompts, from which nothing is learnt: leave such prompts out, draw more replies, "
                "or use a finer reward."
            )
        if grade["reward_variance"][2] < 0.25:
            sentences.append(
                f"Of what {name} distinguishes, {grade['reward_variance'][0]:.0%} is between replies to one "
                "prompt; the rest is between prompts and teaches nothing. Expect it to be slow."
            )
        if "covariance" in grade:
            value, low, high = grade["covariance"]
            if high < 0:
                sentences.append(f"{name} pulls against {audit.ground_truth}: training on it will lower what you want.")
            elif low <= 0:
                sentences.append(
                    f"{name} cannot be told from one that has nothing to do with {audit.ground_truth}: its "
                    "covariance may be 0."
                )
            if grade["tied"] > 0.1:
                sentences.append(
                    f"{name} ties {grade['tied']:.0%} of the pairs, which accuracy counts as wrong and a "
                    "policy gradient does not count at all: go by the covariance."
                )
    if order["by"] == "covariance" and len(order["names"]) > 1:
        for other, key in (("accuracy", "accuracy"), ("reward variance", "reward_variance")):
            first = max(order["names"], key=lambda name: (audit.teachers[name][key] or [0])[0])
            if first != order["names"][0]:
                sentences.append(f"{first} has the larger {other}, and {order['names'][0]} is expected to teach more.")
    if audit.replies["cut_off"] > 0.5:
        sentences.append(
            f"{audit.replies['cut_off']:.0%} of the replies were cut off at "
            f"{audit.sampling['max_new_tokens']} tokens, and judged unfinished: raise --max-new-tokens if you "
            "train with longer ones."
        )
    if audit.replies["same"] > 0.2:
        sentences.append(
            f"{audit.replies['same']:.0%} of the replies repeat another to the same prompt: this policy has "
            "little left to choose from."
        )
    return sentences


def _mean(values: ArrayLike) -> list[float]:
    found = estimates.over_prompts(values)
    return [float(found.value), float(found.low), float(found.high)]


def _share(count: int, total: int) -> list[float]:
    """A share with its exact interval (Clopper and Pearson's), which a bootstrap of zeros would miss."""
    ends = binomtest(count, total).proportion_ci()
    return [count / total, float(ends.low), float(ends.high)]
