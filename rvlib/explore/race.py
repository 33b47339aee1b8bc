"""Two teachers train the same policy: which student gains first?"""

import traitlets

from rvlib.explore._controls import (
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
    variance_slider,
)
from rvlib.explore._explorable import Explorable


class Race(Explorable):
    """Two teachers, one policy to start from: whose student's ground truth reward gains γ first?"""

    alt = (
        "Two teachers side by side, before their students have learnt anything. Teacher A's rewards are in the right "
        "order but nearly equal; teacher B's are far apart, with pairs out of order. Below each, the same "
        "probabilities of the outputs. At the bottom, the start of both students' ground truth rewards against time, "
        "side by side below the line of the finish."
    )
    caption = traitlets.Unicode(
        "The bars are each student's probabilities of the outputs, from worst to best. The dots are each teacher's "
        "rewards, and the line has the true rewards. Below is the ground truth reward of both students against time. "
        "The student that first gains γ wins."
    ).tag(sync=True)
    main = main_controls("time")

    time = slider(0.1, 0.1, 1e5, 0.02, group="Time", label="time", log=True, help="How long both students have learnt")
    a_accuracy = accuracy_slider(1.0, "Teacher A")
    a_variance = variance_slider(0.0001, "Teacher A", "variance")
    b_accuracy = accuracy_slider(0.6, "Teacher B")
    b_variance = variance_slider(0.4, "Teacher B", "variance")
    gain = gain_slider(0.5, 0.01, 1.5, group="Training", help="How much the ground truth reward has to rise to finish")
    kl_coef = kl_slider(
        1e-4,
        10,
        group="Training",
        step=0.05,
        label="KL weight <i>λ</i>",
        help="Weight of the KL divergence from the initial policy in the objective",
    )
    metric = metric_choice("Training")
    outputs = outputs_slider(12, 40)
    peakedness = peakedness_slider(0.6)
    skill = skill_slider(-1.0)
    seed = seed_slider(9)
