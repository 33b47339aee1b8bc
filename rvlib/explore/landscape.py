"""The objective over three outputs as a surface, with the path of gradient flow on it."""

import traitlets

from rvlib.explore._controls import TONES, choice, gain_slider, kl_slider, main_controls, slider
from rvlib.explore._explorable import Explorable


def reward_slider(default: float, group: str, output: str) -> traitlets.TraitType:
    """A teacher's reward for one of the three outputs."""
    return slider(
        default,
        -1,
        1,
        0.01,
        group=group,
        label=output,
        tone=TONES[group],
        help=f"The teacher's reward for the {output} output",
    )


class Landscape(Explorable):
    """Three outputs, two teachers: the objective as a surface, and the way of gradient flow on it."""

    alt = (
        "Two surfaces side by side over the triangle of policies on three outputs, and below each its contours. "
        "Teacher A ranks all three outputs correctly with rewards 0.1, 0 and -0.1: "
        "its surface is almost flat, and by time 10 the way of gradient flow is short. Teacher B, with rewards 1, -1 "
        "and -0.4, has one pair wrong: its surface is steep, and the way leads to the best output."
    )
    caption = traitlets.Unicode(
        "The height is the objective under each teacher, to the same scale; contours are 0.1 apart. The ring is where "
        "the policy starts: drag it. The blue line is the finish, where the ground truth reward (1, 0 and −1) has "
        "risen by γ; numbers along the way are times. The way ends at the time that is set. Drag a surface to turn it."
    ).tag(sync=True)
    main = main_controls("time")

    a_best = reward_slider(0.1, "Rewards by teacher A", "best")
    a_middling = reward_slider(0.0, "Rewards by teacher A", "middling")
    a_worst = reward_slider(-0.1, "Rewards by teacher A", "worst")
    b_best = reward_slider(1.0, "Rewards by teacher B", "best")
    b_middling = reward_slider(-1.0, "Rewards by teacher B", "middling")
    b_worst = reward_slider(-0.4, "Rewards by teacher B", "worst")
    best = slider(0.1, 0.01, 0.98, 0.01, group="The policy at the start", label="probability of best")
    middling = slider(0.3, 0.01, 0.98, 0.01, group="The policy at the start", label="of middling")
    time = slider(
        10.0,
        0.1,
        1e4,
        0.02,
        group="Training",
        label="time",
        log=True,
        help="How long both policies have followed their gradient",
    )
    gain = gain_slider(1.0, 0.01, 1.9, group="Training", help="How much the ground truth reward has to rise for t_γ")
    kl_coef = kl_slider(
        1e-3,
        10,
        group="Training",
        step=0.05,
        label="KL weight <i>λ</i>",
        help="Weight of the KL divergence from the initial policy in the objective",
    )
    plane = choice(
        {"policies": "over policies", "logits": "over logits"}, group="View", label="The plane under the surface"
    )
    turn = slider(-25, -180, 180, 1, group="View", label="turn", whole=True, help="Degrees about the vertical")
    tilt = slider(
        32, 10, 55, 1, group="View", label="tilt", whole=True, help="Degrees above the horizon from which one looks"
    )
