"""The proofs of two bounds on the gradient, inequality by inequality, on a transformer."""

import traitlets

from rvlib.explore._controls import (
    choice,
    kl_slider,
    length_slider,
    main_controls,
    seed_slider,
    slider,
    vocabulary_slider,
)
from rvlib.explore._explorable import Explorable


class Steps(Explorable):
    """A transformer that runs where it is drawn, and for it the proofs of two bounds on the gradient, link by link."""

    alt = (
        "Two groups of bars on a logarithmic axis, each from a transformer's true gradient norm at the top, over the "
        "links of a proof, to a bound at the bottom. In the first group the bound of "
        "the paper's Prop. 2 is a hundred times the gradient or more, and most of it comes from taking the "
        "Jacobian out and from replacing every output by the worst one; in the second the bound of this book is some "
        "five to ten times the gradient."
    )
    caption = traitlets.Unicode(
        "A GPT-2 of one layer with random weights and a random reward model, computed here. Every bar is the exact "
        "value of one expression in the proof; each is at least as long as the one before. The dashed line marks the "
        "gradient norm."
    ).tag(sync=True)
    main = main_controls("length", "scale")

    length = length_slider(3)
    vocabulary = vocabulary_slider()
    spread = slider(
        0.4,
        0.05,
        1.5,
        0.05,
        group="Transformer",
        label="spread of the weights",
        help="Standard deviation of the random weights",
    )
    seed = seed_slider(group="Transformer", help="Other weights and another reward model")
    width = choice({"4": "width 4", "8": "width 8"}, group="Transformer", label="Channels of the transformer")
    scale = slider(
        1.0,
        1e-3,
        1,
        0.05,
        group="Reward",
        label="size of the rewards",
        tone="proxy",
        log=True,
        help="The reward model's rewards are uniform between minus this and this",
    )
    kl_coef = kl_slider(1e-2, 10, group="Reward", help="Weight of the KL divergence from the reference policy")
    drift = slider(
        0.1,
        0,
        0.5,
        0.01,
        group="Reward",
        label="drift",
        help="How far each weight has moved from the reference policy's (standard deviation); it matters where λ > 0",
    )
