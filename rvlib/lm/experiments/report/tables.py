"""The tables of a run's report: what its teachers are like, what they taught, and which number picks one."""

from rvlib import teacher_study
from rvlib.lm.experiments import teacher_choice
from rvlib.lm.experiments.report.report import (
    OUTCOMES,
    Report,
    TeacherRecord,
    correlation_table,
    display_name,
    increase,
    standard_error,
)
from rvlib.lm.experiments.table import Table

NAMES = {"spearman": "Spearman", "regret": "top-1 regret"}


def tables(report: Report, policy: str) -> list[Table]:
    """The properties of the teachers, what they taught, and the correlations of the two (no rows for few teachers).

    Of a run with `teacher_choice.FEWEST_TEACHERS` also the outcomes of each teacher, and how well each number that was
    measured before training picks among them.
    """
    gains = {outcome: increase(report, policy, outcome) for outcome in OUTCOMES}
    increases = Table(
        f"Increases after one epoch under the teachers of {policy}: means and standard errors over seeds",
        ["teacher", "proxy", "ground truth"],
        [
            [
                display_name(key),
                *(
                    f"{gains[outcome][key].mean():.3f} ± {standard_error(gains[outcome][key]):.3f}"
                    for outcome in OUTCOMES
                ),
            ]
            for key in report["policies"][policy]
        ],
    )
    enough = len(gains["proxy"].keys() - {"ground-truth"}) > 2
    correlations_with_increases = [
        Table(
            f"Correlation with the increase of the {outcome.replace('_', ' ')}: Pearson's with Fisher's 95 % interval, "
            "Spearman's",
            ["property", "Pearson", "Spearman"],
            [
                [name, "{pearson:.2f} [{low:.2f}, {high:.2f}]".format(**cells), f"{cells['spearman']:.2f}"]
                for name, cells in (correlation_table(report, policy, outcome) if enough else {}).items()
            ],
        )
        for outcome in OUTCOMES
    ]
    return [
        _property_table(
            f"Variance and covariance of the teachers of {policy}: 95 % intervals over prompts",
            report["policies"][policy],
            [("reward variance", "reward_variance"), ("covariance", "covariance")],
        ),
        _property_table(
            f"Accuracy of the teachers of {policy}: 95 % intervals over prompts, and what chance gives",
            report["policies"][policy],
            [
                ("on-policy accuracy", "on_policy_accuracy"),
                ("by chance", "on_policy_chance"),
                ("off-policy accuracy", "off_policy_accuracy"),
                ("by chance", "off_policy_chance"),
            ],
        ),
        increases,
        *correlations_with_increases,
        *_choice_tables(report, policy),
    ]


def _property_table(title: str, teachers: dict[str, TeacherRecord], columns: list[tuple[str, str]]) -> Table:
    """Properties that were measured before policy gradient, a row a teacher. columns: of each the head and quantity."""
    return Table(
        title,
        ["teacher", *(head for head, _ in columns)],
        [
            [display_name(key), *(_measured(teacher, quantity) for _, quantity in columns)]
            for key, teacher in teachers.items()
        ],
    )


def _choice_tables(report: Report, policy: str) -> list[Table]:
    """Which number picks the teacher of a policy; none for few teachers."""
    study = teacher_choice.study(report, policy)
    if study is None:
        return []
    seeds, budget = len(study.seeds), study.kl_budget
    return [
        Table(
            f"Outcomes of {policy}, in deviations of the ground truth: mean over {seeds} seed{'s' * (seeds > 1)} ± its "
            f"standard error; equal KL is {budget:g} nats",
            ["teacher", *teacher_study.OUTCOMES],
            [
                [display_name(key), *(f"{values.mean():.3f} ± {standard_error(values):.3f}" for values in row.values())]
                for key, row in teacher_choice.outcomes(study).items()
            ],
        ),
        Table(
            f"Which number picks the teacher of {policy}? {len(study.teachers)} teachers, 95 % intervals that resample "
            "them; a regret of 0 is the best pick, of 1 one at random",
            ["predictor", *(f"{NAMES[measure]}, {outcome}" for measure, outcome in teacher_choice.COLUMNS)],
            [
                [predictor, *(f"{interval:.2f}" for interval in intervals)]
                for predictor, intervals in teacher_choice.comparison(study).items()
            ],
        ),
    ]


def _measured(teacher: TeacherRecord, quantity: str) -> str:
    """A property with its interval over prompts, an accuracy by chance without; "–" where an older report lacks it."""
    mean, low, high = teacher.get(quantity) or (None,) * 3
    if mean is None:
        return "–"
    return f"{mean:.3f}" if quantity.endswith("_chance") else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
