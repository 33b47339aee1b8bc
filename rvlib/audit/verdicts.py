"""What an audit says in sentences: a verdict on each reward model, and advice on what to mind and what to do."""

import functools

from rvlib import teacher_study
from rvlib.audit.outcome import MEASURES, TRUTH_LABEL, Measurements, Outcome
from rvlib.audit.statistics import MIN_PROMPTS, Interval

GOOD, PARTLY = 0.5, 0.2  # of the ground truth's own speed: what a good teacher has, and one that is worth the time
NOTABLE = 0.3  # a correlation with a probe from which on the advice mentions it
ADVICE_PROBES = ("length", "repetition", "markdown", "thanks or sorry")  # openings are in the report alone


def verdict(audit: Outcome, name: str) -> str:
    """Whether the reward model `name` is a good teacher for the audit's policy: one sentence with its interval.

    ValueError, in one sentence, for a name that the audit does not have.
    """
    if name not in audit.reward_models:
        raise ValueError(
            f"A verdict must be on a reward model of the audit, {', '.join(audit.reward_models)}, got {name!r}."
        )
    measured, truth = audit.reward_models[name], audit.ground_truth
    if measured["scale"] == 0:
        return f"No: {name} gives every reply the same reward, from which nothing can be learnt."
    if measured["reward_variance"][0] == 0:
        return f"No: {name} gives all replies to a prompt the same reward, from which nothing can be learnt."
    if _truth_is_flat(audit):
        return f"It cannot be told: {truth} tells no two replies to one prompt apart, and says nothing of {name}."
    if "covariance" in measured:
        covariance = f"covariance {interval(measured['covariance'])}"
        _, low, high = measured["covariance"]
        if high < 0:
            return f"No: {name} pulls against {truth} and would lower it ({covariance})."
        if low <= 0:
            return f"It cannot be told: {name} may have nothing to do with {truth} ({covariance})."
        if audit.ground_truth_measurements and audit.ground_truth_measurements["rewards"] == measured["rewards"]:
            return f"Yes: {name} gives the very rewards of {truth}{', the ground truth' * (truth != TRUTH_LABEL)}."
        speed = measured.get("relative_speed")
        if speed is None:
            return f"Yes: training on {name} raises {truth} too ({covariance})."
        word = "Yes" if speed[0] >= GOOD else "Partly" if speed[0] >= PARTLY else "Hardly"
        return (
            f"{word}: training on {name} begins to raise {truth} {interval(speed)} times as fast as training on "
            f"{truth} itself would."
        )
    if "preference_covariance" in measured:
        _, low, high = measured["preference_covariance"]
        right = f"{interval(measured['preference_accuracy'], '.0%')} of {measured['pairs']} pairs ordered rightly"
        if high < 0:
            return f"No: {name} pulls against the preferences ({right})."
        if low <= 0:
            return f"It cannot be told: {name} may have nothing to do with the preferences ({right})."
        return f"Probably: {name} agrees with the preferences, on replies that the policy did not write ({right})."
    share = interval([min(end, 1.0) for end in measured["reward_variance"]], ".0%")  # few prompts may say more than all
    return (
        f"Without a ground truth only its speed is known: {share} of what {name} distinguishes is between replies to "
        "one prompt, and only that teaches."
    )


def answer(audit: Outcome) -> str:
    """The answer to the audit's question: the verdict on the first of the order, and what separates it from the next.

    Both with their intervals.
    """
    first, *others = audit.order["names"]
    if not others:
        return verdict(audit, first)
    gap, second = audit.order["gaps"][0], others[0]
    difference = f"{interval(gap['difference'], '.3f')} in {MEASURES[audit.order['by']]}"
    if gap["difference"] is None:
        lead = f"It cannot be compared with {second}, the next: there are not two prompts on which both are known."
    elif gap["apart"]:
        lead = f"It is ahead of {second}, the next, by {difference}."
    else:
        lead = f"It cannot be told apart from {second}, the next: they differ by {difference}."
    return f"{verdict(audit, first)} {lead}"


def order_line(audit: Outcome) -> str:
    """What a list of the reward models in their order begins with."""
    truth = f" with {audit.ground_truth}" * (audit.order["by"] == "covariance")
    return f"Predicted order, by {MEASURES[audit.order['by']]}{truth}:"


def advice(audit: Outcome) -> list[str]:
    """Plain sentences on an `Outcome`: what to mind, and what to do."""
    sentences = _advice_on_the_order(audit)
    for name, measured in audit.reward_models.items():
        sentences += _advice_on_a_reward_model(audit, name, measured)
    names, tied = audit.order["names"], share_the_truth_ties(audit)
    if _truth_is_flat(audit):
        sentences.append(f"{audit.ground_truth} gives all replies to a prompt the same reward: take another.")
    elif tied > 0.1:
        sentences.append(
            f"{audit.ground_truth} itself ties {tied:.0%} of the pairs, and accuracy counts a tie as right only where "
            f"both tie: a reward that ties none has at most {1 - tied:.2f}, and {(1 - tied) / 2:.2f} by chance. "
            "Go by the covariance."
        )
    if audit.order["by"] == "covariance" and len(names) > 1:
        first_by = {
            "accuracy": max(names, key=lambda name: (audit.reward_models[name]["accuracy"] or [0.0])[0]),
            "reward variance": max(names, key=lambda name: audit.reward_models[name]["reward_variance"][0]),
        }
        for measure, first in first_by.items():
            if first != names[0]:
                sentences.append(f"{first} has the larger {measure}, and {names[0]} is expected to teach more.")
        sentences.append(measured_reliability())
    if audit.replies.get("cut_off", 0) > 0.5:
        longest = audit.sampling.get("max_new_tokens")
        tokens, remedy = (f" at {longest} tokens", "raise --max-new-tokens") if longest else ("", "draw longer replies")
        sentences.append(
            f"{audit.replies['cut_off']:.0%} of the replies were cut off{tokens}, and judged unfinished: {remedy} if "
            "you train with longer ones."
        )
    if audit.replies["same"] > 0.2:
        sentences.append(
            f"{audit.replies['same']:.0%} of the replies repeat another to the same prompt: "
            "this policy has little left to choose from."
        )
    return sentences


@functools.cache
def measured_reliability() -> str:
    """How well the covariance chose where the outcome is known, without the ground truth itself: from `rvlib study`."""
    study = teacher_study.load().without_ground_truth()
    lost, less, right, beyond_doubt = [], [], [], True
    for algorithm in study.algorithms:
        regret = teacher_study.compare(study, algorithm, "gain", "regret").values["covariance"]
        lead = teacher_study.lead(study, algorithm, "gain", "covariance", "accuracy, on-policy pairs", "regret")
        lost.append(f"{regret:.0%} under {algorithm.upper()}")
        less.append("{:z.0f} [{:z.0f}, {:z.0f}]".format(*(100 * end for end in (lead.value, lead.low, lead.high))))
        beyond_doubt &= lead.low > 0
        right.append(teacher_study.how_often_right(study, "covariance", algorithm))
    return (
        f"How far to trust this order: in the book's study of {len(study.teachers)} reward models (without the ground "
        f"truth itself) and {len(study.policies)} small policies, choosing by the covariance lost "
        f"{' and '.join(lost)} of what the best had above the mean. That is {' and '.join(less)} percentage points "
        f"less than by on-policy accuracy{', so it is not better beyond doubt' * (not beyond_doubt)}. "
        f"{min(right):.0%} of the pairs were in the right order."
    )


def interval(values: Interval | None, spec: str = ".2f") -> str:
    """An interval as text, "0.62 [0.55, 0.70]", or "unknown"."""
    without_negative_zero = spec.replace(".", "z.")
    return "unknown" if values is None else "{:{s}} [{:{s}}, {:{s}}]".format(*values, s=without_negative_zero)


def share_the_truth_ties(audit: Outcome) -> float:
    """The share of the pairs of different replies that the ground truth ties; 0 without one."""
    return audit.ground_truth_measurements["tied"] if audit.ground_truth_measurements else 0.0


def _truth_is_flat(audit: Outcome) -> bool:
    """Whether there is a ground truth that tells no two replies to one prompt apart."""
    return audit.ground_truth_measurements is not None and audit.ground_truth_measurements["reward_variance"][0] == 0


def _advice_on_the_order(audit: Outcome) -> list[str]:
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


def _advice_on_a_reward_model(audit: Outcome, name: str, measured: Measurements) -> list[str]:
    if measured["scale"] == 0:
        return [f"{name} gives every reply the same reward: it cannot teach."]
    if measured["reward_variance"][0] == 0:
        return [f"{name} gives all replies to a prompt the same reward: it cannot teach."]
    sentences = []
    if measured.get("unscored"):
        sentences.append(f"{measured['unscored']} replies have no reward of {name}, and are left out of its numbers.")
    flat, count = measured["flat"][0], measured["prompts"]
    if flat > 0.2:
        sentences.append(
            f"{name} gives (almost) the same reward to all {audit.sampling['num_generations']} replies on "
            f"{round(flat * count)} of {count} prompts, from which nothing is learnt: leave such prompts out, "
            "draw more replies, or use a finer reward."
        )
    if measured["reward_variance"][2] < 0.25:
        sentences.append(
            f"Of what {name} distinguishes, {measured['reward_variance'][0]:.0%} is between replies to one prompt; "
            "the rest is between prompts and teaches nothing. Expect it to be slow."
        )
    if "covariance" in measured:
        sentences += _advice_on_the_sign(name, measured["covariance"], str(audit.ground_truth))
        tied = measured.get("tied_in_error", measured["tied"])
        if tied > 0.1:
            that_are_ordered = f" that {audit.ground_truth} orders" * (share_the_truth_ties(audit) > 0)
            sentences.append(
                f"{name} ties {tied:.0%} of the pairs{that_are_ordered}, which accuracy counts as wrong and a policy "
                "gradient does not count at all: go by the covariance."
            )
    elif "preference_covariance" in measured:
        sentences += _advice_on_the_sign(name, measured["preference_covariance"], "the preferences")
    return sentences + _advice_on_probes(audit, name, measured)


def _advice_on_the_sign(name: str, covariance: Interval, truth: str) -> list[str]:
    """A sentence on a reward model whose covariance with `truth` is not certainly positive."""
    _, low, high = covariance
    if high < 0:
        return [f"{name} pulls against {truth}: training on it will lower what you want."]
    if low <= 0:
        return [f"{name} cannot be told from one that has nothing to do with {truth}: its covariance may be 0."]
    return []


def _advice_on_probes(audit: Outcome, name: str, measured: Measurements) -> list[str]:
    """A sentence on features with which the reward is correlated more than the ground truth is, from enough prompts."""
    if measured["prompts"] < MIN_PROMPTS:
        return []
    of_truth = audit.ground_truth_measurements.get("probes", {}) if audit.ground_truth_measurements else {}
    leanings: dict[str, list[str]] = {"rewards": [], "punishes": []}
    for probe, (value, low, high) in measured.get("probes", {}).items():
        truth_correlation = of_truth.get(probe, [0.0])[0]
        shared = truth_correlation * value > 0 and abs(truth_correlation) >= abs(value) / 2
        if probe not in ADVICE_PROBES or abs(value) < NOTABLE or low <= 0 <= high or shared:
            continue
        beside = f", of {audit.ground_truth} {truth_correlation:.2f}" if probe in of_truth else ""
        leanings["rewards" if value > 0 else "punishes"].append(f"{probe} ({interval([value, low, high])}{beside})")
    return [
        f"{name} {verb} {', '.join(probes)}: correlations within prompts."
        for verb, probes in leanings.items()
        if probes
    ]
