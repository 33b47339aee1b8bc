"""Training by gradient flow beside Best-of-N, under the same two reward models."""

import traitlets

from rvlib.explore._controls import (
    accuracy_slider,
    gain_slider,
    main_controls,
    outputs_slider,
    peakedness_slider,
    seed_slider,
    skill_slider,
    slider,
    variance_slider,
)
from rvlib.explore._explorable import Explorable


class BestOfN(Explorable):
    """Two reward models, each used twice: to train a policy by gradient flow, and to pick its best of N samples."""

    alt = (
        "Two panels, ground truth reward up in both. On the left, training by gradient flow against time: under the "
        "inaccurate reward model of high variance it has risen before the accurate one of low variance has begun to "
        "move. On the right, the best of N samples against N: the accurate one's curve lies on the dotted curve of "
        "the ground truth itself, the other's below."
    )
    caption = traitlets.Unicode(
        "Both sides have the same two reward models. On the left the policy is trained on them. On the right it is "
        "not trained: N outputs are sampled, and the one with the largest reward is kept. "
        "Both are computed exactly, without sampling."
    ).tag(sync=True)
    main = main_controls("a_accuracy", "a_variance")

    samples = slider(
        16,
        1,
        4096,
        0.1,
        group="Best of N",
        label="samples <i>N</i>",
        log=True,
        whole=True,
        help="How many outputs are sampled for the reward model to choose from",
    )
    a_accuracy = accuracy_slider(1.0, "Reward model A")
    a_variance = variance_slider(0.0001, "Reward model A", "variance")
    b_accuracy = accuracy_slider(0.6, "Reward model B")
    b_variance = variance_slider(0.3, "Reward model B", "variance")
    gain = gain_slider(
        0.5, 0.01, 1.5, group="Training", tone="", help="How much the ground truth reward has to rise for t_γ"
    )
    outputs = outputs_slider(12, 40)
    peakedness = peakedness_slider(0.6)
    skill = skill_slider(-1.0)
    seed = seed_slider(9)
