"""The figures of an audit's report."""

import os.path
from collections.abc import Sequence
from typing import Any

import numpy as np

from rvlib import plots
from rvlib.audit.outcome import MEASURES, Outcome, interval_of
from rvlib.audit.verdicts import share_the_truth_ties


def order_figure(audit: Outcome) -> Any:
    """The mean that orders the reward models, with its interval; the ground truth itself as the mark to reach."""
    by, names = audit.order["by"], audit.order["names"][::-1]
    intervals = np.array([interval_of(audit.reward_models[name], by) for name in names])
    means, low, high = intervals.T
    heights = np.arange(len(names))
    in_words = "; ".join(f"{name} {a:.3f} [{b:.3f}, {c:.3f}]" for name, (a, b, c) in zip(names[::-1], intervals[::-1]))
    figure = plots.scatter(
        {"reward models": (means, heights)},
        intervals={"reward models": ((low, high), (heights, heights))},
        x=MEASURES[by],
        y="",
        log=(False, False),
        size=12,
        alt=f"Mean {MEASURES[by]} of each reward model with its 95 % interval: {in_words}.",
    )
    proxy = plots.COLOURS["proxy"]
    figure.update_traces(
        marker=dict(opacity=1, color=proxy), error_x=dict(width=5, thickness=2, color=proxy), showlegend=False
    )
    figure.add_vline(x=0, line=dict(color=plots.COLOURS["bound"], dash="dash"))
    if audit.ground_truth_measurements and by in ("covariance", "preference_covariance"):
        mark = interval_of(audit.ground_truth_measurements, by)[0]
        figure.add_vline(x=mark, line=dict(color=plots.COLOURS["ground truth"]))
        figure.add_annotation(
            x=mark, y=1, yref="paper", yanchor="bottom", text=f"{audit.ground_truth} itself", showarrow=False
        )
    shown = short_names(names)
    for name, height in zip(names, heights):  # above its interval, since beside it names leave no room on a phone
        figure.add_annotation(
            x=0,
            xref="paper",
            xanchor="left",
            xshift=6,  # off the dashed line, where that is the edge
            y=height,
            yanchor="bottom",
            yshift=6,
            text=shown[name],
            showarrow=False,
        )
    return figure.update_layout(
        yaxis=dict(showticklabels=False, tickvals=list(heights), range=[-0.6, len(names) - 0.2]),
        height=140 + 56 * len(names),
    )


def spread_figure(audit: Outcome) -> Any:
    """Reward variance of the prompts in growing order, a line a reward model.

    How long a line lies on the floor is the share of the prompts that teaches nothing.
    """
    names = audit.order["names"]
    values = {name: np.array(audit.reward_models[name]["per_prompt"]["reward_variance"], dtype=float) for name in names}
    prompts = len(values[names[0]])
    shown = short_names(names)
    variances = {shown[name]: np.sort(array) for name, array in values.items()}  # those that are unknown, NaN, last
    flat = ", ".join(f"{name} {audit.reward_models[name]['flat'][0]:.0%}" for name in names)
    return plots.trajectories(
        variances,
        (np.arange(prompts) + 0.5) / prompts,
        value="reward variance, normalised",
        time="share of the prompts",
        alt=(
            "Reward variance against the share of the prompts that have less, a rising line a reward model. "
            f"On (almost) no variance lie: {flat}."
        ),
    ).update_layout(yaxis_rangemode="tozero", xaxis_range=[0, 1])


def plane_figure(audit: Outcome) -> Any:
    """One point a prompt: accuracy across, reward variance up; None without a ground truth."""
    groups, shown = {}, short_names(audit.order["names"])
    for name in audit.order["names"]:
        per_prompt = audit.reward_models[name]["per_prompt"]
        points = [
            (accuracy, variance)
            for accuracy, variance in zip(per_prompt.get("accuracy", []), per_prompt["reward_variance"])
            if accuracy is not None and variance is not None
        ]
        if points:
            accuracies, variances = np.transpose(points)
            groups[shown[name]] = accuracies, variances
    if not groups:
        return None
    means = "; ".join(f"{name} {a.mean():.2f}, {v.mean():.2f}" for name, (a, v) in groups.items())
    figure = plots.scatter(
        groups,
        x=f"accuracy against {_short(audit.ground_truth or '')}",
        y="reward variance, normalised",
        log=(False, False),
        size=7,
        alt=f"Accuracy across and reward variance up, one point a prompt and reward model. Means: {means}.",
    )
    figure.update_layout(yaxis_rangemode="tozero").update_traces(marker_opacity=0.8)
    chance = (1 - share_the_truth_ties(audit)) / 2  # of a reward that ties none
    return figure.add_vline(x=chance, line=dict(color=plots.COLOURS["bound"], dash="dash"))


def short_names(names: Sequence[str], most: int = 30) -> dict[str, str]:
    """{name: what a figure calls it}, of at most `most` characters.

    Names whose short forms would be equal lose the beginning that they share. If they are still equal, they stay whole.
    """
    short = [_short(name, most) for name in names]
    alike = {text: os.path.commonprefix([name for name, each in zip(names, short) if each == text]) for text in short}
    ends = ["…" + name.removeprefix(alike[text]) for name, text in zip(names, short)]
    short = [
        text if short.count(text) == 1 else end if len(end) <= most else end[: most - 1] + "…"
        for text, end in zip(short, ends)
    ]
    return {name: text if short.count(text) == 1 else name for name, text in zip(names, short)}


def _short(name: str, most: int = 30) -> str:
    """A name without its middle, if it is too long for a phone: names differ at their ends, by version and by size."""
    end = most // 2
    return name if len(name) <= most else f"{name[: most - end - 1]}…{name[-end:]}"
