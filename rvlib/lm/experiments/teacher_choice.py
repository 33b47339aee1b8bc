"""Which number picks the teacher, in a run on a language model: the predictors measured, and how well they pick.

    predictors of a teacher before policy gradient   ↔   what its students gained, mean over seeds

The predictors are those of `rvlib.predictors`, on the measured replies of the initial policy; each is set beside the
outcomes by `rvlib.teacher_study`, with which the book compares them in a world that can be summed over. Intervals
resample the teachers. `small-study` is the recipe that was made for this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rvlib import metrics, teacher_study
from rvlib.estimates import Estimate
from rvlib.predictors import MeasuredReplies, measured_by
from rvlib.teacher_study import OUTCOMES, Study

if TYPE_CHECKING:
    from rvlib.lm.experiments.report import Report

Array = NDArray[np.float64]
FEWEST_TEACHERS = 8  # of which correlations and regrets are worth an interval
KL_BUDGET = 2.0  # nats a reply; replies of many tokens soon pass 0.5 nats, the budget for four words
COLUMNS = (("spearman", "gain"), ("regret", "gain"), ("spearman", "gain at equal KL"), ("spearman", "loss to hacking"))


def predictors_of(
    records: Sequence[Mapping[str, Any]],
    proxy: Array,
    ground_truth: Array,
    off_policy_proxy: Array,
    off_policy_truth: Array,
) -> dict[str, float]:
    """The predictors of a teacher by name, those that as many replies allow (`predictors.measured_by`).

    records: of the measured replies, with "replies" and "log_probs" (`sampling.replies`). proxy: normalised rewards,
    ground_truth: in any unit, both (prompts, replies). off_policy_…: rewards of the pairs by others
    (prompts, 2).
    """
    outputs = [np.unique(record["replies"], return_inverse=True)[1] for record in records]
    replies = MeasuredReplies(
        proxy=proxy,
        ground_truth=metrics.Normalizer.fit(ground_truth).transform(ground_truth),
        outputs=np.array(outputs),
        probs=np.exp([record["log_probs"] for record in records]),
        off_policy_proxy=off_policy_proxy[:, None],
        off_policy_truth=off_policy_truth[:, None],
    )
    return {name: float(f"{value:.5g}") for name, value in measured_by(replies).items()}


def study(report: Report, policy: str) -> Study | None:
    """A run's report as a `Study` of one policy.

    None if it has fewer teachers than `FEWEST_TEACHERS`, or was made before runs measured predictors.
    """
    teachers = report["policies"][policy]
    # By teacher; an older version wrote "candidates".
    measured = [teacher.get("predictors") or teacher.get("candidates") or {} for teacher in teachers.values()]
    if len(teachers) < FEWEST_TEACHERS or not all(measured):
        return None
    recipe = report["recipe"]

    def curves(name: str) -> Array:
        return np.array([teacher[name] for teacher in teachers.values()]).swapaxes(0, 1)[None, None]

    first = next(iter(teachers.values()))
    return Study(
        made=report["made"],
        settings=recipe,
        missing=[],
        policies=[policy],
        algorithms=[recipe["policy_gradient"]["algorithm"]],
        seeds=recipe["seeds"],
        teachers=list(teachers),
        predictors={name: np.array([[predictors[name] for predictors in measured]]) for name in measured[0]},
        steps=np.array(first["steps"], dtype=float),
        truth=curves("ground_truth"),
        kl=curves("kl"),
        kl_budget=KL_BUDGET,
    )


def outcomes(study: Study) -> dict[str, dict[str, Array]]:
    """{teacher: {outcome of `teacher_study.OUTCOMES`: (seeds,)}}."""
    values = {name: study.outcome(name)[0, 0] for name in OUTCOMES}  # (seeds, teachers)
    return {key: {name: array[:, i] for name, array in values.items()} for i, key in enumerate(study.teachers)}


def comparison(study: Study) -> dict[str, list[Estimate]]:
    """{predictor: an estimate for each of `COLUMNS`}."""
    (algorithm,) = study.algorithms
    columns = [teacher_study.compare(study, algorithm, outcome, measure).values for measure, outcome in COLUMNS]
    return {name: [values[name] for values in columns] for name in study.predictors}
