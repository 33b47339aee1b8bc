"""Which predictor, a number known before training, goes with the ground truth that a reward model then brings."""

import traitlets

from rvlib.explore._controls import (
    choice,
    kl_slider,
    main_controls,
    outputs_slider,
    peakedness_slider,
    seed_slider,
    skill_slider,
    slider,
)
from rvlib.explore._explorable import Explorable


class Grades(Explorable):
    """Thirty-six random reward models for one policy: a predictor before training against what training then brings.

    What counts is the true reward.
    """

    alt = (
        "On the left a scatter plot: each dot is a reward model, across its pi-squared-weighted covariance with the "
        "truth, up the true reward gained; the dots rise along a curve. On the right, bars for seven predictors: the "
        "covariances correlate with the gain best, then the product of deviation and accuracy, then accuracy and "
        "variance by themselves."
    )
    caption = traitlets.Unicode(
        "All reward models teach the same policy by the exact gradient flow. The scatter plot has one predictor, "
        "a number known before training, and the bars have all of them. Make the time long, the scales equal, or the "
        "KL coefficient large, and see which predictors fail."
    ).tag(sync=True)
    main = main_controls("time", "scales", "error")

    grade = choice(
        {
            "weighted": "π²-weighted covariance",
            "covariance": "covariance",
            "product": "deviation × accuracy",
            "both": "variance and accuracy",
            "variance": "variance",
            "onpolicy": "on-policy accuracy",
            "accuracy": "accuracy",
        },
        group="Predictor",
        label="Predictor of a reward model",
    )
    time = slider(
        10.0, 0.1, 1e5, 0.05, group="Training", label="time", log=True, help="When the true reward gained is read off"
    )
    kl_coef = kl_slider(1e-3, 3, group="Training")
    error = slider(
        0.7,
        0,
        1,
        0.05,
        group="Reward models",
        label="share of error, at most",
        tone="proxy",
        help="Each reward model is the truth mixed with noise, the noise's share drawn up to this",
    )
    scales = slider(
        1.0,
        0,
        3,
        0.1,
        group="Reward models",
        label="decades of scale",
        tone="proxy",
        help="Each reward model is multiplied by a number between this many decades below 1 and 1",
    )
    outputs = outputs_slider(10, 24, low=3)
    peakedness = peakedness_slider(1.0, 3)
    skill = skill_slider(0.0, -3, 3)
    seed = seed_slider(help="Other outputs, another policy, other reward models")
