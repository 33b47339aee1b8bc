"""Which number picks the teacher? What `rvlib study` measured, and the analysis that was registered before it.

    predictor of a reward model before training   ↔   outcome of the policy that it taught, mean over seeds

For each policy, algorithm and outcome: Spearman's correlation over the reward models, and the top-1 regret, how much of
what the best reward model has over the mean is lost by taking the one that the predictor picks, of its highest value.
Intervals resample reward models and policies together, since both are draws from what one might meet.
"""

import functools
import itertools
import json
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvlib.estimates import Estimate
from rvlib.results import TEACHING
from rvlib.tabular.predictors import rank_correlation

Array = NDArray[np.float64]
OUTCOMES = {
    "early gain": "ground truth gained after a quarter of the steps",
    "gain": "ground truth gained after all steps",
    "gain at equal KL": "ground truth gained when the KL divergence first reaches the budget",
    "loss to hacking": "the highest ground truth on the way less the last, with its sign turned: larger is better",
}
KL_BUDGET = 0.5  # nats
GROUND_TRUTH = "the ground truth"  # as one of the reward models
# What marks the names of each family of reward models in `rvlib.lm.enumerable.teachers`; the first that fits counts.
FAMILIES = {
    "harmful": r" × \d",
    "scaled or with offsets": "^scaled|offsets of",
    "reshaped or in levels": "^(saturated|cubed|ranks|(two|three) levels|the best tenth|blind above the median)$",
    "ensembles": "^(mean|minimum) of ",
    "the ground truth, exact or noisy": "^(the ground truth|noise of .*)$",
    "trained": "^(plain|vivid|contrary|others)(, | and )",
}


@dataclass(frozen=True, eq=False)
class Study:
    """The predictors and the curves: everything by policy, algorithm, seed, reward model, in this order.

    predictors: {name: (policies, teachers)}; chance: what those that are accuracies are by chance, where it is known.
    steps: (times,). truth, kl: (policies, algorithms, seeds, teachers, times), of the normalised ground truth, exact,
    and in nats. Seeds are those for which no part is missing. kl_budget: of the gain at equal KL, in nats.
    """

    made: dict[str, Any]
    settings: dict[str, Any]
    missing: list[str]
    policies: list[str]
    algorithms: list[str]
    seeds: list[int]
    teachers: list[str]
    predictors: dict[str, Array]
    steps: Array
    truth: Array
    kl: Array
    kl_budget: float = KL_BUDGET
    chance: dict[str, Array] = field(default_factory=dict)

    def under(self, policy: str) -> "Study":
        """The part of the study that has one of its policies: resampling it draws only reward models again."""
        return self._part([self.policies.index(policy)], list(range(len(self.teachers))))

    def among(self, teachers: Sequence[str]) -> "Study":
        """The part of the study that has some of its reward models: what one would have had to choose among.

        ValueError for an empty list, and for a name that the study does not have.
        """
        unknown = [name for name in teachers if name not in self.teachers]
        if unknown or not teachers:
            got = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"The reward models must be one or more of the study's {len(self.teachers)}, got {got}.")
        return self._part(list(range(len(self.policies))), [self.teachers.index(name) for name in teachers])

    def _part(self, policies: list[int], teachers: list[int]) -> "Study":
        predictors, chance = (
            {name: values[policies][:, teachers] for name, values in of.items()}
            for of in (self.predictors, self.chance)
        )
        truth, kl = (values[policies][..., teachers, :] for values in (self.truth, self.kl))
        return replace(
            self,
            policies=[self.policies[i] for i in policies],
            teachers=[self.teachers[i] for i in teachers],
            predictors=predictors,
            chance=chance,
            truth=truth,
            kl=kl,
        )

    def without_ground_truth(self) -> "Study":
        """The part of the study without the exact ground truth: nobody who has to choose a reward model has that."""
        return self.among([name for name in self.teachers if name != GROUND_TRUTH])

    def outcome(self, name: str) -> Array:
        """An outcome of `OUTCOMES`, larger is better: (policies, algorithms, seeds, teachers).

        A run that never reaches the KL budget has at equal KL what it has at its end.
        """
        gain = self.truth - self.truth[..., :1]
        if name == "early gain":
            return gain[..., int(np.abs(self.steps - self.steps[-1] / 4).argmin())]
        if name == "gain":
            return gain[..., -1]
        if name == "loss to hacking":
            return gain[..., -1] - gain.max(-1)
        if name != "gain at equal KL":
            raise ValueError(f"The outcome must be one of {', '.join(OUTCOMES)}, got {name!r}.")
        reached = self.kl >= self.kl_budget
        after = np.where(reached.any(-1), reached.argmax(-1), reached.shape[-1] - 1)
        before = np.maximum(after - 1, 0)

        def take(values: Array, index: NDArray[np.intp]) -> Array:
            return np.take_along_axis(values, index[..., None], -1)[..., 0]

        kl_before, kl_after = take(self.kl, before), take(self.kl, after)
        share = np.clip((self.kl_budget - kl_before) / np.where(kl_after > kl_before, kl_after - kl_before, 1), 0, 1)
        share = np.where(reached.any(-1), share, 1.0)
        # Between two evaluations the gain is taken to be a straight line.
        return take(gain, before) + share * (take(gain, after) - take(gain, before))


def family(reward_model: str) -> str:
    """Which of `FAMILIES` a reward model belongs to, by its name; ValueError for a name that fits none."""
    for name, pattern in FAMILIES.items():
        if re.search(pattern, reward_model):
            return name
    raise ValueError(
        f"The reward model must have a name of one of the families {', '.join(FAMILIES)}, got {reward_model!r}."
    )


def part_name(policy: str, algorithm: str, seed: int) -> str:
    """The name of a part of the study: one policy, taught by one algorithm with one seed."""
    return f"{policy}-{algorithm}-{seed}"


def load(path: pathlib.Path | str = TEACHING) -> Study:
    """The study that `rvlib study` wrote, by default the book's.

    From a study that is not complete it takes the algorithms for which every policy was taught with at least one seed,
    and the seeds that all of these have. ValueError, one sentence, if there are none.
    """
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    parts, policies = content["parts"], list(content["measured"])
    first = content["settings"]["first_seed"]

    def seeds_of(algorithm: str) -> set[int]:
        every = range(first, first + content["settings"]["seeds"])
        return {seed for seed in every if all(part_name(policy, algorithm, seed) in parts for policy in policies)}

    algorithms = [algorithm for algorithm in ("rloo", "grpo") if seeds_of(algorithm)]
    seeds = sorted(set.intersection(*map(seeds_of, algorithms))) if algorithms else []
    if not seeds:
        raise ValueError(
            f"The study in {path} must have one seed of one algorithm for all policies, got none; run `rvlib study`."
        )
    measured = list(content["measured"].values())  # by policy
    predictors = [row.get("predictors") or row["scores"] for row in measured]  # the latter of an older version

    def curves(name: str) -> Array:
        flat = [parts[part_name(*part)][name] for part in itertools.product(policies, algorithms, seeds)]
        return np.array(flat).reshape(len(policies), len(algorithms), len(seeds), *np.shape(flat[0]))

    return Study(
        made=content["made"],
        settings=content["settings"],
        missing=content["missing"],
        policies=policies,
        algorithms=algorithms,
        seeds=seeds,
        teachers=measured[0]["teachers"],
        predictors={name: np.array([row[name] for row in predictors]) for name in predictors[0]},
        steps=np.array(parts[part_name(policies[0], algorithms[0], seeds[0])]["steps"]),
        truth=curves("truth"),
        kl=curves("kl"),
        chance={name: np.array([row["chance"][name] for row in measured]) for name in measured[0].get("chance", {})},
    )


def spearman(predictor: Array, outcome: Array) -> Array:
    """Spearman's correlation over the last axis, 0 where either is the same for all."""
    return np.nan_to_num(rank_correlation(predictor, outcome))


def regret(predictor: Array, outcome: Array) -> Array:
    """Top-1 regret over the last axis: (best - picked) / (best - mean of all).

    It is 0 for the best pick and 1 for one at random. Where several share the highest value of the predictor, the mean
    of their outcomes counts.
    """
    top = predictor == predictor.max(-1, keepdims=True)
    picked = (outcome * top).sum(-1) / top.sum(-1)
    best, mean = outcome.max(-1), outcome.mean(-1)
    return np.where(best > mean, (best - picked) / np.where(best > mean, best - mean, 1), 0.0)


MEASURES = {"spearman": spearman, "regret": regret}


@dataclass(frozen=True)
class PredictorComparison:
    """How well each predictor does for one algorithm and outcome.

    values: {predictor: `Estimate`}, means over policies. by_policy: {predictor: (policies,)}. against_best: the
    predictor of the best value against each other one, an `Estimate` of the difference, positive where the best one is
    better.
    """

    measure: str
    best: str
    values: dict[str, Estimate]
    by_policy: dict[str, Array]
    against_best: dict[str, Estimate]


def compare(
    study: Study, algorithm: str, outcome: str, measure: str = "spearman", *, resamples: int = 2000
) -> PredictorComparison:
    """All predictors against one outcome. measure: "spearman", or "regret", which is better if it is smaller."""
    names, sign = list(study.predictors), 1 if measure == "spearman" else -1
    by_policy, resampled = _by_policy(study, algorithm, outcome, measure, resamples)
    mean = by_policy.mean(1)
    best = int((sign * mean).argmax())
    return PredictorComparison(
        measure=measure,
        best=names[best],
        values={name: _estimate(mean[i], resampled[:, i]) for i, name in enumerate(names)},
        by_policy=dict(zip(names, by_policy)),
        against_best={
            name: _estimate(sign * (mean[best] - mean[i]), sign * (resampled[:, best] - resampled[:, i]))
            for i, name in enumerate(names)
            if i != best
        },
    )


def lead(
    study: Study,
    algorithm: str,
    outcome: str,
    first: str,
    second: str,
    measure: str = "spearman",
    *,
    resamples: int = 2000,
) -> Estimate:
    """How far one predictor is ahead of another, positive where `first` is better, paired within each sample."""
    sign, names = 1 if measure == "spearman" else -1, list(study.predictors)
    by_policy, resampled = _by_policy(study, algorithm, outcome, measure, resamples)
    i, j = names.index(first), names.index(second)
    return _estimate(sign * (by_policy[i] - by_policy[j]).mean(), sign * (resampled[:, i] - resampled[:, j]))


@functools.lru_cache(maxsize=64)
def _by_policy(study: Study, algorithm: str, outcome: str, measure: str, resamples: int) -> tuple[Array, Array]:
    """Each predictor under each policy, (predictors, policies), and resampled means, (resamples, predictors).

    The means are over policies.
    """
    # Resampled by hand: reward models and policies at once, which `scipy.stats.bootstrap` does not.
    measured = MEASURES[measure]
    outcomes = study.outcome(outcome)[:, study.algorithms.index(algorithm)].mean(1)
    predictors = np.stack(list(study.predictors.values()))  # (predictors, policies, teachers)
    rng, drawn = np.random.default_rng(0), []
    for start in range(0, resamples, 100):  # in blocks of a hundred, since all together would take a gigabyte
        number = min(100, resamples - start)
        teachers = rng.integers(len(study.teachers), size=(number, 1, len(study.teachers)))
        policies = rng.integers(len(study.policies), size=(number, len(study.policies), 1))
        resampled_outcomes = outcomes[policies, teachers]  # (number, policies, teachers)
        drawn.append(measured(predictors[:, policies, teachers], resampled_outcomes).mean(-1).T)
    return measured(predictors, outcomes), np.concatenate(drawn)


def _estimate(value: float, draws: Array) -> Estimate:
    """A number with its 95 % interval."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


@dataclass(frozen=True)
class LeftOut:
    """What the predictor that is best on the other policies does on the one left out."""

    policy: str
    predictor: str
    spearman: float
    regret: float


def leave_one_policy_out(study: Study, algorithm: str, outcome: str) -> list[LeftOut]:
    """For each policy: the predictor of the highest mean Spearman on the others, and how it does on this one."""
    outcomes = study.outcome(outcome)[:, study.algorithms.index(algorithm)].mean(1)
    correlations = {name: spearman(values, outcomes) for name, values in study.predictors.items()}
    rows = []
    for i, policy in enumerate(study.policies):
        others = [j for j in range(len(study.policies)) if j != i]
        name = max(correlations, key=lambda key: correlations[key][others].mean())
        lost = regret(study.predictors[name][i], outcomes[i])
        rows.append(LeftOut(policy, name, float(correlations[name][i]), float(lost)))
    return rows


def how_often_right(study: Study, predictor: str, algorithm: str, outcome: str = "gain") -> float:
    """The share of pairs of reward models, over all policies, that a predictor orders as the outcome does."""
    outcomes = study.outcome(outcome)[:, study.algorithms.index(algorithm)].mean(1)
    values = study.predictors[predictor]
    right = np.sign(values[:, :, None] - values[:, None]) == np.sign(outcomes[:, :, None] - outcomes[:, None])
    different = ~np.eye(values.shape[1], dtype=bool)
    return float(right[:, different].mean())
