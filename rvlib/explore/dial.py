"""The explorable of the paper's Definitions 1 and 2: accuracy and reward variance, chosen independently."""

import traitlets

from rvlib.explore._controls import (
    accuracy_slider,
    main_controls,
    outputs_slider,
    peakedness_slider,
    seed_slider,
    skill_slider,
    slider,
    toggle,
    variance_slider,
)
from rvlib.explore._explorable import Explorable


class Dial(Explorable):
    """A reward model's accuracy and reward variance, set apart; and what scaling and normalising do to them."""

    alt = (
        "Slope chart. Ten outputs, each a line from its ground truth reward on the left to its proxy reward on the "
        "right; where two lines cross, the reward model has the pair in the wrong order. A shaded band shows one "
        "standard deviation of the proxy reward about its mean under the policy."
    )
    caption = traitlets.Unicode(
        "Each line is an output, from its ground truth reward to its proxy reward. Two lines cross exactly where the "
        "pair is misordered. Accuracy counts the crossings; reward variance is half the width of the shaded band, "
        "squared."
    ).tag(sync=True)
    main = main_controls("accuracy", "variance")

    accuracy = accuracy_slider(0.8)
    variance = variance_slider(0.1)
    scale = slider(
        1.0,
        0.1,
        10,
        0.02,
        group="The scale trap",
        label="multiply by <i>c</i>",
        tone="proxy",
        log=True,
        help="Multiplies the proxy reward on every prompt: accuracy stays, variance is multiplied by c²",
    )
    between = slider(
        0.3,
        0,
        1,
        0.01,
        group="The scale trap",
        label="spread between prompts",
        help="Standard deviation, over prompts, of the mean proxy reward before scaling",
    )
    normalise = toggle(
        False,
        group="The scale trap",
        label="normalise over all prompts",
        help="Subtract the mean and divide by the standard deviation over prompts and outputs together, as the paper "
        "does",
    )
    outputs = outputs_slider(10, 24)
    peakedness = peakedness_slider(0.7)
    skill = skill_slider(0.0)
    seed = seed_slider()
