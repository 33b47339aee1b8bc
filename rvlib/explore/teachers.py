"""Three policies under four teachers, as in the paper's Theorem 6."""

import traitlets

from rvlib.explore._controls import gain_slider, kl_slider, main_controls, slider
from rvlib.explore._explorable import Explorable


class Teachers(Explorable):
    """Three policies by four teachers, each cell a training run, as in the paper's Theorem 6.

    The best teacher depends on the policy.
    """

    alt = (
        "Grid of small panels, three policies by four teachers; each shows the ground truth reward against time on a "
        "logarithmic axis. The policy that says y learns at once from the teacher that likes y, and some hundred times "
        "later from the one that likes y prime; for the policy that says y prime it is the other way round; the "
        "perfectly accurate teacher of low variance is slow with both."
    )
    caption = traitlets.Unicode(
        "Two outputs are good, <i>y</i> and <i>y′</i>. Each row is a policy and each column a reward model. Each cell "
        "has the ground truth reward against time (0.1 to 10⁷, logarithmic); the dashed line is the gain. "
        "A frame marks the fastest teacher of a row."
    ).tag(sync=True)
    main = main_controls("rarity", "scale")

    rarity = slider(
        30.0,
        2,
        1000,
        0.05,
        group="The policies",
        label="<i>T</i>",
        log=True,
        help="The good output that a policy hardly ever gives has probability 1/T²",
    )
    likely = slider(
        0.2,
        0.02,
        0.8,
        0.01,
        group="The policies",
        label="the likely one’s probability <i>c</i>",
        help="Probability of the good output that a policy gives often",
    )
    outputs = slider(
        8,
        3,
        20,
        1,
        group="The policies",
        label="outputs",
        whole=True,
        help="How many outputs there are, two of them good",
    )
    scale = slider(
        0.05,
        0.001,
        1,
        0.05,
        group="The teachers",
        label="rewards of the accurate one, ×",
        log=True,
        tone="proxy",
        help="The fourth teacher is the ground truth, multiplied by this",
    )
    kl_coef = kl_slider(1e-4, 1, group="The teachers")
    gain = gain_slider(
        0.5, 0.05, 1.2, group="The teachers", step=0.05, help="How much the ground truth reward has to rise"
    )
