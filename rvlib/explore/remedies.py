"""Remedies for low variance on two prompts, one of them quiet: untreated and treated training side by side."""

import numpy as np
import traitlets

from rvlib.explore._controls import choice, gain_slider, main_controls, seed_slider, skill_slider, slider, toggle
from rvlib.explore._explorable import Explorable
from rvlib.tabular.remedies import Worlds
from rvlib.tabular.rewards import random

TRUTH = np.array([1, 1 / 3, 1 / 3, -1 / 3, -1 / 3, -1])  # of the six outputs of either prompt, best first
MODELS = 11  # the teacher, and ten more that an ensemble may have
_SAMPLES = "Samples used, lowest reward to highest"


def two_prompts(error: float = 0.5, quiet: float = 0.05, skill: float = -0.6, seed: int = 13) -> Worlds:
    """The figure's world: one of two prompts with six outputs each, the rewards of the second multiplied by `quiet`.

    error, quiet, skill: as of `rvlib.tabular.remedies.make_worlds`. web/treatments.mjs has the same numbers.
    """
    outputs = len(TRUTH)
    radius, angle = random(seed, 2 * (2 * outputs + 2 + MODELS * 2 * outputs)).reshape(-1, 2).T
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)  # Box and Muller's
    drawn, offsets, errors = np.split(normal, [2 * outputs, 2 * outputs + 2])
    scale = np.array([1.0, quiet])[:, None]
    scores = scale * (TRUTH + error * errors.reshape(MODELS, 2, outputs)) + 0.5 * offsets[:, None]
    logits = drawn.reshape(2, outputs) + 2 * skill * TRUTH
    return Worlds(logits[None], np.broadcast_to(TRUTH, (1, 2, outputs)), scores[None])


def _sample(rank: int) -> traitlets.TraitType:
    """Whether the sample of this rank, 1 the lowest reward, is used."""
    return toggle(True, group=_SAMPLES, label=str(rank), help=f"Use the sample of rank {rank} of a group")


class Remedies(Explorable):
    """Untreated and treated training side by side, on two prompts, the second with rewards that are nearly equal.

    Every step is the exact expectation over all groups of six samples.
    """

    alt = (
        "Two columns, untreated and treated, which are alike while no remedy is chosen. At the top of each, the "
        "rewards of six outputs on two prompts, over the policy's probabilities: on the loud prompt they are spread "
        "like the ground truth, on the quiet one they are nearly equal. Below, ground truth reward against steps: the "
        "loud prompt's rises at once, the quiet one's waits until the loud one's has risen, and their mean lies "
        "between."
    )
    caption = traitlets.Unicode(
        "Above: each output's true reward (blue) and its reward by the reward model (orange), worst output on the "
        "left; grey bars are the policy's probabilities. Below: the ground truth reward on each prompt (thin) and its "
        "mean (thick). Six samples of each prompt make a group. Every step is the exact mean over all groups, of which "
        "the samples that you tick are used. PODS keeps those of the largest variance, which is the number in "
        "brackets of the last readout. Noise by dithering has mean 0, so it has no part in the mean; samples are "
        "chosen before it is added."
    ).tag(sync=True)
    main = main_controls("remedy", "strength", *(f"sample_{rank}" for rank in range(1, 7)))

    remedy = choice(
        {
            "none": "no remedy",
            "scale": "scale",
            "centre": "centre",
            "bounded": "bounded (PAR)",
            "smoothing": "label smoothing",
            "margin": "margin",
            "ensemble": "ensemble",
            "discretise": "discretise",
            "dither": "dither (ReDit)",
            "spread": "spread ranking",
            "grpo": "divide (GRPO)",
            "undivided": "Dr. GRPO",
        },
        group="Remedy",
        label="Remedy",
    )
    strength = slider(
        10,
        0,
        10,
        1,
        group="Strength",
        label="strength",
        whole=True,
        help="How much of the remedy is applied; p is the power of the deviation",
    )
    sample_1 = _sample(1)
    sample_2 = _sample(2)
    sample_3 = _sample(3)
    sample_4 = _sample(4)
    sample_5 = _sample(5)
    sample_6 = _sample(6)
    rule = choice(
        {"fixed": "of fixed length", "plain": "in proportion to the update"},
        group="Steps",
        label="Length of a step",
    )
    step = slider(
        0.3,
        0.03,
        10,
        0.05,
        group="Steps",
        label="step size",
        log=True,
        help="The length of a step, or what the update is multiplied by",
    )
    gain = gain_slider(
        0.8, 0.05, 1.5, group="Steps", step=0.05, help="How much the mean ground truth reward has to rise"
    )
    error = slider(
        0.5,
        0,
        2,
        0.05,
        group="Reward model",
        label="error",
        tone="proxy",
        help="Standard deviation of the reward model's error",
    )
    quiet = slider(
        0.05,
        0.001,
        1,
        0.05,
        group="Reward model",
        label="the quiet prompt’s rewards, ×",
        tone="proxy",
        log=True,
        help="What all rewards of the second prompt are multiplied by",
    )
    skill = skill_slider(-0.6, -2, 1)
    seed = seed_slider(13, help="Another policy and other errors, alike in what the other sliders say")
