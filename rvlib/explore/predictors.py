"""The explorable of the study of reward models: a number measured before training against what they then taught.

Its data is `rvlib.teacher_study`'s, written into web/studypoints.mjs by `python -m rvlib.explore.predictors`. The page
computes correlations and regrets from the points; the ends of their intervals are Python's, from resampling.
"""

import json
from typing import TypedDict

import traitlets

from rvlib.explore._controls import choice, main_controls, slider
from rvlib.explore._explorable import WEB, Explorable
from rvlib.tabular.estimators import ADVANTAGES

# Names in addresses: {key: name in `rvlib.predictors.PREDICTORS`}, and the same for `rvlib.teacher_study.OUTCOMES`.
PREDICTORS = {
    "onpolicy": "accuracy, on-policy pairs",
    "uniform": "accuracy, uniform pairs",
    "offpolicy": "accuracy, off-policy pairs",
    "harm": "harm-aware accuracy",
    "variance": "reward variance",
    "both": "variance and accuracy",
    "product": "deviation × (2 accuracy − 1)",
    "correlation": "correlation",
    "covariance": "covariance",
    "weighted": "π²-weighted covariance",
    "collapse": "1 − group-collapse rate",
    "noise": "signal-to-noise ratio",
    "best4": "best-of-4 gain",
    "best16": "best-of-16 gain",
}
OUTCOMES = {
    "gain": "gain",
    "early": "early gain",
    "kl": "gain at equal KL",
    "hacking": "loss to hacking",
}
POLICIES, ALGORITHMS, TEACHERS = ("plain", "vivid", "contrary"), ("rloo", "grpo"), 56


class Points(TypedDict):
    """The study as web/studypoints.mjs has it; lists are of teachers where nothing else is said."""

    predictors: dict[str, str]  # `PREDICTORS`
    teachers: list[list[str]]  # [name, family]
    values: dict[str, dict[str, list[float]]]  # {policy: {predictor: …}}
    outcomes: dict[str, dict[str, dict[str, list[float]]]]  # {policy: {algorithm: {outcome: …}}}, means over seeds
    # {policy or "all": {algorithm: {outcome: {predictor: [low and high end of Spearman's, and of the regret's]}}}}
    intervals: dict[str, dict[str, dict[str, dict[str, list[float]]]]]


def points() -> Points:
    """What the page loads of the study in `rvlib.results.TEACHING`."""
    from rvlib import teacher_study  # here, as the figure itself has no need of the study

    study = teacher_study.load()

    def outcomes(part: teacher_study.Study) -> dict[str, dict[str, list[float]]]:
        by_algorithm = {}
        for i, algorithm in enumerate(study.algorithms):
            means = {key: part.outcome(name)[0, i].mean(0) for key, name in OUTCOMES.items()}
            by_algorithm[algorithm] = {key: values.round(6).tolist() for key, values in means.items()}
        return by_algorithm

    def intervals(part: teacher_study.Study, algorithm: str, outcome: str) -> dict[str, list[float]]:
        spearman = teacher_study.compare(part, algorithm, outcome, "spearman").values
        regret = teacher_study.compare(part, algorithm, outcome, "regret").values
        return {
            key: [round(end, 4) for measure in (spearman, regret) for end in (measure[name].low, measure[name].high)]
            for key, name in PREDICTORS.items()
        }

    def all_intervals(part: teacher_study.Study) -> dict[str, dict[str, dict[str, list[float]]]]:
        return {
            algorithm: {key: intervals(part, algorithm, name) for key, name in OUTCOMES.items()}
            for algorithm in study.algorithms
        }

    parts = {policy: study.under(policy) for policy in study.policies}
    return {
        "predictors": PREDICTORS,
        "teachers": [[name, teacher_study.family(name)] for name in study.teachers],
        "values": {
            policy: {key: part.predictors[name][0].tolist() for key, name in PREDICTORS.items()}
            for policy, part in parts.items()
        },
        "outcomes": {policy: outcomes(part) for policy, part in parts.items()},
        "intervals": {policy: all_intervals(part) for policy, part in {**parts, "all": study}.items()},
    }


def module() -> str:
    """The text of web/studypoints.mjs."""
    return (
        "// The points of the study of reward models, written by `python -m rvlib.explore.predictors`.\nexport default "
        + json.dumps(points(), ensure_ascii=False, separators=(",", ":"))
        + ";\n"
    )


class Predictors(Explorable):
    """The study's reward models: a number measured before training against what each of them then taught."""

    alt = (
        "Scatter plot, a point for each of 56 reward models that taught the policy plain by RLOO: across, its accuracy "
        "on on-policy pairs, measured before training; up, the ground truth that its student gained. Six kinds of "
        "marks tell families of reward models apart. Two lines show the gain under the best reward model and the mean "
        "of all; rings mark the reward models of the highest accuracy, which it would pick."
    )
    caption = traitlets.Unicode(
        "Each mark is a reward model. Rings are around those for which the predictor, a number measured before "
        "training, is highest: it would pick these. The dashed line is the mean of all, what a pick at random brings "
        "on average; the dotted line is the best. Point at a mark to read it; a click, a tap or the slider chooses "
        "one. In brackets are 95 % intervals that resample reward models, and where all three policies are shown the "
        "policies too. Every number is the study's (<code>rvlib study</code>)."
    ).tag(sync=True)
    main = main_controls("predictor", "outcome")

    predictor = choice(PREDICTORS, group="Predictor", label="Predictor")
    outcome = choice(OUTCOMES, group="Outcome of training", label="Outcome of training")
    algorithm = choice({name: ADVANTAGES[name].label for name in ALGORITHMS}, group="Algorithm", label="Algorithm")
    policy = choice(
        {policy: policy for policy in POLICIES} | {"all": "all three"}, group="Policy that is taught", label="Policy"
    )
    teacher = slider(
        1,
        1,
        TEACHERS,
        1,
        group="One reward model",
        label="reward model",
        whole=True,
        help="The one that is drawn large, and whose numbers are written below the figure",
    )


if __name__ == "__main__":
    (WEB / "studypoints.mjs").write_text(module(), encoding="utf-8")
