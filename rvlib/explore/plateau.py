"""Three outputs and a reward model's error on one: harmful, benign or beneficial, and the plateau that it makes."""

import traitlets

from rvlib.explore._controls import gain_slider, main_controls, slider
from rvlib.explore._explorable import Explorable


def _reward(default: float, output: str) -> traitlets.TraitType:
    """The reward model's reward of one of the outputs."""
    return slider(
        default,
        -1.5,
        1.5,
        0.05,
        group="Reward model",
        label=f"reward of the {output} output",
        tone="proxy",
        help=f"The reward that the reward model gives the {output} output",
    )


class Plateau(Explorable):
    """Three outputs, of which the mediocre one can get a wrong reward; gradient flow beside that on the truth."""

    alt = (
        "Ground truth and proxy reward against time on a logarithmic axis, the same while the reward model is without "
        "an error: both rise to one half, stay there for a long time, and then rise to 1. Below, the probabilities of "
        "three outputs: the bad one vanishes first, the mediocre one has nearly all of the probability on the plateau, "
        "and the good one has it at the end."
    )
    caption = traitlets.Unicode(
        "Training by the exact gradient flow. Blue: the ground truth reward under the reward model, dashed under the "
        "ground truth itself. Orange: the proxy reward. Shaded: the plateau, where the policy gives one output that "
        "is not the good one with a probability of at least 0.9. An error is called benign if it changes the time to "
        "gain <i>γ</i> by at most 5 %, else harmful if it makes it longer and beneficial if it makes it shorter."
    ).tag(sync=True)
    main = main_controls("mediocre")

    mediocre = _reward(0.5, "mediocre")
    good = _reward(1.0, "good")
    bad = _reward(-1.0, "bad")
    gain = gain_slider(1.0, 0.05, 1.9, group="Training", step=0.05, help="How much the ground truth reward has to rise")
    truth = slider(
        0.5,
        -0.9,
        0.9,
        0.05,
        group="Outputs",
        label="true reward of the mediocre one",
        tone="truth",
        help="The true rewards of the good and the bad output are 1 and −1",
    )
    rare = slider(
        0.01,
        1e-4,
        0.3,
        0.05,
        group="Outputs",
        label="probability of the good one",
        log=True,
        help="At the start; the bad output has what is left",
    )
    common = slider(
        0.5,
        0.05,
        0.95,
        0.01,
        group="Outputs",
        label="of the mediocre one",
        help="At the start; the bad output has what is left",
    )
