"""The hypotheses on which number picks the teacher, as registered before the study ran, and what became of them.

The words are in `registrations/which-number-picks-the-teacher.md`. One predictor *beats* another where the interval of
its lead lies above 0. A hypothesis is confirmed where this holds for every algorithm that it names, contradicted where
the opposite holds for one of them, and open otherwise.
"""

from dataclasses import dataclass

from rvlib.estimates import Estimate
from rvlib.teacher_study import Study, compare, lead


@dataclass(frozen=True)
class Hypothesis:
    """That a predictor is ahead of others for an outcome, in a measure, under each of the algorithms.

    outcome: of `teacher_study.OUTCOMES`. measure: of `teacher_study.MEASURES`. predictor, others: of
    `predictors.PREDICTORS`.
    """

    name: str
    claim: str
    algorithms: tuple[str, ...]
    outcome: str
    measure: str
    predictor: str
    others: tuple[str, ...]


ON_POLICY, BOTH = "accuracy, on-policy pairs", ("rloo", "grpo")
HYPOTHESES = [
    Hypothesis(
        name="H1",
        claim="covariance has a higher correlation with the early gain than reward variance and on-policy "
        "accuracy have",
        algorithms=("rloo",),
        outcome="early gain",
        measure="spearman",
        predictor="covariance",
        others=("reward variance", ON_POLICY),
    ),
    Hypothesis(
        name="H2",
        claim="the reward model that covariance picks has a lower regret than the one that on-policy accuracy picks",
        algorithms=("rloo",),
        outcome="gain",
        measure="regret",
        predictor="covariance",
        others=(ON_POLICY,),
    ),
    Hypothesis(
        name="H3",
        claim="under GRPO the within-prompt correlation has a higher correlation with the gain than covariance has",
        algorithms=("grpo",),
        outcome="gain",
        measure="spearman",
        predictor="correlation",
        others=("covariance",),
    ),
    Hypothesis(
        name="H5",
        claim="on-policy accuracy has a higher correlation with the gain at equal KL than reward variance has",
        algorithms=BOTH,
        outcome="gain at equal KL",
        measure="spearman",
        predictor=ON_POLICY,
        others=("reward variance",),
    ),
    Hypothesis(
        name="H7",
        claim="on-policy accuracy has a higher correlation with the gain than off-policy accuracy has",
        algorithms=BOTH,
        outcome="gain",
        measure="spearman",
        predictor=ON_POLICY,
        others=("accuracy, off-policy pairs",),
    ),
    Hypothesis(
        name="H8",
        claim="the gain of best-of-16 has a higher correlation with the gain of training than on-policy accuracy has",
        algorithms=BOTH,
        outcome="gain",
        measure="spearman",
        predictor="best-of-16 gain",
        others=(ON_POLICY,),
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
    evidence: dict[str, Estimate]


def verdicts(study: Study, *, resamples: int = 2000) -> list[Verdict]:
    """The registered hypotheses, H1 to H8, decided by the rule that was registered with them."""
    rows = [_verdict_by_leads(study, hypothesis, resamples) for hypothesis in HYPOTHESES]
    rows += [_everything_beats_the_variance(study, resamples), _nothing_warns_of_hacking(study, resamples)]
    return sorted(rows, key=lambda row: row.name)


def _verdict_by_leads(study: Study, hypothesis: Hypothesis, resamples: int) -> Verdict:
    """The verdict on a hypothesis of `HYPOTHESES`."""
    leads, algorithms = [], [algorithm for algorithm in hypothesis.algorithms if algorithm in study.algorithms]
    outcome, predictor, measure = hypothesis.outcome, hypothesis.predictor, hypothesis.measure
    for algorithm in algorithms:
        for other in hypothesis.others:
            leads.append((algorithm, lead(study, algorithm, outcome, predictor, other, measure, resamples=resamples)))
    return _verdict(hypothesis.name, hypothesis.claim, leads, complete=len(algorithms) == len(hypothesis.algorithms))


def _everything_beats_the_variance(study: Study, resamples: int) -> Verdict:
    """The verdict on H4."""
    leads = []
    for algorithm in study.algorithms:
        for predictor in study.predictors:
            if predictor not in ("reward variance", "1 − group-collapse rate"):
                ahead = lead(study, algorithm, "gain", predictor, "reward variance", resamples=resamples)
                leads.append((algorithm, ahead))
    claim = (
        "every other predictor but the collapse rate has a higher correlation with the gain than reward variance has"
    )
    return _verdict("H4", claim, leads, complete=len(study.algorithms) == 2)


def _nothing_warns_of_hacking(study: Study, resamples: int) -> Verdict:
    """The verdict on H6."""
    highest, warned = {}, False
    for algorithm in study.algorithms:
        comparison = compare(study, algorithm, "loss to hacking", resamples=resamples)
        highest[algorithm] = comparison.values[comparison.best]
        warned |= any(value.value > 0.5 and value.low > 0.3 for value in comparison.values.values())
    claim = "no predictor has a correlation above 0.5 with the loss to hacking whose interval lies above 0.3"
    unless_warned = "confirmed" if len(study.algorithms) == 2 else "not tested"
    return Verdict("H6", claim, "contradicted" if warned else unless_warned, highest)


def _verdict(name: str, claim: str, leads: list[tuple[str, Estimate]], *, complete: bool) -> Verdict:
    """The verdict on a claim of leads, (algorithm, the lead) each, all of which must lie above 0."""
    least: dict[str, Estimate] = {}
    for algorithm, ahead in leads:
        if algorithm not in least or ahead.value < least[algorithm].value:
            least[algorithm] = ahead
    if any(ahead.high < 0 for _, ahead in leads):
        verdict = "contradicted"
    elif not complete:
        verdict = "not tested"
    else:
        verdict = "confirmed" if all(ahead.low > 0 for _, ahead in leads) else "open"
    return Verdict(name, claim, verdict, least)
