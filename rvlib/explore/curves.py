"""The explorable of gradient flow: rewards, variance, KL divergence and gradient norm against time."""

import traitlets

from rvlib.explore._controls import (
    REWARD_MODEL,
    accuracy_slider,
    gain_slider,
    kl_slider,
    main_controls,
    metric_choice,
    outputs_slider,
    peakedness_slider,
    seed_slider,
    skill_slider,
    slider,
    toggle,
    variance_slider,
)
from rvlib.explore._explorable import Explorable


class Curves(Explorable):
    """Gradient flow of a policy, solved: its rewards and its path, with t_γ and the bound of the paper's Prop. 3."""

    alt = (
        "Curves against time on a logarithmic axis. The ground truth reward and the proxy reward of a policy in "
        "training; the time t_γ at which each has gained γ, and, shaded, the times before which the paper's "
        "Prop. 3 rules it out. Below, in three smaller panels, reward variance, KL divergence from the initial policy, "
        "and gradient norm."
    )
    caption = traitlets.Unicode(
        "Every curve is the exact solution of gradient flow. In the shaded time the policy cannot have gained γ, by a "
        "lower bound from its reward variance. Pin a setting to compare others with it; a pin's letter goes back to it."
    ).tag(sync=True)
    main = main_controls("accuracy", "variance")

    accuracy = accuracy_slider(0.8)
    variance = variance_slider(0.05)
    kl_coef = kl_slider(
        1e-4,
        10,
        group=REWARD_MODEL,
        step=0.05,
        help="Weight of the KL divergence from the initial policy in the objective",
    )
    gain = gain_slider(0.3, 0.01, 1, group=REWARD_MODEL, help="How much the reward has to rise for t_γ")
    metric = metric_choice(REWARD_MODEL)
    outputs = outputs_slider(12, 60)
    peakedness = peakedness_slider(1.0)
    skill = skill_slider(-1.0)
    seed = seed_slider(13)
    horizon = slider(10_000, 10, 1e8, 0.1, group="Time", label="until", log=True, help="Where the axis of time ends")
    log_time = toggle(True, group="Time", label="logarithmic", help="Decades of time at equal distances")
    pins = traitlets.List(
        traitlets.Dict(), help="Settings to compare with: dictionaries of the parameters above that differ from them"
    ).tag(sync=True)
