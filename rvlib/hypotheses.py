"""The hypotheses on which number picks the teacher, as registered before the study ran, and what became of them.

The words are in `registrations/which-number-picks-the-teacher.md`. One predictor *beats* another where the interval of
its lead lies above 0. A hypothesis is confirmed where this holds for every algorithm that it names, contradicted where
the opposite holds for one of them, and open otherwise.
"""

from dataclasses import dataclass

from rvlib.teacher_study import Interval, Study, compare, lead


@dataclass(frozen=True)
class Hypothesis:
    """That one predictor is ahead of others, for an outcome and in a measure, under each of some algorithms."""

    name: str
    claim: str
    algorithms: tuple[str, ...]
    outcome: str
    measure: str
    first: str
    others: tuple[str, ...]


ON_POLICY, BOTH = "accuracy, on-policy pairs", ("rloo", "grpo")
HYPOTHESES = [
    Hypothesis(
        "H1",
        "early, covariance goes with the gain more than reward variance and on-policy accuracy do",
        ("rloo",),
        "early gain",
        "spearman",
        "covariance",
        ("reward variance", ON_POLICY),
    ),
    Hypothesis(
        "H2",
        "the pick of covariance costs less than that of on-policy accuracy",
        ("rloo",),
        "gain",
        "regret",
        "covariance",
        (ON_POLICY,),
    ),
    Hypothesis(
        "H3",
        "under GRPO the within-prompt correlation goes with the gain more than covariance does",
        ("grpo",),
        "gain",
        "spearman",
        "correlation",
        ("covariance",),
    ),
    Hypothesis(
        "H5",
        "at equal KL, on-policy accuracy goes with the gain more than reward variance does",
        BOTH,
        "gain at equal KL",
        "spearman",
        ON_POLICY,
        ("reward variance",),
    ),
    Hypothesis(
        "H7",
        "on-policy accuracy goes with the gain more than off-policy accuracy does",
        BOTH,
        "gain",
        "spearman",
        ON_POLICY,
        ("accuracy, off-policy pairs",),
    ),
    Hypothesis(
        "H8",
        "the gain of best-of-16 goes with the gain more than on-policy accuracy does",
        BOTH,
        "gain",
        "spearman",
        "best-of-16 gain",
        (ON_POLICY,),
    ),
]


@dataclass(frozen=True)
class Verdict:
    """What became of a hypothesis: "confirmed", "contradicted", "open", or "not tested" where an algorithm is missing.

    evidence: {algorithm: the smallest of the leads that it claims}; for H6, which claims none, the highest correlation.
    """

    name: str
    claim: str
    verdict: str
    evidence: dict[str, Interval]


def verdicts(study: Study, *, resamples: int = 2000) -> list[Verdict]:
    """The registered hypotheses, H1 to H8, judged by the rule that was registered with them."""
    rows = []
    for hypothesis in HYPOTHESES:
        ran = [algorithm for algorithm in hypothesis.algorithms if algorithm in study.algorithms]
        leads = [
            (
                algorithm,
                lead(
                    study,
                    algorithm,
                    hypothesis.outcome,
                    hypothesis.first,
                    other,
                    hypothesis.measure,
                    resamples=resamples,
                ),
            )
            for algorithm in ran
            for other in hypothesis.others
        ]
        rows.append(_judged(hypothesis.name, hypothesis.claim, leads, complete=len(ran) == len(hypothesis.algorithms)))
    leads, highest, warned = [], {}, False
    for algorithm in study.algorithms:
        leads += [
            (algorithm, lead(study, algorithm, "gain", other, "reward variance", resamples=resamples))
            for other in study.scores
            if other not in ("reward variance", "1 − group-collapse rate")
        ]
        hacking = compare(study, algorithm, "loss to hacking", resamples=resamples)
        highest[algorithm] = hacking.values[hacking.best]
        warned |= any(value.value > 0.5 and value.low > 0.3 for value in hacking.values.values())
    claim = "every other predictor but the collapse rate over reward variance, correlation with the gain"
    rows.append(_judged("H4", claim, leads, complete=len(study.algorithms) == 2))
    claim = "no predictor has a correlation above 0.5 with the loss to hacking whose interval lies above 0.3"
    complete = "confirmed" if len(study.algorithms) == 2 else "not tested"
    rows.append(Verdict("H6", claim, "contradicted" if warned else complete, highest))
    return sorted(rows, key=lambda row: row.name)


def _judged(name: str, claim: str, leads: list[tuple[str, Interval]], *, complete: bool) -> Verdict:
    least: dict[str, Interval] = {}
    for algorithm, interval in leads:
        if algorithm not in least or interval.value < least[algorithm].value:
            least[algorithm] = interval
    if any(interval.high < 0 for _, interval in leads):
        verdict = "contradicted"
    elif not complete:
        verdict = "not tested"
    else:
        verdict = "confirmed" if all(interval.low > 0 for _, interval in leads) else "open"
    return Verdict(name, claim, verdict, least)
