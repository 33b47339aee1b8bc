"""The lines of an audit's table: what is measured, what that means, and the number of each reward model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rvlib.audit.measuring import ALMOST_NONE
from rvlib.audit.outcome import MEASURES, Outcome
from rvlib.audit.verdicts import interval, share_the_truth_ties


@dataclass(frozen=True)
class Row:
    """A line of the table: what is measured, what that means, and a text for each reward model, in their order.

    main: whether a terminal shows it too, which has one screen.
    """

    measure: str
    meaning: str
    cells: list[str]
    main: bool = False


def rows(audit: Outcome) -> list[Row]:
    """The table, one `Row` a measure: first what the reward model agrees with, then how loudly it says so."""
    measurements = [audit.reward_models[name] for name in audit.order["names"]]

    def row(key: str, measure: str, meaning: str, text: Callable[[Any], str], main: bool = False) -> list[Row]:
        """One line, or none where an audit of an older version does not have `key`."""
        if not all(key in measured for measured in measurements):
            return []
        return [Row(measure, meaning, [text(measured) for measured in measurements], main)]

    group = measurements[0].get("group", audit.sampling.get("num_generations"))
    return [
        *(_rows_of_truth(audit, row) if audit.ground_truth else []),
        *_rows_of_preferences(measurements, row),
        *row(
            "reward_variance",
            "reward variance",
            "how differently it rewards replies to one prompt, which is how fast it can teach; in units of its "
            "variance over all replies",
            lambda measured: interval(measured["reward_variance"]),
            True,
        ),
        *row(
            "spread",
            "its spread over prompts",
            "10 %, 50 % and 90 % of the prompts lie below",
            lambda measured: _numbers(measured["spread"]),
        ),
        *row(
            "spread_of_mean",
            "spread, relative to the mean",
            "the same three numbers, each divided by the mean reward variance",
            lambda measured: _numbers(measured["spread_of_mean"]),
        ),
        *row(
            "reward_variance_own_unit",
            "reward variance, own unit",
            "without that division; it cannot be compared between reward models",
            lambda measured: interval(measured["reward_variance_own_unit"], ".3g"),
        ),
        *_rows_of_ended_replies(audit, row),
        *row(
            "noise",
            "noise, in its own unit",
            "what rounding changed in a reward at most; a spread of twice that within a prompt counts as none",
            lambda measured: f"{measured['noise']:.2g}" if measured["noise"] else "not measured",
            any(measured.get("noise") for measured in measurements),
        ),
        *row(
            "flat",
            "prompts with (almost) none",
            f"reward variance under {ALMOST_NONE:.0%} of the mean: training learns almost nothing from them",
            lambda measured: interval(measured["flat"], ".0%"),
            True,
        ),
        *row(
            "flat_groups",
            f"flat groups of {group}",
            f"share of the groups of {group} replies to a prompt whose rewards are all equal, so that a step of "
            "training learns nothing from them",
            lambda measured: interval(measured["flat_groups"], ".0%"),
            True,
        ),
        *row(
            "signal_to_noise",
            f"signal to noise of {group}",
            f"what one group of {group} replies teaches on average, over its standard deviation from group to group; a "
            "batch of n groups has √n times as much",
            lambda measured: interval(measured["signal_to_noise"]),
            True,
        ),
        *row(
            "replies_to_halve",
            "to halve the interval",
            f"of the {'covariance' if audit.ground_truth else 'variance'}: so many prompts with as many replies, or as "
            "many prompts with so many replies to each",
            lambda measured: _to_halve(measured),
        ),
    ]


def _rows_of_truth(audit: Outcome, row: Callable[..., list[Row]]) -> list[Row]:
    truth = audit.ground_truth
    return [
        *row(
            "covariance",
            "covariance",
            f"how far its rewards of replies to one prompt rise and fall with {truth}, in units of both: how fast it "
            f"teaches {truth}. Reward models are ordered by it",
            lambda measured: interval(measured["covariance"], ".3f"),
            True,
        ),
        *row(
            "relative_speed",
            "speed beside the truth",
            f"the covariance in units of what {truth} itself would have: how fast {truth} begins to rise",
            lambda measured: interval(measured["relative_speed"]),
            True,
        ),
        *row(
            "accuracy",
            "accuracy",
            f"share of pairs of replies to one prompt that it orders as {truth} does; a tie agrees only with a tie",
            lambda measured: interval(measured["accuracy"]),
            True,
        ),
        *row(
            "chance",
            "accuracy by chance",
            f"of a reward that ties as many and has nothing to do with {truth}",
            lambda measured: f"{measured['chance']:.2f}",
            True,
        ),
        *row(
            "harm_aware",
            "harm-aware accuracy",
            f"of the pairs that {truth} orders, the share that it orders rightly, or whose worse reply it puts below "
            "the mean of the prompt's replies, so that training lowers its logit anyway",
            lambda measured: interval(measured["harm_aware"]),
            True,
        ),
        *row(
            "harm_aware_chance",
            "the same by chance",
            "of the same rewards, assigned to the replies at random; above one half, since many are below a mean",
            lambda measured: (
                "unknown" if measured["harm_aware_chance"] is None else f"{measured['harm_aware_chance']:.2f}"
            ),
            True,
        ),
        *row(
            "tied",
            "pairs that it ties",
            f"accuracy counts them as wrong, unless {truth} ties them too",
            lambda measured: f"{measured['tied']:.1%}",
        ),
        *row(
            "tied",
            "pairs that the ground truth ties",
            f"of all pairs, as {truth} has them: a reward model that ties none is wrong on them",
            lambda _: f"{share_the_truth_ties(audit):.1%}",
        ),
        *row(
            "covariance_without_length",
            "covariance without length",
            "what is left of it when the length of a reply explains neither of the two",
            lambda measured: interval(measured["covariance_without_length"], ".3f"),
        ),
    ]


def _rows_of_preferences(measurements: list[Any], row: Callable[..., list[Row]]) -> list[Row]:
    return [
        *row(
            "preference_accuracy",
            "accuracy on the preferences",
            f"share of the {measurements[0].get('pairs')} given pairs that it orders rightly",
            lambda measured: interval(measured["preference_accuracy"]),
            True,
        ),
        *row(
            "preference_covariance",
            "covariance with the preferences",
            "half its margin on them, in its unit",
            lambda measured: interval(measured["preference_covariance"], ".3f"),
            True,
        ),
    ]


def _rows_of_ended_replies(audit: Outcome, row: Callable[..., list[Row]]) -> list[Row]:
    """What is left of the measures without the replies that were cut off."""
    measures = ("covariance", "accuracy", "reward_variance") if audit.ground_truth else ("reward_variance",)
    share = f"{audit.replies.get('cut_off', 0):.0%}"
    return [
        line
        for key in measures
        for line in row(
            "ended_alone",
            f"{MEASURES.get(key, key)}, not cut off",
            f"the same without the {share} of the replies that were cut off, which are judged unfinished; unknown "
            "where too few are left",
            lambda measured, key=key: interval(measured["ended_alone"].get(key)),
            key == measures[0]
            and any(measured.get("ended_alone", {}).get(key) for measured in audit.reward_models.values()),
        )
    ]


def _to_halve(measured: Any) -> str:
    prompts = f"{4 * measured['prompts']} prompts"
    return f"{prompts}, or {measured['replies_to_halve']} replies" if measured["replies_to_halve"] else prompts


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
