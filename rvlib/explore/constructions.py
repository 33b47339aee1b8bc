"""The constructions of the paper's Theorem 5: an accurate teacher that is slow, and an inaccurate one that is fast."""

import traitlets

from rvlib.explore._controls import (
    gain_slider,
    main_controls,
    outputs_slider,
    peakedness_slider,
    seed_slider,
    skill_slider,
    slider,
)
from rvlib.explore._explorable import Explorable


class Constructions(Explorable):
    """The two teachers of the paper's Theorem 5: one is accurate and as slow as one likes, one inaccurate and fast."""

    alt = (
        "Two panels. On the left, ground truth reward against time on a logarithmic axis: under the inaccurate "
        "teacher B it rises to its best within the first third of the axis, under the accurate teacher A far later. "
        "On the right, time to gain against T, both logarithmic: A's grows in proportion to T, above the line of its "
        "lower bound; B's is level, under its upper bound."
    )
    caption = traitlets.Unicode(
        "A has the accuracy that you choose and rewards between 0 and 1/<i>T</i>. B ranks one good output first and "
        "may have all other pairs wrong. In the shaded time A's student cannot have gained γ; by the dotted line B's "
        "student has. <i>λ</i> = 0."
    ).tag(sync=True)
    main = main_controls("slowness", "a_accuracy", "b_accuracy")

    slowness = slider(
        1000.0,
        1,
        1e6,
        0.05,
        group="Teacher A",
        label="<i>T</i>",
        log=True,
        tone="a",
        help="A's rewards lie between 0 and 1/T",
    )
    a_accuracy = slider(
        1.0,
        0,
        1,
        0.01,
        group="Teacher A",
        label="accuracy of A",
        tone="a",
        help="Share of pairs that A has in the right order; the nearest attainable one is taken",
    )
    b_accuracy = slider(
        0.2,
        0,
        1,
        0.01,
        group="Teacher B",
        label="accuracy of B",
        tone="b",
        help="Share of pairs that B has in the right order, at least those with the best output",
    )
    gain = gain_slider(
        0.5, 0.05, 1.5, group="Both", step=0.05, tone="", help="How much the ground truth reward has to rise"
    )
    outputs = outputs_slider(10, 30, low=3)
    peakedness = peakedness_slider(0.7, 3)
    skill = skill_slider(0.0, -3, 2)
    seed = seed_slider(help="Other outputs, another policy and other rankings, alike in what the other sliders say")
