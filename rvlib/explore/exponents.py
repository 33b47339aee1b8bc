"""How the least time depends on the reward variance: two theorems' exponents beside trained policies."""

import traitlets

from rvlib.explore._controls import gain_slider, kl_slider, main_controls, slider
from rvlib.explore._explorable import Explorable


class Exponents(Explorable):
    """Least times to gain γ against initial variance: the paper's Theorem 4, the book's bound, and trained policies."""

    alt = (
        "Time to gain against initial reward variance, both logarithmic. The line of the paper's Theorem 4 falls with "
        "slope minus one third, the one of the book's own bound with slope minus one half, far above it. "
        "Points are trained policies, all above both lines: with small rewards they run parallel to slope minus one "
        "half, with a nearly sure policy more steeply."
    )
    caption = traitlets.Unicode(
        "The lines are lower bounds on the time from two theorems. The points are policies trained until they have "
        "gained γ in a reward of ±1. No point can lie in the shaded region. The dotted line is the variance that you "
        "choose, and the readouts are for it."
    ).tag(sync=True)
    main = main_controls("variance", "kl_coef")

    variance = slider(
        1e-4,
        1e-8,
        1,
        0.05,
        group="The bounds",
        label="reward variance",
        log=True,
        tone="proxy",
        help="Variance of the reward under the initial policy, at the mark",
    )
    gain = gain_slider(0.3, 0.01, 1, group="The bounds", help="How much the measured reward has to rise")
    kl_coef = kl_slider(
        1e-4, 1000, group="The bounds", help="Weight of the KL divergence from the initial policy in the objective"
    )
    length = slider(
        3,
        1,
        5,
        1,
        group="The policy",
        label="tokens <i>L</i>",
        whole=True,
        help="Length of an output, of two kinds of token",
    )
    jacobian = slider(
        1.0,
        0.1,
        10,
        0.05,
        group="The policy",
        label="Jacobian norm <i>J</i>",
        log=True,
        help="How fast the logits move with the parameters: logits are J times a table",
    )
