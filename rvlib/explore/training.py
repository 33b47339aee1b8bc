"""The explorables of a policy over a few outputs and of reward models whose accuracy and variance the reader chooses:
what gradient flow, training on samples and Best-of-N make of them.
"""

import traitlets

from rvlib.explore._explorable import Explorable, choice, gain_slider, kl_slider, main_controls, slider, toggle
from rvlib.tabular.estimators import ADVANTAGES

_TEACHER, _POLICY = "Reward model", "Policy and outputs"
_TEACHERS = {
    f"{kind} {letter}": letter.lower() for kind in ("Teacher", "Reward model", "Rewards by teacher") for letter in "AB"
}
_ALGORITHM_LABELS = {"rloo": "RLOO", "grpo": "GRPO", "dr_grpo": "undivided", "reinforce": "REINFORCE"}


def _accuracy(default: float, group: str = _TEACHER, label: str = "accuracy") -> traitlets.TraitType:
    return slider(
        default,
        0,
        1,
        0.01,
        group=group,
        label=label,
        tone=_TEACHERS.get(group, "proxy"),
        help="Share of the pairs of outputs in the right order; the nearest attainable one is taken",
    )


def _variance(default: float, group: str = _TEACHER, label: str = "reward variance") -> traitlets.TraitType:
    return slider(
        default,
        1e-6,
        1,
        0.02,
        group=group,
        label=label,
        tone=_TEACHERS.get(group, "proxy"),
        log=True,
        help="Variance of the reward under the initial policy; at most what the accuracy allows",
    )


def _metric(group: str) -> traitlets.TraitType:
    return choice(
        {"euclidean": "gradient in the logits", "natural": "natural gradient"},
        group=group,
        label="The metric of the gradient",
        help="What the length of a step is measured by: the change of the logits, or the change of the policy",
    )


def _outputs(default: float, high: float) -> traitlets.TraitType:
    return slider(default, 2, high, 1, group=_POLICY, label="outputs", whole=True, help="How many outputs there are")


def _peakedness(default: float) -> traitlets.TraitType:
    return slider(
        default,
        0,
        4,
        0.05,
        group=_POLICY,
        label="peakedness",
        help="Standard deviation of the policy's random logits: 0 gives an even policy",
    )


def _skill(default: float) -> traitlets.TraitType:
    return slider(
        default,
        -4,
        4,
        0.05,
        group=_POLICY,
        label="skill",
        help="How much the policy's logits lean to good outputs (above 0) or to bad ones",
    )


def _seed(default: float = 1) -> traitlets.TraitType:
    return slider(
        default,
        1,
        40,
        1,
        group=_POLICY,
        label="seed",
        whole=True,
        help="Other outputs, another policy and another reward model, alike in what the other sliders say",
    )


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

    accuracy = _accuracy(0.8)
    variance = _variance(0.1)
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
    outputs = _outputs(10, 24)
    peakedness = _peakedness(0.7)
    skill = _skill(0.0)
    seed = _seed()


class Curves(Explorable):
    """Gradient flow of a policy, solved: its rewards and its path, with t_γ and the bound of the paper's Prop. 3."""

    alt = (
        "Curves against time on a logarithmic axis. The ground truth reward and the proxy reward of a policy in "
        "training; the time t_γ at which each has gained γ, and, shaded, the times before which the paper's "
        "Prop. 3 rules it out. Below, in three smaller panels, reward variance, KL divergence from the initial policy, "
        "and gradient norm."
    )
    caption = traitlets.Unicode(
        "Every curve is the exact solution of gradient flow. In the shaded time the policy cannot have gained γ, by a "
        "lower bound from its reward variance. Pin a setting to compare others with it; a pin's letter goes back to it."
    ).tag(sync=True)
    main = main_controls("accuracy", "variance")

    accuracy = _accuracy(0.8)
    variance = _variance(0.05)
    kl_coef = kl_slider(
        1e-4, 10, group=_TEACHER, step=0.05, help="Weight of the KL divergence from the initial policy in the objective"
    )
    gain = gain_slider(0.3, 0.01, 1, group=_TEACHER, help="How much the reward has to rise for t_γ")
    metric = _metric(_TEACHER)
    outputs = _outputs(12, 60)
    peakedness = _peakedness(1.0)
    skill = _skill(-1.0)
    seed = _seed(13)
    horizon = slider(10_000, 10, 1e8, 0.1, group="Time", label="until", log=True, help="Where the axis of time ends")
    log_time = toggle(True, group="Time", label="logarithmic", help="Decades of time at equal distances")
    pins = traitlets.List(
        traitlets.Dict(), help="Settings to compare with: dictionaries of the parameters above that differ from them"
    ).tag(sync=True)


def _mark(default: float, group: str, output: str) -> traitlets.TraitType:
    return slider(
        default,
        -1,
        1,
        0.01,
        group=group,
        label=output,
        tone=_TEACHERS[group],
        help=f"The teacher's reward for the {output} output",
    )


class Landscape(Explorable):
    """Three outputs, two teachers: the objective as a surface, and the way of gradient flow on it."""

    alt = (
        "Two surfaces side by side over the triangle of policies on three outputs, and below each its contours. "
        "Teacher A ranks all three outputs correctly with rewards 0.1, 0 and -0.1: "
        "its surface is almost flat, and the way of gradient flow short. Teacher B, with rewards 1, -1 and -0.4, has "
        "one pair wrong: its surface is steep, and the way leads to the best output."
    )
    caption = traitlets.Unicode(
        "The height is the objective under each teacher, to the same scale; contours are 0.1 apart. The ring is where "
        "the policy starts: drag it. The blue line is the finish, where the ground truth reward (1, 0 and −1) has "
        "risen by γ; numbers along the way are times. Drag a surface to turn it."
    ).tag(sync=True)
    main = main_controls("time")

    a_best = _mark(0.1, "Rewards by teacher A", "best")
    a_middling = _mark(0.0, "Rewards by teacher A", "middling")
    a_worst = _mark(-0.1, "Rewards by teacher A", "worst")
    b_best = _mark(1.0, "Rewards by teacher B", "best")
    b_middling = _mark(-1.0, "Rewards by teacher B", "middling")
    b_worst = _mark(-0.4, "Rewards by teacher B", "worst")
    best = slider(0.1, 0.01, 0.98, 0.01, group="The policy at the start", label="probability of best")
    middling = slider(0.3, 0.01, 0.98, 0.01, group="The policy at the start", label="of middling")
    time = slider(
        10.0,
        0.1,
        1e4,
        0.02,
        group="Training",
        label="time",
        log=True,
        help="How long both policies have followed their gradient",
    )
    gain = gain_slider(1.0, 0.01, 1.9, group="Training", help="How much the ground truth reward has to rise for t_γ")
    kl_coef = kl_slider(
        1e-3,
        10,
        group="Training",
        step=0.05,
        label="KL weight <i>λ</i>",
        help="Weight of the KL divergence from the initial policy in the objective",
    )
    plane = choice(
        {"policies": "over policies", "logits": "over logits"}, group="View", label="The plane under the surface"
    )
    turn = slider(-25, -180, 180, 1, group="View", label="turn", whole=True, help="Degrees about the vertical")
    tilt = slider(
        32, 10, 55, 1, group="View", label="tilt", whole=True, help="Degrees above the horizon from which one looks"
    )


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
    a_accuracy = _accuracy(1.0, "Teacher A")
    a_variance = _variance(0.0001, "Teacher A", "variance")
    b_accuracy = _accuracy(0.6, "Teacher B")
    b_variance = _variance(0.4, "Teacher B", "variance")
    gain = gain_slider(0.5, 0.01, 1.5, group="Training", help="How much the ground truth reward has to rise to finish")
    kl_coef = kl_slider(
        1e-4,
        10,
        group="Training",
        step=0.05,
        label="KL weight <i>λ</i>",
        help="Weight of the KL divergence from the initial policy in the objective",
    )
    metric = _metric("Training")
    outputs = _outputs(12, 40)
    peakedness = _peakedness(0.6)
    skill = _skill(-1.0)
    seed = _seed(9)


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
    a_accuracy = _accuracy(1.0, "Reward model A")
    a_variance = _variance(0.0001, "Reward model A", "variance")
    b_accuracy = _accuracy(0.6, "Reward model B")
    b_variance = _variance(0.3, "Reward model B", "variance")
    gain = gain_slider(
        0.5, 0.01, 1.5, group="Training", tone="", help="How much the ground truth reward has to rise for t_γ"
    )
    outputs = _outputs(12, 40)
    peakedness = _peakedness(0.6)
    skill = _skill(-1.0)
    seed = _seed(9)


class Samples(Explorable):
    """Training on samples by REINFORCE, RLOO or GRPO, plainly or with Adam, beside steps with the exact gradient."""

    alt = (
        "Ground truth reward against training steps on a logarithmic axis: six sampled runs as thin lines, their "
        "mean as a thick one, and a dashed line for the same steps with the exact gradient. "
        "With a low-variance teacher and plain steps all stay near the start."
    )
    caption = traitlets.Unicode(
        "Six runs of 300 steps with one group each, and their mean. The dashed line is the same optimiser with the "
        "exact gradient of the expected reward. Label noise is added to each reward before the multiplication, anew "
        "for every sample. Adam's step is a twentieth of the step size."
    ).tag(sync=True)
    main = main_controls("multiplier", "noise", "estimator", "optimiser")

    accuracy = _accuracy(1.0, "Teacher")
    variance = slider(
        1e-4,
        1e-6,
        1,
        0.05,
        group="Teacher",
        label="reward variance",
        tone="proxy",
        log=True,
        help="Variance of the reward under the initial policy; at most what the accuracy allows",
    )
    multiplier = slider(
        1.0,
        0.1,
        1000,
        0.1,
        group="Teacher",
        label="multiply by <i>c</i>",
        tone="proxy",
        log=True,
        help="Multiplies rewards and noise together",
    )
    noise = slider(
        0.0,
        1e-3,
        3,
        0.1,
        group="Teacher",
        label="label noise <i>τ</i>",
        tone="proxy",
        log=True,
        zero=True,
        help="Standard deviation of the noise in each mark",
    )
    estimator = choice(
        {algorithm: _ALGORITHM_LABELS[algorithm] for algorithm in ADVANTAGES},
        group="Algorithm",
        label="Advantage of a sample",
    )
    optimiser = choice({"plain": "plain steps", "adam": "Adam"}, group="Algorithm", label="Optimiser")
    group = slider(
        4, 2, 16, 1, group="Algorithm", label="samples a step <i>k</i>", whole=True, help="Size of the group"
    )
    step = slider(
        1.0,
        0.1,
        30,
        0.1,
        group="Algorithm",
        label="step size",
        log=True,
        help="What the gradient is multiplied by; Adam's step is a twentieth of it",
    )
    kl_coef = kl_slider(1e-3, 1, group="Algorithm", help="Weight of the KL penalty, as part of each sample's reward")
    seed = _seed(3)
