"""Training on sampled groups, by the estimators of `rvlib.tabular.estimators`.

Their labels are written into web/estimators.mjs by `python -m rvlib.explore.samples`.
"""

import json

import traitlets

from rvlib.explore._controls import accuracy_slider, choice, kl_slider, main_controls, seed_slider, slider
from rvlib.explore._explorable import WEB, Explorable
from rvlib.tabular.estimators import ADVANTAGES

LABELS = {name: estimator.label for name, estimator in ADVANTAGES.items()}


def module() -> str:
    """The text of web/estimators.mjs."""
    return (
        "// Labels of the advantage estimators, written by `python -m rvlib.explore.samples`.\n"
        f"export const LABELS = {json.dumps(LABELS)};\n"
    )


class Samples(Explorable):
    """Training on samples by REINFORCE, RLOO or GRPO, plainly or with Adam, beside steps with the exact gradient."""

    alt = (
        "Ground truth reward against training steps on a logarithmic axis: six sampled runs as thin lines, their "
        "mean as a thick one, and a dashed line for the same steps with the exact gradient. "
        "With a low-variance teacher and plain steps all stay near the start."
    )
    caption = traitlets.Unicode(
        "Six runs of 300 steps with one group each, and their mean. The dashed line is the same optimiser with the "
        "exact gradient of the expected reward. Label noise is added to each reward before the multiplication, anew "
        "for every sample. Adam's step is a twentieth of the step size."
    ).tag(sync=True)
    main = main_controls("multiplier", "noise", "estimator", "optimiser")

    accuracy = accuracy_slider(1.0, "Teacher")
    variance = slider(
        1e-4,
        1e-6,
        1,
        0.05,
        group="Teacher",
        label="reward variance",
        tone="proxy",
        log=True,
        help="Variance of the reward under the initial policy; at most what the accuracy allows",
    )
    multiplier = slider(
        1.0,
        0.1,
        1000,
        0.1,
        group="Teacher",
        label="multiply by <i>c</i>",
        tone="proxy",
        log=True,
        help="Multiplies rewards and noise together",
    )
    noise = slider(
        0.0,
        1e-3,
        3,
        0.1,
        group="Teacher",
        label="label noise <i>τ</i>",
        tone="proxy",
        log=True,
        zero=True,
        help="Standard deviation of the noise in each reward",
    )
    estimator = choice(
        LABELS,
        group="Algorithm",
        label="Advantage of a sample",
    )
    optimiser = choice({"plain": "plain steps", "adam": "Adam"}, group="Algorithm", label="Optimiser")
    group = slider(
        4, 2, 16, 1, group="Algorithm", label="samples a step <i>k</i>", whole=True, help="Size of the group"
    )
    step = slider(
        1.0,
        0.1,
        30,
        0.1,
        group="Algorithm",
        label="step size",
        log=True,
        help="What the gradient is multiplied by; Adam's step is a twentieth of it",
    )
    kl_coef = kl_slider(1e-3, 1, group="Algorithm", help="Weight of the KL penalty, as part of each sample's reward")
    seed = seed_slider(3)


if __name__ == "__main__":
    (WEB / "estimators.mjs").write_text(module(), encoding="utf-8")
