"""Gradient norms of random autoregressive policies, under two bounds by the reward variance."""

import traitlets

from rvlib.explore._controls import (
    kl_slider,
    length_slider,
    main_controls,
    seed_slider,
    slider,
    toggle,
    vocabulary_slider,
)
from rvlib.explore._explorable import Explorable


class Gradient(Explorable):
    """Thousands of random autoregressive policies: gradient norm against reward variance, under the bounds' lines."""

    alt = (
        "Scatter plot of gradient norm against reward variance, both logarithmic: thousands of random policies of "
        "three tokens each. All lie under two lines: far under the one of the paper's Prop. 2, of slope one third; and "
        "under the one of the book's own bound, of slope one half, along which the cloud's upper edge runs."
    )
    caption = traitlets.Unicode(
        "Every point is a random policy with a random reward model. Its gradient and variance are sums over all "
        "outputs. No point can lie above the lower line. The upper line is the paper's Prop. 2, for the largest "
        "reward <i>M</i> of all the points."
    ).tag(sync=True)
    main = main_controls("kl_coef", "one_row")

    length = length_slider(5)
    vocabulary = vocabulary_slider()
    kl_coef = kl_slider(1e-4, 10, group="KL penalty", help="Weight of the KL divergence from the reference policy")
    drift = slider(
        1.0,
        0,
        4,
        0.1,
        group="KL penalty",
        label="drift",
        help="How far the logits have moved from the reference policy's (standard deviation); it matters where λ > 0",
    )
    one_row = toggle(
        False,
        group="Policy",
        label="one row of logits for all prefixes",
        help="The policy ignores what it has written; its parameters are shared by all steps",
    )
    seed = seed_slider(group="Policy", help="Other policies and reward models of the same kind")
