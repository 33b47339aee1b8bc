"""The explorables of the part on theory: constructions that make theorems sharp, and bounds for policies that write
token by token.
"""

import traitlets

from rvlib.explore._explorable import Explorable, choice, gain_slider, kl_slider, main_controls, slider, toggle


class Gradient(Explorable):
    """Thousands of random autoregressive policies: gradient norm against the variance of the reward, under the bounds'
    lines.
    """

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

    length = slider(3, 1, 5, 1, group="Outputs", label="tokens <i>L</i>", whole=True, help="Length of an output")
    vocabulary = slider(
        3, 2, 4, 1, group="Outputs", label="vocabulary", whole=True, help="How many tokens there are to choose from"
    )
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
    seed = slider(
        1, 1, 40, 1, group="Policy", label="seed", whole=True, help="Other policies and reward models of the same kind"
    )


class Exponents(Explorable):
    """Least times to gain γ against initial variance: the paper's Theorem 4, the book's bound, and trained policies."""

    alt = (
        "Time to gain against initial reward variance, both logarithmic. The line of the paper's Theorem 4 falls with "
        "slope minus one third, the one of the book's own bound with slope minus one half, far above it. "
        "Points are trained policies, all above both lines: with small rewards they run parallel to slope minus one "
        "half, with a nearly sure policy more steeply."
    )
    caption = traitlets.Unicode(
        "The lines are lower bounds on the time from two theorems. The points are policies trained until they have "
        "gained γ in a reward of ±1. No point can lie in the shaded region. The dotted line is the variance that you "
        "choose, and the readouts are for it."
    ).tag(sync=True)
    main = main_controls("variance", "kl_coef")

    variance = slider(
        1e-4,
        1e-8,
        1,
        0.05,
        group="The bounds",
        label="reward variance",
        log=True,
        tone="proxy",
        help="Variance of the reward under the initial policy, at the mark",
    )
    gain = gain_slider(0.3, 0.01, 1, group="The bounds", help="How much the measured reward has to rise")
    kl_coef = kl_slider(
        1e-4, 1000, group="The bounds", help="Weight of the KL divergence from the initial policy in the objective"
    )
    length = slider(
        3,
        1,
        5,
        1,
        group="The policy",
        label="tokens <i>L</i>",
        whole=True,
        help="Length of an output, of two kinds of token",
    )
    jacobian = slider(
        1.0,
        0.1,
        10,
        0.05,
        group="The policy",
        label="Jacobian norm <i>J</i>",
        log=True,
        help="How fast the logits move with the parameters: logits are J times a table",
    )


class Steps(Explorable):
    """A transformer that runs where it is drawn, and for it the proofs of two bounds on the gradient, link by link."""

    alt = (
        "Two groups of bars on a logarithmic axis, each from a transformer's true gradient norm at the top, over the "
        "links of a proof, to a bound at the bottom. In the first group the bound of "
        "the paper's Prop. 2 is a hundred times the gradient or more, and most of it comes in the last two steps; in "
        "the second the bound of this book is some five to ten times the gradient."
    )
    caption = traitlets.Unicode(
        "A GPT-2 of one layer with random weights and a random reward model, computed here. Every bar is the exact "
        "value of one expression in the proof; each is at least as long as the one before. The dashed line marks the "
        "gradient norm."
    ).tag(sync=True)
    main = main_controls("length", "scale")

    length = slider(3, 1, 3, 1, group="Outputs", label="tokens <i>L</i>", whole=True, help="Length of an output")
    vocabulary = slider(
        3, 2, 4, 1, group="Outputs", label="vocabulary", whole=True, help="How many tokens there are to choose from"
    )
    spread = slider(
        0.4,
        0.05,
        1.5,
        0.05,
        group="Transformer",
        label="spread of the weights",
        help="Standard deviation of the random weights",
    )
    seed = slider(
        1, 1, 40, 1, group="Transformer", label="seed", whole=True, help="Other weights and another reward model"
    )
    width = choice({"4": "width 4", "8": "width 8"}, group="Transformer", label="Channels of the transformer")
    scale = slider(
        1.0,
        1e-3,
        1,
        0.05,
        group="Reward",
        label="size of the marks",
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


class Constructions(Explorable):
    """The two teachers of the paper's Theorem 5: one is accurate and as slow as one likes, one inaccurate and fast."""

    alt = (
        "Two panels. On the left, ground truth reward against time on a logarithmic axis: under the inaccurate "
        "teacher B it rises to its best within the first hundredth of the axis, under the accurate teacher A far "
        "later. On the right, time to gain against T, both logarithmic: A's grows in proportion to T, above the line "
        "of its lower bound; B's is level, under its upper bound."
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
    outputs = slider(
        10, 3, 30, 1, group="Policy and outputs", label="outputs", whole=True, help="How many outputs there are"
    )
    peakedness = slider(
        0.7,
        0,
        3,
        0.05,
        group="Policy and outputs",
        label="peakedness",
        help="Standard deviation of the policy's random logits: 0 gives an even policy",
    )
    skill = slider(
        0.0,
        -3,
        2,
        0.05,
        group="Policy and outputs",
        label="skill",
        help="How much the policy's logits lean to good outputs (above 0) or to bad ones",
    )
    seed = slider(
        1,
        1,
        40,
        1,
        group="Policy and outputs",
        label="seed",
        whole=True,
        help="Other outputs, another policy and other rankings, alike in what the other sliders say",
    )


class Teachers(Explorable):
    """Three policies by four teachers, each cell a training run, as in the paper's Theorem 6.

    The best teacher depends on the policy.
    """

    alt = (
        "Grid of small panels, three policies by four teachers; each shows the ground truth reward against time on a "
        "logarithmic axis. The policy that says y learns at once from the teacher that likes y and not from the one "
        "that likes y prime; for the policy that says y prime it is the other way round; the perfectly accurate "
        "teacher of low variance is slow with both."
    )
    caption = traitlets.Unicode(
        "Two outputs are good, <i>y</i> and <i>y′</i>. Each row is a policy and each column a reward model. Each cell "
        "has the ground truth reward against time (0.1 to 10⁷, logarithmic); the dashed line is the gain. "
        "A frame marks the fastest teacher of a row."
    ).tag(sync=True)
    main = main_controls("rarity", "scale")

    rarity = slider(
        30.0,
        2,
        1000,
        0.05,
        group="The policies",
        label="<i>T</i>",
        log=True,
        help="The good output that a policy hardly ever gives has probability 1/T²",
    )
    likely = slider(
        0.2,
        0.02,
        0.8,
        0.01,
        group="The policies",
        label="the likely one’s probability <i>c</i>",
        help="Probability of the good output that a policy gives often",
    )
    outputs = slider(
        8,
        3,
        20,
        1,
        group="The policies",
        label="outputs",
        whole=True,
        help="How many outputs there are, two of them good",
    )
    scale = slider(
        0.05,
        0.001,
        1,
        0.05,
        group="The teachers",
        label="marks of the accurate one, ×",
        log=True,
        tone="proxy",
        help="The fourth teacher is the ground truth, multiplied by this",
    )
    kl_coef = kl_slider(1e-4, 1, group="The teachers")
    gain = gain_slider(
        0.5, 0.05, 1.2, group="The teachers", step=0.05, help="How much the ground truth reward has to rise"
    )


class Grades(Explorable):
    """Thirty-six random reward models for one policy: a grade before training against the true reward that training
    brings.
    """

    alt = (
        "On the left a scatter plot: each dot is a reward model, across its pi-squared-weighted covariance with the "
        "truth, up the true reward gained; the dots rise along a curve. On the right, bars for seven grades: the "
        "covariances correlate with the gain best, then the product of deviation and accuracy, then accuracy and "
        "variance by themselves."
    )
    caption = traitlets.Unicode(
        "All reward models teach the same policy by the exact gradient flow. The scatter plot has one grade, and the "
        "bars have all of them. Make the time long, the scales equal, or the KL coefficient large, and see which "
        "grades fail."
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
        group="Grade",
        label="Grade of a reward model",
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
    outputs = slider(
        10, 3, 24, 1, group="Policy and outputs", label="outputs", whole=True, help="How many outputs there are"
    )
    peakedness = slider(
        1.0,
        0,
        3,
        0.05,
        group="Policy and outputs",
        label="peakedness",
        help="Standard deviation of the policy's random logits",
    )
    skill = slider(
        0.0,
        -3,
        3,
        0.05,
        group="Policy and outputs",
        label="skill",
        help="How much the policy's logits lean to good outputs (above 0) or to bad ones",
    )
    seed = slider(
        1,
        1,
        40,
        1,
        group="Policy and outputs",
        label="seed",
        whole=True,
        help="Other outputs, another policy, other reward models",
    )
